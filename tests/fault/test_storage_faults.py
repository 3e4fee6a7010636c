"""Storage that misbehaves: scenarios U01 to U19 of the fault catalogue, behind a proxy."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
import trustme
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, HttpResponseError, ServiceResponseError
from azure.core.pipeline import Pipeline
from azure.core.pipeline.transport import HttpRequest, HttpTransport
from hypothesis import given
from hypothesis import strategies as st

from local.azurite import EmulatedAccount
from shared.azure_storage.patience import PatientRetry, RetryBudget
from shared.azure_storage.refusals import meaning_of
from shared.errors import (
    AccountKeyRefused,
    BlobAlreadyExists,
    BlobArchived,
    BlobImmutable,
    BlobNotFound,
    BlockListInvalid,
    ContainerNotFound,
    Corrupt,
    PgkeepError,
    SettingsInvalid,
    StorageDenied,
    StorageRequestRefused,
    StorageUnavailable,
    TransferCorrupt,
)
from shared.repository.azure_blob_store import AzureBlobStore, open_blob_store
from shared.repository.azure_credentials import CredentialKind, credential_for
from shared.repository.blob_store import BlobName
from tests.harness.http_fault_proxy import (
    GET_BLOB,
    LIST_BLOBS,
    PUT_BLOB,
    PUT_BLOCK,
    PUT_BLOCK_LIST,
    Fault,
    Harm,
    HttpFaultProxy,
    azure_error,
)

pytestmark = [pytest.mark.fault, pytest.mark.integration]

NAME = BlobName("full", "prod/20261122T030000Z-F-ab2c/base.pgdata.0000")
IDS = ["w1-00000", "w1-00001"]
BLOCK = bytes(range(256)) * 1024
WHOLE = BLOCK + BLOCK
BRIEF = RetryBudget(total_s=3, first_pause_s=0.01, longest_pause_s=0.2)
LOST_REPLIES = [Harm.DROP_BEFORE, Harm.DROP_AFTER, Harm.HALF_REQUEST]


@pytest.fixture
def proxy(azurite_account: EmulatedAccount) -> Iterator[HttpFaultProxy]:
    proxy = HttpFaultProxy(azurite_account.blob_url)
    yield proxy
    proxy.close()


@pytest.fixture
def store(azurite_account: EmulatedAccount, proxy: HttpFaultProxy) -> Iterator[AzureBlobStore]:
    store = open_blob_store(proxy.url, azurite_account.credential, retry=BRIEF)
    yield store
    store.close()


def upload(store: AzureBlobStore) -> None:
    for block_id in IDS:
        store.stage_block(NAME, block_id, BLOCK)
    store.commit_blocks(NAME, IDS, size=len(WHOLE))


@pytest.mark.parametrize("harm", LOST_REPLIES)
def test_u01_u03_a_block_whose_exchange_breaks_is_sent_again(
    store: AzureBlobStore, proxy: HttpFaultProxy, harm: Harm
) -> None:
    proxy.script(Fault(harm, PUT_BLOCK, times=2))
    upload(store)
    assert proxy.seen(PUT_BLOCK) == 4
    assert store.read(NAME, limit=len(WHOLE)) == WHOLE


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "InternalError"), (503, "ServerBusy"), (429, "TooManyRequests"), (408, "Timeout")],
)
def test_u02_an_answer_that_passes_is_outwaited(
    store: AzureBlobStore, proxy: HttpFaultProxy, status: int, code: str
) -> None:
    proxy.script(*(azure_error(where, status, code) for where in (PUT_BLOCK, PUT_BLOCK_LIST)))
    upload(store)
    assert store.read(NAME, limit=len(WHOLE)) == WHOLE


def test_u02_retry_after_is_honoured(store: AzureBlobStore, proxy: HttpFaultProxy) -> None:
    proxy.script(azure_error(PUT_BLOB, 503, "ServerBusy", Retry_After="1"))
    started = monotonic()
    store.create(NAME, b"content")
    assert monotonic() - started >= 1


def test_u02_a_service_that_stays_busy_is_given_up_within_the_budget(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    proxy.script(azure_error(PUT_BLOB, 503, "ServerBusy", Retry_After="2", times=2))
    started = monotonic()
    with pytest.raises(StorageUnavailable, match=r"busy.* \(HTTP 503 ServerBusy\)"):
        store.create(NAME, b"content")
    assert monotonic() - started < BRIEF.total_s + 1
    assert proxy.seen(PUT_BLOB) == 2


def test_u02_an_outage_in_the_middle_of_an_upload_is_outlasted(
    azurite_account: EmulatedAccount, proxy: HttpFaultProxy
) -> None:
    patient = RetryBudget(total_s=20, first_pause_s=0.05, longest_pause_s=0.3)
    store = open_blob_store(proxy.url, azurite_account.credential, retry=patient)
    store.stage_block(NAME, IDS[0], BLOCK)
    with ThreadPoolExecutor(1) as threads, proxy.outage() as end:
        staging = threads.submit(store.stage_block, NAME, IDS[1], BLOCK)
        Event().wait(1.5)
        assert not staging.done()
        end()
        staging.result()
    store.commit_blocks(NAME, IDS, size=len(WHOLE))
    assert store.read(NAME, limit=len(WHOLE)) == WHOLE
    store.close()


def test_u04_a_bit_that_turns_in_transit_is_noticed_by_storage_and_sent_again(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    proxy.script(
        Fault(Harm.FLIP_REQUEST_BIT, PUT_BLOCK, times=2), Fault(Harm.FLIP_REQUEST_BIT, PUT_BLOB)
    )
    upload(store)
    store.create(BlobName("full", "document"), b"content")
    assert store.read(NAME, limit=len(WHOLE)) == WHOLE
    assert store.read(BlobName("full", "document"), limit=7) == b"content"


def test_u04_bits_that_always_turn_end_in_corrupt_and_nothing_is_committed(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    proxy.script(Fault(Harm.FLIP_REQUEST_BIT, PUT_BLOB, times=10_000))
    with pytest.raises(TransferCorrupt, match="Mismatch"):
        store.create(NAME, b"content")
    assert len(proxy.fired) > 3
    proxy.forget()
    with pytest.raises(BlobNotFound):
        store.head(NAME)


def test_u05_a_commit_whose_reply_is_lost_recognises_its_own_work(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    proxy.script(Fault(Harm.DROP_AFTER, PUT_BLOCK_LIST))
    upload(store)
    assert proxy.seen(PUT_BLOCK_LIST) == 2
    assert store.read(NAME, limit=len(WHOLE)) == WHOLE


@pytest.mark.parametrize("harm", LOST_REPLIES)
def test_u05_a_create_whose_reply_is_lost_recognises_its_own_bytes(
    store: AzureBlobStore, proxy: HttpFaultProxy, harm: Harm
) -> None:
    proxy.script(Fault(harm, PUT_BLOB))
    assert store.create(NAME, b"content") == store.head(NAME)
    assert proxy.seen(PUT_BLOB) == 2


def test_u05_a_lost_reply_over_somebody_elses_bytes_is_a_conflict(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    store.create(NAME, b"theirs")
    proxy.script(Fault(Harm.DROP_AFTER, PUT_BLOB))
    with pytest.raises(BlobAlreadyExists, match="holds other bytes"):
        store.create(NAME, b"ours__")
    assert store.read(NAME, limit=6) == b"theirs"


def test_u08_a_writer_that_comes_second_loses_even_through_a_lost_reply(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    upload(store)
    proxy.script(Fault(Harm.DROP_AFTER, PUT_BLOCK_LIST))
    store.stage_block(NAME, "w2-00000", b"other")
    with pytest.raises(BlobAlreadyExists, match="BlobAlreadyExists"):
        store.commit_blocks(NAME, ["w2-00000"], size=5)
    assert store.read(NAME, limit=len(WHOLE)) == WHOLE


def test_u11_a_right_taken_away_in_the_middle_is_named_and_not_tried_again(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    store.stage_block(NAME, IDS[0], BLOCK)
    proxy.script(azure_error(PUT_BLOCK, 403, "AuthorizationPermissionMismatch"))
    with pytest.raises(StorageDenied, match=r"lacks the right blobs/add/action"):
        store.stage_block(NAME, IDS[1], BLOCK)
    assert proxy.seen(PUT_BLOCK) == 2
    with pytest.raises(BlobNotFound):
        store.head(NAME)


def test_u12_what_is_missing_or_closed_is_told_apart(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    proxy.script(
        azure_error(PUT_BLOCK, 403, "AuthorizationFailure"),
        azure_error(PUT_BLOCK, 403, "AccountIsDisabled"),
        azure_error(PUT_BLOCK, 404, "ContainerNotFound"),
    )
    expected: list[tuple[type[PgkeepError], str]] = [
        (StorageDenied, "network rules"),
        (StorageDenied, "account is disabled"),
        (ContainerNotFound, "container does not exist"),
    ]
    for error, words in expected:
        with pytest.raises(error, match=words) as raised:
            store.stage_block(NAME, IDS[0], BLOCK)
        assert raised.value.advice


def test_u16_a_listing_whose_page_fails_is_complete_or_raises(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    for number in range(3):
        store.create(BlobName("full", f"blob-{number}"), b"x")
    proxy.script(Fault(Harm.DROP_AFTER, LIST_BLOBS), azure_error(LIST_BLOBS, 503, "ServerBusy"))
    assert len(list(store.list("full"))) == 3
    proxy.script(azure_error(LIST_BLOBS, 403, "AuthorizationFailure"))
    with pytest.raises(StorageDenied):
        list(store.list("full"))


def test_u19_a_body_that_ends_early_is_read_again(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    upload(store)
    proxy.script(Fault(Harm.HALF_REPLY, GET_BLOB))
    assert store.read_range(NAME, 1000, 200_000) == WHOLE[1000:201_000]
    assert proxy.seen(GET_BLOB) == 2


def test_u19_a_body_that_always_ends_early_is_corrupt(
    store: AzureBlobStore, proxy: HttpFaultProxy
) -> None:
    upload(store)
    proxy.script(Fault(Harm.HALF_REPLY, GET_BLOB, times=3))
    with pytest.raises(Corrupt, match="fewer bytes came"):
        store.read_range(NAME, 1000, 200_000)


ANOTHER_RANGE = Fault(Harm.CHANGE_REPLY, GET_BLOB, headers={"Content-Range": "bytes 5-14/524288"})
NO_RANGE = Fault(Harm.CHANGE_REPLY, GET_BLOB, status=200, headers={"Content-Range": ""})
NONSENSE = Fault(Harm.CHANGE_REPLY, GET_BLOB, headers={"Content-Range": "nonsense"})


@pytest.mark.parametrize("fault", [ANOTHER_RANGE, NO_RANGE, NONSENSE])
def test_u19_an_answer_for_another_range_is_asked_for_again_then_corrupt(
    store: AzureBlobStore, proxy: HttpFaultProxy, fault: Fault
) -> None:
    upload(store)
    proxy.script(fault)
    assert store.read_range(NAME, 0, 10) == WHOLE[:10]
    proxy.script(fault, fault, fault)
    with pytest.raises(Corrupt, match="asked for bytes 0-9"):
        store.read_range(NAME, 0, 10)


def test_u17_a_name_that_does_not_resolve_is_told_apart() -> None:
    store = unreachable("https://pgkeep.invalid")
    with pytest.raises(StorageUnavailable, match="host name does not resolve") as raised:
        store.head(NAME)
    assert "private endpoint" in raised.value.advice
    store.close()


def test_u17_a_port_where_nobody_listens_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    store = unreachable(f"http://127.0.0.1:{port}/account")
    with pytest.raises(StorageUnavailable, match="connection was refused"):
        store.head(NAME)
    store.close()


def test_u17_a_certificate_nobody_vouches_for_is_told_apart_and_not_tried_again() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=shake_hands, args=(server, context), daemon=True).start()
        store = unreachable(f"https://127.0.0.1:{server.getsockname()[1]}/account")
        with pytest.raises(StorageUnavailable, match=r"tls failed: .*issuer") as raised:
            store.head(NAME)
        assert "CA file" in raised.value.advice
        store.close()


def unreachable(url: str) -> AzureBlobStore:
    key = AzureNamedKeyCredential("account", "a2V5")
    return open_blob_store(url, key, retry=RetryBudget(total_s=0.2, first_pause_s=0.05))


def shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    """Once: a second attempt would wait for ever."""
    connection, _ = server.accept()
    with connection:
        try:
            context.wrap_socket(connection, server_side=True).close()
        except OSError:
            return


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (409, "BlobImmutableDueToPolicy", BlobImmutable),
        (409, "BlobArchived", BlobArchived),
        (409, "BlobBeingRehydrated", BlobArchived),
        (400, "InvalidBlockList", BlockListInvalid),
        (400, "InvalidBlobOrBlock", BlockListInvalid),
        (403, "UnauthorizedBlobOverwrite", BlobAlreadyExists),
        (403, "KeyBasedAuthenticationNotPermitted", StorageDenied),
        (401, "NoAuthenticationInformation", StorageDenied),
        (403, "SomethingNew", StorageDenied),
        (412, "ConditionNotMet", Corrupt),
        (416, "InvalidRange", Corrupt),
        (507, "SomethingNew", StorageUnavailable),
        (400, "InvalidHeaderValue", StorageRequestRefused),
        (413, "RequestBodyTooLarge", StorageRequestRefused),
    ],
)
def test_every_refusal_has_its_own_class_and_names_status_and_code(
    store: AzureBlobStore,
    proxy: HttpFaultProxy,
    status: int,
    code: str,
    expected: type[PgkeepError],
) -> None:
    proxy.script(azure_error("DELETE ", status, code))
    with pytest.raises(expected, match=rf"^{expected.code}: {NAME}.*\(HTTP {status} {code}\)$"):
        store.delete(NAME)


def test_an_error_of_which_nothing_is_known_is_still_ours() -> None:
    assert isinstance(meaning_of(AzureError("?"), "full/x"), StorageUnavailable)
    assert isinstance(meaning_of(HttpResponseError("?"), "full/x"), StorageUnavailable)


def repeatable(seed: int) -> Random:
    return Random(seed)  # noqa: S311


class ScriptedTransport(HttpTransport[Any, Any]):
    """Answers from a script, then 200 for ever; time passes only by waiting and by answering."""

    def __init__(self, script: list[int | None]) -> None:
        self.script = script
        self.bodies: list[object] = []
        self.now = 0.0

    def send(self, request: Any, **options: Any) -> Any:
        self.now += 0.1
        self.bodies.append(request.content)
        status = self.script.pop(0) if self.script else 200
        if status is None:
            raise ServiceResponseError("the connection broke")
        return Answer(status)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def open(self) -> None: ...

    def close(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Answer:
    def __init__(self, status: int) -> None:
        self.status_code = status
        self.headers = {"Retry-After": "7"} if status == 503 else {}


STATUSES = st.sampled_from([None, 408, 429, 500, 503, 200, 404, 409])


@given(script=st.lists(STATUSES, max_size=60), seed=st.integers(), total_s=st.floats(0, 60))
def test_f14_any_script_of_faults_ends_within_the_budget_with_the_same_bytes_each_time(
    script: list[int | None], seed: int, total_s: float
) -> None:
    transport = ScriptedTransport(list(script))
    budget = RetryBudget(total_s=total_s, first_pause_s=0.5, longest_pause_s=5)
    policy = PatientRetry(
        budget, rng=repeatable(seed), clock=lambda: transport.now, wait=transport.wait
    )
    request = HttpRequest("PUT", "http://127.0.0.1/", headers={}, data=b"the same bytes")
    request.content = request.data  # type: ignore[attr-defined]
    final: int | None
    try:
        final = Pipeline(transport, [policy]).run(request).http_response.status_code
    except ServiceResponseError:
        final = None
    passing = {None, 408, 429, 500, 503}
    attempts = len(transport.bodies)
    assert set(transport.bodies) == {b"the same bytes"}
    assert transport.now <= total_s + 0.1 * 2
    assert all(status in passing for status in script[: attempts - 1])
    assert final == (script + [200] * attempts)[attempts - 1]


@given(seed=st.integers(), first=st.floats(0.01, 5), longest=st.floats(5, 60))
def test_pauses_grow_are_jittered_and_stay_below_the_longest(
    seed: int, first: float, longest: float
) -> None:
    pauses = RetryBudget(first_pause_s=first, longest_pause_s=longest).pauses(repeatable(seed))
    ceiling = first
    for _ in range(12):
        assert ceiling / 2 <= next(pauses) <= ceiling <= longest
        ceiling = min(2 * ceiling, longest)


@pytest.mark.parametrize("url", ["https://prod.blob.core.windows.net", "http://10.0.0.4/a", ""])
def test_an_account_key_is_refused_for_all_but_this_machine(url: str) -> None:
    with pytest.raises(AccountKeyRefused):
        credential_for(
            CredentialKind.ACCOUNT_KEY, account_url=url, account_name="a", account_key="a2V5"
        )


def test_an_account_key_opens_the_emulator() -> None:
    credential = credential_for(
        CredentialKind.ACCOUNT_KEY,
        account_url="http://127.0.0.1:10000/devstoreaccount1",
        account_name="devstoreaccount1",
        account_key="a2V5",
    )
    assert isinstance(credential, AzureNamedKeyCredential)


@pytest.mark.parametrize(
    "kind", [CredentialKind.MANAGED_IDENTITY, CredentialKind.WORKLOAD_IDENTITY]
)
def test_an_identity_must_be_named(kind: CredentialKind) -> None:
    with pytest.raises(SettingsInvalid, match="client_id"):
        credential_for(kind)
