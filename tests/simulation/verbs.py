"""What the verbs do to the repository: documents that the control plane has reason to believe.

`expire` is the real one. Backups, verifications and drills are made up: true signed documents, with
volumes of the right size and nothing in them.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Final

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.drill import DrillPhase, DrillVerdict
from shared.domain.lsn import Lsn
from shared.errors import NotFound, Unavailable
from shared.jobs.messages import BackupJob, DrillJob, ExpireJob, VerifyJob
from shared.repository import layout
from shared.repository.backups import BackupNotFound
from shared.repository.blob_store import BlobName
from shared.repository.documents import WalRange
from shared.repository.layout import BackupRef
from shared.repository.signatures import sign_document
from tests.harness.signed_repository import Committed, drill_report
from tests.simulation.engine import minutes
from tests.simulation.servers import Segment, Server
from tests.simulation.truth import TrueBackup
from tests.simulation.weather import Killed, Part, Weather, exposed
from tests.simulation.workers import Died, Run, Work
from tests.simulation.world import World
from worker.commands.expire import ExpireRequest, expire

_CHAIN_LIMIT: Final = 7


class ServerUnreachable(Unavailable):
    """The PostgreSQL server does not answer."""

    code = "server-unreachable"


def perform(run: Run) -> Work:
    """Whatever the job asks for."""
    match run.job:
        case BackupJob():
            return _back_up(run, run.job)
        case VerifyJob():
            return _verify(run, run.job)
        case DrillJob():
            return _drill(run, run.job)
        case ExpireJob():
            return _expire(run)
        case _:
            return _nothing(run)


def _nothing(run: Run) -> Work:
    """Maintenance and audit leave nothing that this world looks at."""
    yield from run.work(_span(run.world.random, 1))
    return None


def _back_up(run: Run, job: BackupJob) -> Work:
    world, server = run.world, run.world.servers[job.cluster]
    if known := world.truth.by_job.get(job.job_id):
        return known.ref.label.text
    run.hold(layout.lock(server.name, "backup").path)
    if not server.is_up(world.engine.now):
        world.weather.fire("a server was down")
        raise ServerUnreachable(f"{job.cluster} does not answer")
    began, host_began = world.engine.now, run.now
    server.advance(began)
    start = server.position + 0x28
    yield from run.work(_span(world.random, 3 if job.kind is BackupKind.FULL else 1.5))
    run.check()
    parent = _parent(world, server) if job.kind is BackupKind.INCREMENTAL else None
    kind = BackupKind.FULL if parent is None else BackupKind.INCREMENTAL
    label = BackupLabel.new(kind, host_began, _letter(world.random))
    previous = world.truth.backups[server.name][-1:]
    _maybe_leave_litter(run, BackupRef(server.name, label))
    made = world.repository.commit(
        server.name,
        at=host_began,
        previous=previous[0].made if previous else None,
        counter=len(world.truth.backups[server.name]) + 1,
        label=label.text,
        kind=kind,
        parent=None if parent is None else parent.made.link,
        depth=0 if parent is None else parent.depth + 1,
        start_lsn=Lsn(start),
        stop_lsn=Lsn(start + 0x1000),
        wal=(WalRange(timeline=1, start=Lsn(start), end=Lsn(start + 0x1000)),),
        finished_at=run.now,
        created_at=run.now,
    )
    _note(run, made, parent, Lsn(start), began)
    return label.text


def _verify(run: Run, job: VerifyJob) -> Work:
    world = run.world
    ref = BackupRef(world.servers[job.cluster].name, BackupLabel.parse(job.label))
    report = str(job.job_id)
    if _is_there(world, layout.verification_report(ref.cluster, report)):
        return report
    yield from run.work(_span(world.random, 1))
    if not _is_there(world, ref.document):
        raise BackupNotFound(f"cluster {ref.cluster} has no backup {ref.label}")
    backup = world.truth.by_ref[ref]
    for link in backup.chain() if job.whole_chain else (backup,):
        own = report if link is backup else f"{report}-{link.depth}"
        if _is_there(world, link.ref.document):
            world.repository.prove(link.made, own, passed=not link.damaged, created_at=run.now)
            link.checks.append(not link.damaged)
    return report


def _drill(run: Run, job: DrillJob) -> Work:
    """Passes when the backup's chain is sound and its log reaches the end of the archive."""
    world = run.world
    report = str(job.job_id)
    backups = world.truth.standing(world.servers[job.cluster].name)
    backup = next((one for one in reversed(backups) if one.ref.label.text == job.label), None)
    if backup is None:
        raise BackupNotFound(f"cluster {job.cluster} has no backup {job.label}")
    name = layout.drill_report(backup.ref.cluster, report)
    if _is_there(world, name):
        return report
    yield from run.work(_span(world.random, 3))
    proven = backup.sound and all(lost.start < backup.start for lost in _lost(world, job.cluster))
    document = drill_report(
        backup.made, report, DrillVerdict.PROVEN if proven else DrillVerdict.FAILED
    ).model_copy(
        update={
            "created_at": run.now,
            "phases_ms": {DrillPhase.FETCH_APPLY.value: 60_000, DrillPhase.REPLAY.value: 1000},
            "restored_bytes": 64 << 20,
            "rto_ms": 61_000,
        }
    )
    world.worker_store.create(name, sign_document(document, world.repository.signer))
    backup.drills.append(proven)
    if proven:
        world.truth.proven[backup.ref.cluster].append(run.now)
    return report


