"""The port to data keys, and its composition from wrapping and unwrapping keys.

Wrapping needs only public halves, so a writer of backups cannot read old ones. The one exception:
`backup_manifest` has its own key, wrapped in addition to a key the writer may unwrap, because an
incremental backup uploads its parent's manifest.
"""

import hmac
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from shared.errors import Corrupt, Denied, PgkeepError
from shared.repository.documents import ClusterDocument
from shared.repository.key_record import (
    DATA_KEY_LENGTH,
    KeyPurpose,
    KeyRecord,
    Recipient,
    commitment,
    new_kid,
)
from worker.keys.data_key import DataKey


class NoUsableKey(Denied):
    """None of the private keys here belongs to a recipient of the data key."""

    code = "no-usable-key"
    hint = "Configure one of the recipients that the message names under keys.unwrap."


class UnwrapFailed(Denied):
    """A private key did not open what was wrapped to it: another key, or bytes were changed."""

    code = "unwrap-failed"
    hint = "Try another recipient of the data key, such as the escrow key."


class KeyCommitmentMismatch(Corrupt):
    """A recipient holds another data key than the one the record commits to."""

    code = "key-commitment-mismatch"
    hint = "Do not use this key record: look at who wrote it, and try an earlier one."


class WrappingKey(Protocol):
    """The public half of a recipient."""

    def wrap(self, data_key: bytes) -> Recipient:
        """Local: no network, no right at Key Vault."""
        ...


class UnwrappingKey(Protocol):
    """The private half of a recipient, or the right to use it."""

    def fits(self, kek: str) -> bool:
        """Whether `kek` names this key, in any of its versions."""
        ...

    def unwrap(self, recipient: Recipient) -> bytes:
        """Raises UnwrapFailed, or why the key cannot be used at all."""
        ...


class KeyRing(Protocol):
    """Three operations; safe to call from several threads."""

    def new_data_key(self, purpose: KeyPurpose) -> tuple[DataKey, list[Recipient]]:
        """A fresh key, wrapped to every recipient of `purpose`."""
        ...

    def wrap(self, data_key: DataKey, purpose: KeyPurpose) -> list[Recipient]:
        """An existing key, wrapped to the recipients of today: for rotation."""
        ...

    def unwrap(self, record: KeyRecord) -> DataKey:
        """The key that `record` commits to; the record comes authenticated.

        Raises NoUsableKey, UnwrapFailed, KeyCommitmentMismatch, and what Key Vault says:
        KeyVaultDenied, WrappingKeyDisabled, WrappingKeyMissing, KeyVaultUnavailable.
        """
        ...


class CompositeKeyRing:
    """Wraps to all of `recipients`, unwraps with the first of `private` that can.

    It remembers what it unwrapped: one ring serves one job, and Key Vault limits its callers.
    """

    def __init__(
        self,
        recipients: Sequence[WrappingKey],
        private: Sequence[UnwrappingKey] = (),
        *,
        manifest_recipients: Sequence[WrappingKey] = (),
        generate: Callable[[], DataKey] = DataKey.generate,
    ) -> None:
        self._recipients = tuple(recipients)
        self._private = tuple(private)
        self._manifest_recipients = tuple(manifest_recipients)
        self._generate = generate
        self._unwrapped: dict[tuple[str, bytes], DataKey] = {}
        self._lock = threading.Lock()

    def new_data_key(self, purpose: KeyPurpose) -> tuple[DataKey, list[Recipient]]:
        data_key = self._generate()
        return data_key, self.wrap(data_key, purpose)

    def wrap(self, data_key: DataKey, purpose: KeyPurpose) -> list[Recipient]:
        extra = self._manifest_recipients if purpose is KeyPurpose.MANIFEST else ()
        return [key.wrap(data_key.reveal()) for key in (*self._recipients, *extra)]

    def unwrap(self, record: KeyRecord) -> DataKey:
        with self._lock:
            known = (record.kid, record.commitment)
            if known not in self._unwrapped:
                self._unwrapped[known] = self._unwrap(record)
            return self._unwrapped[known]

    def _unwrap(self, record: KeyRecord) -> DataKey:
        failures: list[PgkeepError] = []
        for key in self._private:
            for recipient in (item for item in record.recipients if key.fits(item.kek)):
                try:
                    return _committed(key.unwrap(recipient), record, recipient)
                except PgkeepError as error:
                    failures.append(error)
        keks = ", ".join(recipient.kek for recipient in record.recipients)
        if not failures:
            raise NoUsableKey(f"no private key here opens data key {record.kid}: it is for {keks}")
        raise _most_hopeful(failures, f"Data key {record.kid} can be opened by: {keks}.")


def issue_data_key(
    ring: KeyRing, cluster: ClusterDocument, purpose: KeyPurpose, now: datetime
) -> tuple[DataKey, KeyRecord]:
    """A fresh data key and the record to sign and store before anything is sealed under it."""
    data_key, recipients = ring.new_data_key(purpose)
    kid = new_kid()
    record = KeyRecord(
        kid=kid,
        cluster=cluster.cluster,
        cluster_uuid=cluster.cluster_uuid,
        purpose=purpose,
        commitment=commitment(data_key.reveal(), kid),
        recipients=tuple(recipients),
        created_at=now,
    )
    return data_key, record


def rewrapped(ring: KeyRing, record: KeyRecord, now: datetime) -> KeyRecord:
    """The next record of the same data key, for the recipients of today. Raises as `unwrap`."""
    recipients = tuple(ring.wrap(ring.unwrap(record), record.purpose))
    changes = {"recipients": recipients, "created_at": now, "rewrap": record.rewrap + 1}
    return KeyRecord.model_validate({**dict(record), **changes})


def _committed(secret: bytes, record: KeyRecord, recipient: Recipient) -> DataKey:
    found = commitment(secret, record.kid)
    if len(secret) != DATA_KEY_LENGTH or not hmac.compare_digest(found, record.commitment):
        raise KeyCommitmentMismatch(
            f"what {recipient.kek} opened is not the data key that {record.kid} commits to"
        )
    return DataKey(secret)


def _most_hopeful(failures: Sequence[PgkeepError], advice: str) -> PgkeepError:
    """The failure that a repetition may cure, else the first; with `advice` added to its hint."""
    chosen = max(failures, key=lambda error: error.retryable)
    chosen.advice = f"{chosen.advice} {advice}"
    return chosen
