"""Composition root of the worker: settings in, services out; clock and chance enter here."""

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shared import adapters
from shared import settings as s
from shared.errors import SettingsInvalid
from shared.repository.azure_credentials import CredentialKind, token_credential
from shared.repository.signatures import Signer
from shared.telemetry.meters import NO_TELEMETRY, Telemetry
from worker.commands.services import Clocks, Progress, Services
from worker.heartbeat import Heartbeat, check_heartbeat
from worker.keys.key_ring import CompositeKeyRing, UnwrappingKey, WrappingKey
from worker.keys.key_vault import (
    ClientFor,
    KeyVaultUnwrappingKey,
    KeyVaultWrappingKey,
    service_client,
)
from worker.keys.local_pem import PemUnwrappingKey, PemWrappingKey
from worker.keys.signing import KeyVaultSigner, PemSigner
from worker.observation import begin_observation

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


def load_settings(source: str | None) -> s.Settings:
    """From a file, or a blob by its URL; None: from where PGKEEP_CONFIG says.

    Raises SettingsInvalid.
    """
    return adapters.load_settings(source)


def services(
    settings: s.Settings, progress: Progress, telemetry: Telemetry = NO_TELEMETRY
) -> Services:
    """Opens no connection; keys are read from their files here, so that bad ones fail early."""
    threads = settings.worker.transfer_threads + settings.worker.compression_threads
    return Services(
        settings=settings,
        store=adapters.blob_store(settings.repository, threads),
        leases=adapters.leases(settings.repository, now),
        pinned=adapters.pinned_keys(settings.keys),
        key_ring=_key_ring(settings.keys),
        signer=None if settings.keys.signing is None else _signer(settings.keys.signing),
        clocks=Clocks(now=now, monotonic=time.monotonic),
        random=secrets.token_bytes,
        host=f"{socket.gethostname()}/{os.getpid()}",
        progress=progress,
        alive=Heartbeat(heartbeat_file()).beat,
        secondary=adapters.secondary_store(settings.repository, threads),
        replication=adapters.replication_status(settings.repository),
        telemetry=telemetry,
    )


def heartbeat_file() -> Path | None:
    """Where a process that serves shows that it lives, if anybody wants to know."""
    path = os.environ.get(_HEARTBEAT)
    return Path(path) if path else None


def check_life() -> str:
    """Of the process that serves beside us. Raises HeartbeatStopped, SettingsInvalid."""
    path = heartbeat_file()
    if path is None:
        raise SettingsInvalid(f"{_HEARTBEAT} does not say where the heartbeat is")
    return check_heartbeat(path, now().timestamp())


@contextmanager
def observed(*, scraped: bool) -> Iterator[Telemetry]:
    """Telemetry as the environment asks for it; what was recorded is sent before the end.

    Whoever is to be `scraped` lives long enough.
    """
    known = None if heartbeat_file() is None else check_life
    observation = begin_observation(os.environ, scraped=scraped, check_life=known)
    try:
        yield observation.telemetry
    finally:
        with suppress(Interrupted):  # the grace is over, and so is the time to send in
            observation.end()


_HEARTBEAT = "PGKEEP_HEARTBEAT"


class Interrupted(BaseException):
    """The grace of a job that was asked to go is over, raised wherever it is.

    No error that anybody may handle or retry: what it passes through cleans up and lets it pass.
    """


def stop_signal(grace_s: int = 0) -> threading.Event:
    """Set by SIGTERM and SIGINT: the container is asked to go.

    With `grace_s`, SIGALRM ends the process so many seconds later, whatever it still waits for: a
    host that is asked to go has 30 s, and storage that is away takes longer to give up.
    """
    stop = threading.Event()

    def ask(*_: object) -> None:
        stop.set()
        signal.alarm(grace_s)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop


def job_stop_signal(grace_s: int) -> threading.Event:
    """As `stop_signal`; but the main thread gets Interrupted, so that leases are given up, and
    throw-away instances and connections closed.
    """
    stop = stop_signal(grace_s)
    signal.signal(signal.SIGALRM, _interrupt)
    return stop


def _interrupt(*_: object) -> None:
    raise Interrupted


def now() -> datetime:
    return datetime.now(UTC)


def person(client_id: str | None) -> "TokenCredential":
    """Who types a command: signed in with the Azure CLI, or on a host with an identity."""
    kind = CredentialKind.MANAGED_IDENTITY if client_id else CredentialKind.AZURE_CLI
    return token_credential(kind, client_id=client_id)


def _key_ring(keys: s.Keys) -> CompositeKeyRing:
    extra = [] if keys.manifest_recipient is None else [_wrapping(keys.manifest_recipient)]
    return CompositeKeyRing(
        [_wrapping(key) for key in keys.recipients],
        [_unwrapping(key) for key in keys.unwrap],
        manifest_recipients=extra,
    )


def _wrapping(key: s.PemKey | s.KeyVaultKey) -> WrappingKey:
    if isinstance(key, s.PemKey):
        return PemWrappingKey.load(key.path) if key.path else PemWrappingKey.from_pem(key.pem or "")
    if key.pem is not None:
        return KeyVaultWrappingKey.from_pem(key.pem, key.key_id)
    if key.public_jwk is None:
        raise SettingsInvalid(f"{key.key_id} wraps only with its public_jwk, or its pem")
    return KeyVaultWrappingKey.load(key.public_jwk, key.key_id)


def _unwrapping(key: s.PemKey | s.KeyVaultKey) -> UnwrappingKey:
    if isinstance(key, s.PemKey):
        return PemUnwrappingKey.load(_file_of(key), key.passphrase)
    return KeyVaultUnwrappingKey(key.key_id, _client_for(key.credential))


def _signer(key: s.PemKey | s.KeyVaultKey) -> Signer:
    if isinstance(key, s.PemKey):
        return PemSigner.load(_file_of(key), key.passphrase)
    return KeyVaultSigner(key.key_id, _client_for(key.credential))


def _file_of(key: s.PemKey) -> Path:
    """Private halves lie in files of their own. Raises SettingsInvalid."""
    if key.path is None:
        raise SettingsInvalid("keys.unwrap and keys.signing need the path of a private key")
    return key.path


def _client_for(credential: s.Credential) -> ClientFor:
    token = token_credential(CredentialKind(credential.kind), client_id=credential.client_id)
    return lambda key_id: service_client(key_id, token)
