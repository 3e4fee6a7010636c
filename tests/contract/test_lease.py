"""What every lease store promises, asked of each of them: blobs on Azurite, files with flock."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from azure.storage.blob import BlobClient, BlobLeaseClient

from local.azurite import EmulatedAccount
from shared.errors import Corrupt, LeaseHeld, LeaseLost, PgkeepError, StorageUnavailable
from shared.jobs.blob_lease import BlobLeases, LeaseTtlInvalid, open_blob_leases
from shared.jobs.file_lease import FileLeases, LeaseNameInvalid
from shared.jobs.lease import Lease, LeaseRecord, LeaseStore, Renewal, hold, keep_renewing

NAME = "locks/prod/backup.json"
TTL_S = 15


@pytest.fixture
def blob_leases(azurite_account: EmulatedAccount) -> Iterator[BlobLeases]:
    leases = open_blob_leases(azurite_account.blob_url, "state", azurite_account.credential)
    yield leases
    leases.close()


@pytest.fixture(params=["files", "blobs"])
def leases(request: pytest.FixtureRequest, tmp_path: Path) -> LeaseStore:
    if request.param == "files":
        return FileLeases(tmp_path / "state", now)
    blobs: BlobLeases = request.getfixturevalue("blob_leases")
    return blobs


def now() -> datetime:
    return datetime.now(UTC)


def test_a_lease_names_its_holder_and_the_time(leases: LeaseStore) -> None:
    lease = leases.acquire(NAME, "worker-1", TTL_S)
    assert (lease.name, lease.holder, lease.token, lease.ttl_s) == (NAME, "worker-1", 1, TTL_S)
    assert abs((now() - lease.acquired_at).total_seconds()) < 60
    record = leases.current(NAME)
    assert record == LeaseRecord(token=1, holder="worker-1", acquired_at=lease.acquired_at)
    leases.release(lease)


def test_a_second_contender_learns_who_holds_it_and_since_when(leases: LeaseStore) -> None:
    lease = leases.acquire(NAME, "worker-1", TTL_S)
    with pytest.raises(LeaseHeld, match=f"by worker-1 since {lease.acquired_at:%F %TZ}"):
        leases.acquire(NAME, "worker-2", TTL_S)
    leases.renew(lease)
    leases.release(lease)


def test_nobody_holds_what_was_never_taken_or_was_released(leases: LeaseStore) -> None:
    assert leases.current(NAME) is None
    lease = leases.acquire(NAME, "worker-1", TTL_S)
    leases.release(lease)
    leases.release(lease)
    assert leases.current(NAME) is None


def test_tokens_only_rise(leases: LeaseStore) -> None:
    tokens = []
    for number in range(4):
        lease = leases.acquire(NAME, f"worker-{number}", TTL_S)
        tokens.append(lease.token)
        leases.release(lease)
    assert tokens == [1, 2, 3, 4]


def test_names_do_not_hinder_one_another(leases: LeaseStore) -> None:
    held = [leases.acquire(f"locks/{name}/backup.json", "me", TTL_S) for name in ("prod", "test")]
    assert [lease.token for lease in held] == [1, 1]
    for lease in held:
        leases.release(lease)


def test_of_many_contenders_exactly_one_wins(leases: LeaseStore) -> None:
    def attempt(number: int) -> Lease | None:
        try:
            return leases.acquire(NAME, f"worker-{number}", TTL_S)
        except LeaseHeld:
            return None

    with ThreadPoolExecutor(8) as threads:
        won = [lease for lease in threads.map(attempt, range(8)) if lease is not None]
    assert len(won) == 1
    record = leases.current(NAME)
    assert record is not None
    assert record.holder == won[0].holder
    leases.release(won[0])


def test_a_released_lease_cannot_be_renewed_even_when_nobody_took_it(leases: LeaseStore) -> None:
    lease = leases.acquire(NAME, "worker-1", TTL_S)
    leases.release(lease)
    with pytest.raises(LeaseLost, match=NAME):
        leases.renew(lease)


def test_releasing_a_lost_lease_leaves_the_successor_alone(leases: LeaseStore) -> None:
    old = leases.acquire(NAME, "worker-1", TTL_S)
    leases.release(old)
    new = leases.acquire(NAME, "worker-2", TTL_S)
    leases.release(old)
    leases.renew(new)
    with pytest.raises(LeaseHeld, match="worker-2"):
        leases.acquire(NAME, "worker-3", TTL_S)
    leases.release(new)


def test_hold_acquires_renews_and_releases(leases: LeaseStore) -> None:
    with hold(leases, NAME, "worker-1", ttl_s=TTL_S) as renewal:
        renewal.check()
        assert renewal.lease.token == 1
        with pytest.raises(LeaseHeld):
            leases.acquire(NAME, "worker-2", TTL_S)
    assert leases.current(NAME) is None


def test_a_stolen_blob_lease_makes_the_old_holder_fail(
    azurite_account: EmulatedAccount, blob_leases: BlobLeases
) -> None:
    with hold(blob_leases, NAME, "worker-1", ttl_s=TTL_S) as renewal:
        break_lease(azurite_account)
        successor = blob_leases.acquire(NAME, "worker-2", TTL_S)
        renewal.renew()
        assert renewal.lost.is_set()
        with pytest.raises(LeaseLost, match="token 1 of worker-1"):
            renewal.check()
    assert successor.token == 2
    blob_leases.renew(successor)


@pytest.mark.slow
def test_an_abandoned_blob_lease_expires_and_its_holder_finds_out(blob_leases: BlobLeases) -> None:
    abandoned = blob_leases.acquire(NAME, "worker-1", TTL_S)
    started = monotonic()
    successor = eventually(lambda: blob_leases.acquire(NAME, "worker-2", TTL_S))
    assert TTL_S - 2 < monotonic() - started < TTL_S + 5
    assert successor.token == abandoned.token + 1
    with pytest.raises(LeaseLost):
        blob_leases.renew(abandoned)


@pytest.mark.parametrize("ttl_s", [0, 14, 61])
def test_azure_leases_for_15_to_60_seconds(blob_leases: BlobLeases, ttl_s: int) -> None:
    with pytest.raises(LeaseTtlInvalid, match=f"{ttl_s} s"):
        blob_leases.acquire(NAME, "worker-1", ttl_s)


def test_a_blob_that_somebody_scribbled_on_gives_no_token_and_is_not_kept_leased(
    azurite_account: EmulatedAccount, blob_leases: BlobLeases
) -> None:
    with blob_client(azurite_account) as blob:
        blob.upload_blob(b'{"token": 0}')
        for _ in range(2):
            with pytest.raises(Corrupt, match=NAME):
                blob_leases.acquire(NAME, "worker-1", TTL_S)
        assert blob.get_blob_properties().lease.state == "available"


def test_the_kernel_frees_the_lease_of_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, datetime, signal\n"
        "from shared.jobs.file_lease import FileLeases\n"
        "clock = lambda: datetime.datetime.now(datetime.UTC)\n"
        f"FileLeases(pathlib.Path(sys.argv[1]), clock).acquire({NAME!r}, 'child', 60)\n"
        "print('held', flush=True)\n"
        "signal.pause()\n"
    )
    leases = FileLeases(tmp_path, now)
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(LeaseHeld, match="by child"):
            leases.acquire(NAME, "worker-2", TTL_S)
        child.kill()
    lease = leases.acquire(NAME, "worker-2", TTL_S)
    assert lease.token == 2
    leases.release(lease)


def test_a_replaced_lock_file_loses_the_lease(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path, now)
    lease = leases.acquire(NAME, "worker-1", TTL_S)
    (tmp_path / f"{NAME}.lock").unlink()
    with pytest.raises(LeaseLost, match="replaced"):
        leases.renew(lease)
    successor = FileLeases(tmp_path, now).acquire(NAME, "worker-2", TTL_S)
    with pytest.raises(LeaseLost, match="token 1"):
        leases.renew(lease)
    assert successor.token == 2
    leases.release(lease)


def test_a_lease_file_says_what_the_blob_says(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path, lambda: datetime(2026, 11, 22, 3, tzinfo=UTC))
    lease = leases.acquire(NAME, "worker-1", TTL_S)
    assert json.loads((tmp_path / NAME).read_text()) == {
        "token": 1,
        "holder": "worker-1",
        "acquired_at": "2026-11-22T03:00:00Z",
    }
    leases.release(lease)


@pytest.mark.parametrize("name", ["../outside", "/etc/x", "a//b", ".hidden", ""])
def test_a_lease_name_cannot_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(LeaseNameInvalid):
        FileLeases(tmp_path, now).acquire(name, "worker-1", TTL_S)


class ScriptedLeases:
    """Answers renewals from a script, then for ever as at its end."""

    def __init__(self, *script: PgkeepError | None) -> None:
        self.script = list(script)
        self.renewed = Event()

    def renew(self, lease: Lease) -> None:
        self.renewed.set()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if answer is not None:
            raise answer

    def acquire(self, name: str, holder: str, ttl_s: int) -> Lease:
        return Lease(name, 7, holder, now(), ttl_s, "handle")

    def release(self, lease: Lease) -> None:
        raise StorageUnavailable("state: no answer within the time limit")

    def current(self, name: str) -> LeaseRecord | None:
        return None


AWAY = StorageUnavailable("state: no answer within the time limit")


def test_storage_that_is_away_for_less_than_the_lease_loses_nothing() -> None:
    time = [0.0]
    store = ScriptedLeases(AWAY, AWAY, None)
    renewal = Renewal(store, store.acquire(NAME, "worker-1", TTL_S), lambda: time[0])
    for moment in (5.0, 10.0, 14.0):
        time[0] = moment
        renewal.renew()
        renewal.check()
    time[0] = 28.9
    renewal.check()
    assert not renewal.lost.is_set()


def test_a_lease_that_could_not_be_renewed_in_time_is_lost_and_says_why() -> None:
    time = [0.0]
    store = ScriptedLeases(AWAY)
    renewal = Renewal(store, store.acquire(NAME, "worker-1", TTL_S), lambda: time[0])
    time[0] = 14.9
    renewal.renew()
    renewal.check()
    time[0] = 15.0
    with pytest.raises(LeaseLost, match=r"token 7 of worker-1 is lost: state: no answer"):
        renewal.check()
    assert renewal.lost.is_set()


def test_the_thread_renews_and_reports_a_loss_by_itself() -> None:
    store = ScriptedLeases(None, LeaseLost("gone"))
    lease = store.acquire(NAME, "worker-1", 1)
    with keep_renewing(store, lease) as renewal:
        assert renewal.lost.wait(5)
        with pytest.raises(LeaseLost):
            renewal.check()


def test_a_release_that_storage_does_not_hear_is_no_failure_of_the_work() -> None:
    with hold(ScriptedLeases(None), NAME, "worker-1") as renewal:
        renewal.check()


def blob_client(account: EmulatedAccount) -> BlobClient:
    return BlobClient(account.blob_url, "state", NAME, credential=account.credential)


def break_lease(account: EmulatedAccount) -> None:
    with blob_client(account) as blob:
        BlobLeaseClient(blob).break_lease(0)


def eventually(acquire: Callable[[], Lease]) -> Lease:
    deadline = monotonic() + 30
    while monotonic() < deadline:
        try:
            return acquire()
        except LeaseHeld:
            Event().wait(0.25)
    pytest.fail("the lease did not expire within 30 s")
