"""Account policies as Azure Resource Manager tells them: three kinds of GET, no SDK of its own.

The pipeline is azure-core's, with the patience that storage gets; the package for storage
management would bring three distributions to both edges for six requests.
"""

from typing import Any, Final, TypeVar

from azure.core import PipelineClient
from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceRequestError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest, HttpResponse
from pydantic import BaseModel, ValidationError

from shared.azure_storage.patience import RetryBudget
from shared.azure_storage.transport import client_options, is_loopback
from shared.domain.lifecycle_rules import AccountProtection, ContainerPolicy, LifecycleRule
from shared.repository.account_policies import AccountPoliciesDenied, AccountPoliciesUnavailable
from shared.repository.arm_payloads import BlobService, Container, ManagementPolicy

M = TypeVar("M", bound=BaseModel)

PUBLIC_CLOUD: Final = "https://management.azure.com"
# Has every member that is read; newer versions only add.
_API_VERSION: Final = "2024-01-01"
# A guard that waits minutes would hold up the taking in of a backup. Throttled answers of Resource
# Manager ask for more than that as a rule: then the guard is blind until the next look.
_PATIENCE: Final = RetryBudget(total_s=15, first_pause_s=0.5, longest_pause_s=5)
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404
_NO_POLICY: Final = "ManagementPolicyNotFound"
_NO_CONTAINER: Final = "ContainerNotFound"


def open_account_policies(
    account: str,
    credential: TokenCredential,
    *,
    endpoint: str = PUBLIC_CLOUD,
    retry: RetryBudget = _PATIENCE,
) -> "ArmAccountPolicies":
    """`account` is the resource id, `/subscriptions/…/storageAccounts/<name>`; sends nothing yet.

    Tokens go over TLS only, but for an endpoint on this very machine.
    """
    options = client_options(endpoint, ca_file=None, retry=retry, threads=1)
    client: PipelineClient[HttpRequest, HttpResponse] = PipelineClient(
        endpoint,
        policies=[
            options["retry_policy"],
            BearerTokenCredentialPolicy(credential, f"{endpoint}/.default"),
        ],
        transport=options["transport"],
    )
    return ArmAccountPolicies(client, f"{endpoint}{account}", tls_only=not is_loopback(endpoint))


def account_id(subscription: str, group: str, name: str) -> str:
    """The account's resource id."""
    return (
        f"/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.Storage/storageAccounts/{name}"
    )


class ArmAccountPolicies:
    """See shared.repository.account_policies.AccountPolicies for the contract."""

    def __init__(
        self,
        client: PipelineClient[HttpRequest, HttpResponse],
        account_url: str,
        *,
        tls_only: bool,
    ) -> None:
        self._client = client
        self._account_url = account_url
        self._tls_only = tls_only

    def close(self) -> None:
        self._client.close()

    def lifecycle_rules(self) -> tuple[LifecycleRule, ...]:
        answer = self._answer("managementPolicies/default")
        return () if _is_absent(answer, _NO_POLICY) else _read(answer, ManagementPolicy).rules()

    def container_policy(self, container: str) -> ContainerPolicy:
        answer = self._answer(f"blobServices/default/containers/{container}")
        if _is_absent(answer, _NO_CONTAINER):
            return ContainerPolicy()
        return _read(answer, Container).policy()

    def protection(self) -> AccountProtection:
        return _read(self._answer("blobServices/default"), BlobService).protection()

    def _answer(self, path: str) -> HttpResponse:
        what = f"{self._account_url}/{path}"
        request = HttpRequest("GET", what, params={"api-version": _API_VERSION})
        try:
            return self._client.send_request(request, enforce_https=self._tls_only)
        except ClientAuthenticationError as error:
            raise AccountPoliciesDenied(f"{what}: no token: {_first_line(error)}") from None
        except ServiceRequestError as error:
            raise AccountPoliciesUnavailable(
                f"{what}: no way there: {_first_line(error)}"
            ) from None
        except AzureError as error:
            raise AccountPoliciesUnavailable(f"{what}: {_first_line(error)}") from None


def _is_absent(answer: HttpResponse, code: str) -> bool:
    """Whether this very resource is missing, and not the account or the whole subscription."""
    return answer.status_code == _NOT_FOUND and _code(answer) == code


def _read(answer: HttpResponse, model: type[M]) -> M:
    what = answer.request.url
    if answer.status_code != _OK:
        raise _refusal(answer, what)
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "its beginning"
        fact = f"{what}: the answer does not read at {where}"
        raise AccountPoliciesUnavailable(fact) from None


def _refusal(answer: HttpResponse, what: str) -> AccountPoliciesDenied | AccountPoliciesUnavailable:
    told = f"{what}: HTTP {answer.status_code} {_code(answer)}".rstrip()
    if answer.status_code in {_UNAUTHORIZED, _FORBIDDEN}:
        return AccountPoliciesDenied(told)
    if answer.status_code == _NOT_FOUND:
        hint = "Check subscription, resource group and name in [account] of the settings."
        return AccountPoliciesUnavailable(told, hint=hint)
    return AccountPoliciesUnavailable(told)


def _code(answer: HttpResponse) -> str:
    """Of the error's body, `{"error": {"code": …}}`; empty when it has none."""
    try:
        body: Any = answer.json()
    except ValueError:
        return ""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def _first_line(error: AzureError) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
