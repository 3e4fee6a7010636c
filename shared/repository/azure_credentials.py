"""Who we are to Azure: one pinned way per deployment, never a search through all of them.

DefaultAzureCredential would try many sources, fail slowly, and may find somebody else's rights.
"""

from enum import StrEnum
from typing import Final

from azure.core.credentials import AzureNamedKeyCredential, TokenCredential

from shared.azure_storage.transport import Credential, is_loopback
from shared.errors import AccountKeyRefused, Denied, SettingsInvalid, Unavailable

# The audience of Azure Database for PostgreSQL, by Microsoft's page on signing in with Entra ID
# (flexible-server/how-to-configure-sign-in-azure-ad-authentication).
DATABASE_SCOPE: Final = "https://ossrdbms-aad.database.windows.net/.default"


class EntraLoginFailed(Denied):
    """Entra ID gave the identity no token."""

    code = "entra-login-failed"
    hint = "Look whether the identity exists here (`client_id`), and may log in to the database."


class EntraUnavailable(Unavailable):
    """Entra ID, or the way to it, does not answer."""

    code = "entra-unavailable"
    hint = "Try again; look at the network when it lasts."


class CredentialKind(StrEnum):
    """The values of the setting that chooses."""

    MANAGED_IDENTITY = "managed-identity"
    WORKLOAD_IDENTITY = "workload-identity"
    AZURE_CLI = "azure-cli"
    ACCOUNT_KEY = "emulator-key"


def credential_for(
    kind: CredentialKind,
    *,
    account_url: str = "",
    client_id: str | None = None,
    account_name: str | None = None,
    account_key: str | None = None,
) -> Credential:
    """`client_id` names the user-assigned identity; an account key opens the emulator alone.

    Raises AccountKeyRefused, SettingsInvalid when the kind's value is missing. Asks nobody yet.
    """
    if kind is CredentialKind.ACCOUNT_KEY:
        return _emulator_key(account_url, account_name, account_key)
    return token_credential(kind, client_id=client_id)


def token_credential(kind: CredentialKind, *, client_id: str | None = None) -> TokenCredential:
    """For Key Vault and databases as well: they know no account keys. Raises SettingsInvalid."""
    from azure.identity import (
        AzureCliCredential,
        ManagedIdentityCredential,
        WorkloadIdentityCredential,
    )

    match kind:
        case CredentialKind.MANAGED_IDENTITY:
            return ManagedIdentityCredential(client_id=_given(client_id, "client_id", kind))
        case CredentialKind.WORKLOAD_IDENTITY:
            # Tenant and token file come from the variables that the AKS webhook sets in the pod.
            return WorkloadIdentityCredential(client_id=_given(client_id, "client_id", kind))
        case CredentialKind.AZURE_CLI:
            return AzureCliCredential()
        case CredentialKind.ACCOUNT_KEY:
            raise SettingsInvalid(f"credential {kind} gives no token")


def database_token(credential: TokenCredential) -> str:
    """A token that PostgreSQL takes in the place of a password, for about an hour.

    The credential keeps it and asks for a new one in time. Raises EntraLoginFailed,
    EntraUnavailable.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError

    try:
        return credential.get_token(DATABASE_SCOPE).token
    except ClientAuthenticationError as error:
        raise EntraLoginFailed(f"no token for the database: {_first_line(error)}") from None
    except AzureError as error:
        raise EntraUnavailable(f"no token for the database: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _emulator_key(
    account_url: str, account_name: str | None, account_key: str | None
) -> AzureNamedKeyCredential:
    kind = CredentialKind.ACCOUNT_KEY
    if not is_loopback(account_url):
        raise AccountKeyRefused(f"account key for {account_url!r}, which is not on this machine")
    return AzureNamedKeyCredential(
        _given(account_name, "account_name", kind), _given(account_key, "account_key", kind)
    )


def _given(value: str | None, what: str, kind: CredentialKind) -> str:
    if not value:
        raise SettingsInvalid(f"credential {kind} needs {what}")
    return value
