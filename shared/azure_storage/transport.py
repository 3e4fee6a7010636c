"""The connections to one storage account: pool, time limits, TLS, proxies, and quiet loggers."""

import logging
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
from azure.core.credentials import AzureNamedKeyCredential, TokenCredential
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter

from shared.azure_storage.patience import PatientRetry, RetryBudget
from shared.errors import InvalidInput

Credential = TokenCredential | AzureNamedKeyCredential

# A dead route shows in 10 s. An 8 MiB block over a 2 Mbit/s line takes 34 s: 60 s is not yet dead.
CONNECT_LIMIT_S = 10
READ_LIMIT_S = 60
# Bytes of a body read at once. More than the largest range that pgkeep asks for, so that the SDK
# hands over what the socket filled, instead of joining pieces of 256 KiB.
_READ_PIECE = 16 * 1024 * 1024


class AccountUrlInvalid(InvalidInput):
    """An address that is not that of a storage account's service."""

    code = "account-url-invalid"
    hint = "It looks like https://<account>.blob.core.windows.net, with queue for blob for queues."


def client_options(
    account_url: str, *, ca_file: str | None, retry: RetryBudget, threads: int
) -> dict[str, Any]:
    """Keyword arguments that the clients for blobs and for queues both take.

    `threads` is how many requests run at once: the pool keeps as many connections.
    """
    # The SDK logs each request at INFO, and the Functions worker puts the root logger there.
    logging.getLogger("azure").setLevel(logging.WARNING)
    transport = RequestsTransport(
        session=_session(threads, trust_env=not is_loopback(account_url)),
        connection_verify=ca_file or True,
        connection_timeout=CONNECT_LIMIT_S,
        read_timeout=READ_LIMIT_S,
        connection_data_block_size=_READ_PIECE,
    )
    return {"transport": transport, "retry_policy": PatientRetry(retry)}


def check_account_url(account_url: str, credential: Credential) -> None:
    """Raises AccountUrlInvalid. Tokens go over TLS only."""
    parts = urlsplit(account_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise AccountUrlInvalid(f"{account_url!r} is not the address of a storage account")
    if parts.scheme != "https" and not isinstance(credential, AzureNamedKeyCredential):
        raise AccountUrlInvalid(f"{account_url!r} is not https, which a token needs")


def is_loopback(url: str) -> bool:
    """Whether the host is this machine by its very address: no name but localhost is believed."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _session(threads: int, *, trust_env: bool) -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=2, pool_maxsize=threads)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.trust_env = trust_env  # proxies, which an emulator on this machine is never behind
    return session
