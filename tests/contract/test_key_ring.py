"""The contract of key rings: over PEM files, over Key Vault keys, and over both together.

Key Vault's client runs offline here, from keys that never left this process; what only the
service can say is in tests/unit/worker/keys/test_key_vault.py.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from azure.keyvault.keys.crypto import CryptographyClient
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.errors import PgkeepError
from shared.repository.base64url import encode
from shared.repository.documents import ClusterDocument
from shared.repository.key_record import KeyPurpose, KeyRecord, Recipient, commitment
from worker.keys.data_key import DataKey
from worker.keys.generate import KeyPair, KeySet, generate_key_set
from worker.keys.key_ring import (
    CompositeKeyRing,
    KeyCommitmentMismatch,
    KeyRing,
    NoUsableKey,
    UnwrapFailed,
    UnwrappingKey,
    WrappingKey,
    issue_data_key,
    rewrapped,
)
from worker.keys.key_vault import (
    KeyVaultUnavailable,
    KeyVaultUnwrappingKey,
    KeyVaultWrappingKey,
    PublicJwk,
)
from worker.keys.local_pem import PemUnwrappingKey, PemWrappingKey

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = b"canary-canary-canary-canary-1234"
CLUSTER = ClusterDocument(
    cluster="orders",
    cluster_uuid="5f0e8d0a-4a7e-4a52-8a3b-0c8f2b6d9e11",
    system_identifier="7421398765432109876",
    created_at=NOW,
)


@dataclass
class Holder:
    """Both halves of one recipient; `opened` counts its unwrappings."""

    public: WrappingKey
    _private: UnwrappingKey
    opened: list[Recipient] = field(default_factory=list)

    def fits(self, kek: str) -> bool:
        return self._private.fits(kek)

    def unwrap(self, recipient: Recipient) -> bytes:
        self.opened.append(recipient)
        return self._private.unwrap(recipient)


def pem_holder(pair: KeyPair) -> Holder:
    return Holder(PemWrappingKey.load(pair.public), PemUnwrappingKey.load(pair.private))


def vault_holder(pair: KeyPair) -> Holder:
    private = load_pem_private_key(pair.private.read_bytes(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    n, e = (_bytes(value) for value in (numbers.public_numbers.n, numbers.public_numbers.e))
    key_id = f"https://v.vault.azure.net/keys/{pair.public.name.partition('.')[0]}/" + "0" * 32
    material = {
        "kid": key_id,
        "kty": "RSA",
        "key_ops": ["unwrapKey"],
        "n": n,
        "e": e,
        **{name: _bytes(getattr(numbers, name)) for name in ("d", "p", "q")},
    }
    return Holder(
        KeyVaultWrappingKey.from_jwk(PublicJwk(kty="RSA", n=encode(n), e=encode(e)), key_id),
        KeyVaultUnwrappingKey(key_id, lambda _: CryptographyClient.from_jwk(material)),
    )


def _bytes(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8)


@dataclass
class Holders:
    """Two recipients, one that only manifests have, and one that is not asked."""

    vault: Holder
    escrow: Holder
    writer: Holder
    stranger: Holder


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeySet, KeySet]:
    return tuple(generate_key_set(tmp_path_factory.mktemp("keys")) for _ in "ab")  # type: ignore[return-value]


@pytest.fixture(params=["pem", "key-vault", "both"])
def holders(request: pytest.FixtureRequest, keys: tuple[KeySet, KeySet]) -> Holders:
    makers: dict[str, tuple[Callable[[KeyPair], Holder], Callable[[KeyPair], Holder]]] = {
        "pem": (pem_holder, pem_holder),
        "key-vault": (vault_holder, vault_holder),
        "both": (vault_holder, pem_holder),
    }
    online, offline = makers[request.param]
    ours, others = keys
    return Holders(
        online(ours.wrapping), offline(ours.escrow), online(ours.manifest), online(others.wrapping)
    )


@pytest.fixture
def writing(holders: Holders) -> KeyRing:
    """What the writer of backups holds: public halves, and its own key for manifests."""
    return CompositeKeyRing(
        [holders.vault.public, holders.escrow.public],
        [holders.writer],
        manifest_recipients=[holders.writer.public],
        generate=lambda: DataKey(SECRET),
    )


def reading(*private: UnwrappingKey) -> KeyRing:
    return CompositeKeyRing([], private)


def issue(ring: KeyRing, purpose: KeyPurpose = KeyPurpose.BACKUP) -> KeyRecord:
    return issue_data_key(ring, CLUSTER, purpose, NOW)[1]


def tampered(record: KeyRecord) -> KeyRecord:
    return record.model_copy(
        update={
            "recipients": tuple(
                item.model_copy(update={"encrypted_key": bytes(len(item.encrypted_key))})
                for item in record.recipients
            )
        }
    )


def test_each_recipient_alone_unwraps_what_was_wrapped(holders: Holders, writing: KeyRing) -> None:
    data_key, record = issue_data_key(writing, CLUSTER, KeyPurpose.BACKUP, NOW)
    assert record.escrowed
    for holder in (holders.vault, holders.escrow):
        assert reading(holder).unwrap(record).reveal() == data_key.reveal()


def test_the_record_names_the_cluster_the_purpose_and_every_recipient(writing: KeyRing) -> None:
    data_key, record = issue_data_key(writing, CLUSTER, KeyPurpose.WAL, NOW)
    assert (record.cluster, record.cluster_uuid) == (CLUSTER.cluster, CLUSTER.cluster_uuid)
    assert (record.purpose, record.rewrap, record.created_at) == (KeyPurpose.WAL, 0, NOW)
    assert record.commitment == commitment(data_key.reveal(), record.kid)
    assert len(record.recipients) == 2


def test_two_keys_of_a_ring_differ(holders: Holders) -> None:
    ring = CompositeKeyRing([holders.vault.public])
    one, other = (ring.new_data_key(KeyPurpose.BACKUP)[0] for _ in range(2))
    assert one.reveal() != other.reveal()


def test_the_writer_cannot_open_the_backups_that_it_wrote(
    holders: Holders, writing: KeyRing
) -> None:
    record = issue(writing)
    with pytest.raises(NoUsableKey) as refusal:
        writing.unwrap(record)
    assert all(recipient.kek in refusal.value.fact for recipient in record.recipients)
    assert holders.writer.opened == []


def test_the_writer_opens_manifests_and_so_do_the_recipients(
    holders: Holders, writing: KeyRing
) -> None:
    record = issue(writing, KeyPurpose.MANIFEST)
    for ring in (writing, reading(holders.vault), reading(holders.escrow)):
        assert ring.unwrap(record).reveal() == SECRET


def test_a_strangers_key_is_of_no_use(holders: Holders, writing: KeyRing) -> None:
    with pytest.raises(PgkeepError) as refusal:
        reading(holders.stranger).unwrap(issue(writing))
    # A fingerprint tells strangers apart beforehand; an id in a vault is taken at its word.
    assert isinstance(refusal.value, (NoUsableKey, UnwrapFailed))


def test_a_tampered_recipient_does_not_open(holders: Holders, writing: KeyRing) -> None:
    record = tampered(issue(writing))
    with pytest.raises(UnwrapFailed) as refusal:
        reading(holders.vault).unwrap(record)
    assert all(recipient.kek in refusal.value.advice for recipient in record.recipients)


def test_the_next_recipient_is_tried_when_one_does_not_open(
    holders: Holders, writing: KeyRing
) -> None:
    record = issue(writing)
    first, second = record.recipients
    spoiled = first.model_copy(update={"encrypted_key": bytes(384)})
    half = record.model_copy(update={"recipients": (spoiled, second)})
    assert reading(holders.vault, holders.escrow).unwrap(half).reveal() == SECRET


def test_of_several_failures_the_one_that_a_repetition_may_cure_is_told(
    holders: Holders, writing: KeyRing
) -> None:
    class Away:
        def fits(self, kek: str) -> bool:
            return True

        def unwrap(self, recipient: Recipient) -> bytes:
            raise KeyVaultUnavailable(f"no answer about {recipient.kek}")

    record = tampered(issue(writing))
    with pytest.raises(KeyVaultUnavailable) as failure:
        reading(holders.vault, Away(), holders.escrow).unwrap(record)
    assert all(recipient.kek in failure.value.advice for recipient in record.recipients)


def test_a_key_that_the_record_does_not_commit_to_is_refused(
    holders: Holders, writing: KeyRing
) -> None:
    record = issue(writing)
    for change in ({"commitment": bytes(32)}, {"kid": "k" + "z" * 26}):
        with pytest.raises(KeyCommitmentMismatch):
            reading(holders.vault).unwrap(record.model_copy(update=change))


@pytest.mark.parametrize("secret", [b"", b"short", b"l" * 33])
def test_a_wrapped_key_of_another_length_is_refused(
    holders: Holders, writing: KeyRing, secret: bytes
) -> None:
    record = issue(writing)
    forged = record.model_copy(
        update={
            "recipients": (holders.vault.public.wrap(secret),),
            "commitment": commitment(secret, record.kid),
        }
    )
    with pytest.raises(KeyCommitmentMismatch):
        reading(holders.vault).unwrap(forged)


def test_a_job_asks_for_each_key_once(holders: Holders, writing: KeyRing) -> None:
    ring, first, second = reading(holders.vault), issue(writing), issue(writing)
    assert ring.unwrap(first) is ring.unwrap(first)
    assert len(holders.vault.opened) == 1
    ring.unwrap(second)
    assert len(holders.vault.opened) == 2


def test_rotation_adds_a_record_that_the_new_recipient_opens(
    holders: Holders, writing: KeyRing
) -> None:
    record = issue(writing)
    rotating = CompositeKeyRing([holders.stranger.public, holders.escrow.public], [holders.escrow])
    later = rewrapped(rotating, record, NOW)
    assert (later.rewrap, later.wraps_same_key(record)) == (1, True)
    assert reading(holders.stranger).unwrap(later).reveal() == SECRET
    assert reading(holders.vault).unwrap(record).reveal() == SECRET


def test_no_secret_is_shown_by_records_rings_or_failures(
    holders: Holders, writing: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    data_key, record = issue_data_key(writing, CLUSTER, KeyPurpose.BACKUP, NOW)
    shown = [data_key, record, record.model_dump_json(), writing, holders.vault]
    reading(holders.vault).unwrap(record)
    for bad in (tampered(record), record.model_copy(update={"commitment": bytes(32)})):
        with pytest.raises(PgkeepError) as refusal:
            reading(holders.vault).unwrap(bad)
        shown += [refusal.value, *traceback.format_exception(refusal.value)]
    text = f"{shown} {caplog.text}"
    assert "canary" not in text
    assert encode(SECRET) not in text
    assert SECRET.hex() not in text