def _expire(run: Run) -> Work:
    """The real one, at one instant; or it dies in the midst of its calls to the storage."""
    world = run.world
    yield from run.work(minutes(1))
    services = replace(world.worker, clocks=replace(world.worker.clocks, now=lambda: run.now))
    if world.random.random() < world.faults.worker_dies:
        doomed = Weather(lambda: world.engine.now, fatal_call=world.random.randint(20, 80))
        store = exposed(world.worker_store, Part.STORAGE, doomed, app=True)
        services = replace(services, store=store)
    before = world.judge.before_expiry(run.job.cluster)
    try:
        settings = world.settings.cluster_named(run.job.cluster)
        found = expire(services, settings, ExpireRequest(run.job.job_id))
    except Killed:
        world.weather.fire("expire died in the midst")
        raise Died from None
    finally:
        world.judge.after_expiry(run.job.cluster, before, run.now)
    return found.id


def _parent(world: World, server: Server) -> TrueBackup | None:
    """The newest that was verified and not found damaged, as long as its chain is short."""
    good = [one for one in world.truth.standing(server.name) if one.verified]
    return good[-1] if good and good[-1].depth < _CHAIN_LIMIT else None


def _maybe_leave_litter(run: Run, ref: BackupRef) -> None:
    """A worker may die between the first part and the document."""
    if run.world.random.random() < run.world.faults.worker_dies / 3:
        run.world.weather.fire("a backup was left half written")
        run.world.worker_store.create(ref.blob("base.pgdata.0000"), bytes(20))
        raise Died


def _note(
    run: Run, made: Committed, parent: TrueBackup | None, start: Lsn, began: datetime
) -> None:
    world = run.world
    backup = TrueBackup(
        made=made,
        job_id=run.job.job_id,
        parent=parent,
        depth=0 if parent is None else parent.depth + 1,
        start=start,
        began=began,
        ended=world.engine.now,
        dated=run.now,
    )
    if world.random.random() < world.faults.backup_is_damaged:
        world.weather.fire("a backup was damaged")
        backup.damaged = True
    world.truth.committed(backup)
    world.judge.on_commit(backup)
    world.app.tell_blob(made.ref.document)


def _lost(world: World, cluster: str) -> list[Segment]:
    return world.servers[cluster].lost


def _is_there(world: World, name: BlobName) -> bool:
    try:
        world.worker_store.head(name)
    except NotFound:
        return False
    return True


def _letter(random: Random) -> Callable[[str], str]:
    return random.choice


def _span(random: Random, typical: float) -> timedelta:
    """Minutes; now and then one takes very long."""
    return minutes(typical * random.lognormvariate(0, 0.5))
