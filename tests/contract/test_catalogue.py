"""The contract of shared.catalogue.ports, on a real PostgreSQL."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from shared.catalogue import migrate as migrations
from shared.catalogue.fact_tables import FACT_TABLES
from shared.catalogue.job_ledger import CLAIM_LAPSES
from shared.catalogue.migrate import Migration, migrate, release_migrations
from shared.catalogue.ports import Catalogue, Fact
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.postgres_session import Session, transact
from shared.catalogue.rebuild import rebuild
from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.drill import DrillVerdict
from shared.domain.job import JobEventKind, JobState, JobVerb, fold_all
from shared.errors import (
    BackupConflict,
    CatalogueDenied,
    CatalogueSchemaBroken,
    CatalogueSchemaOutdated,
    CatalogueSchemaTooNew,
    CatalogueUnavailable,
    CatalogueValueRefused,
    ClusterConflict,
    MessageInvalid,
    ReportConflict,
    RequestConflict,
)
from shared.jobs.messages import BackupJob, JobEvent
from shared.repository import layout
from shared.repository.backups import BackupNotFound
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import ClusterDocument
from shared.repository.header_verification import HeaderVerification, verify_header
from shared.repository.reports import StoredReport, read_report
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.signed_repository import NOON, Committed, SignedRepository

JOB = UUID(int=1)
HOUR = timedelta(hours=1)
NEXT = len(release_migrations()) + 1
BOTH_CATALOGUES = True


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def dsn(server: CatalogueServer) -> str:
    return server.database()


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return catalogue_of(request)


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    store = DirectoryBlobStore(tmp_path / "repository")
    for container in layout.CONTAINERS:
        store.create_container(container)
    made = SignedRepository(store)
    made.register()
    return made


def verified(repository: SignedRepository, backup: Committed) -> HeaderVerification:
    return verify_header(repository.store, backup.ref, repository.pinned)


def all_facts(repository: SignedRepository) -> list[Fact]:
    """Two chained backups, one verified and proven, one whose verification failed."""
    first = repository.commit(at=NOON)
    second = repository.commit(at=NOON + HOUR, previous=first)
    reports = [
        repository.verify(first, "v1"),
        repository.verify(second, "v2", passed=False),
        repository.drill(first, "d1", DrillVerdict.PROVEN),
    ]
    verifications = [verified(repository, backup) for backup in (first, second)]
    return [
        verifications[0].cluster,
        *verifications,
        *(read_report(repository.store, name, repository.pinned) for name in reports),
    ]


class TestFacts:
    def test_ten_deliveries_of_one_backup_make_one_row(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        fact = verified(repository, repository.commit())

        assert [catalogue.record(fact, NOON) for _ in range(10)] == [True] + [False] * 9
        assert len(catalogue.content()["backup"]) == 1

    def test_another_document_under_a_known_label_is_a_conflict_and_changes_nothing(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        fact = verified(repository, repository.commit())
        catalogue.record(fact, NOON)
        before = catalogue.content()
        stored = fact.backup
        forged = type(stored)(stored.ref, stored.document, "f" * 64)

        with pytest.raises(BackupConflict, match=f"not {'f' * 64}"):
            catalogue.record(HeaderVerification(forged, fact.cluster, ()), NOON)
        assert catalogue.content() == before

    def test_another_report_under_a_known_id_is_a_conflict(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        name = repository.verify(repository.commit(), "v1")
        stored = read_report(repository.store, name, repository.pinned)
        catalogue.record(stored, NOON)

        with pytest.raises(ReportConflict):
            catalogue.record(StoredReport(stored.report, "f" * 64), NOON)

    def test_a_cluster_name_belongs_to_one_system_for_ever(self, catalogue: Catalogue) -> None:
        document = ClusterDocument(
            cluster="demo", cluster_uuid="a", system_identifier="1", created_at=NOON
        )
        catalogue.record(document, NOON)

        with pytest.raises(ClusterConflict):
            catalogue.record(document.model_copy(update={"system_identifier": "2"}), NOON)

    def test_committed_verified_and_proven_are_separate_facts_with_their_times(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        for fact in all_facts(repository):
            catalogue.record(fact, NOON)

        second, first = catalogue.backups(limit=10)

        assert first.facts.committed_at == NOON + timedelta(minutes=2)
        assert (first.facts.verified_at, first.facts.proven_at) == (NOON + HOUR, NOON + 2 * HOUR)
        assert first.facts.verified
        assert first.facts.proven
        assert (second.facts.verified_at, second.facts.proven_at) == (None, None)
        assert second.facts.verification_failed_at == NOON + HOUR
        assert not second.facts.verified

    def test_a_report_about_another_document_does_not_make_a_backup_verified(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        backup = repository.commit()
        name = repository.verify(Committed(backup.ref, "e" * 64), "v1")
        catalogue.record(verified(repository, backup), NOON)
        catalogue.record(read_report(repository.store, name, repository.pinned), NOON)

        assert catalogue.backup(backup.ref).facts.verified_at is None

    def test_an_inconclusive_drill_neither_proves_nor_refutes(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        backup = repository.commit()
        name = repository.drill(backup, "d1", DrillVerdict.INCONCLUSIVE)
        catalogue.record(verified(repository, backup), NOON)
        catalogue.record(read_report(repository.store, name, repository.pinned), NOON)

        facts = catalogue.backup(backup.ref).facts
        assert (facts.proven_at, facts.drill_failed_at) == (None, None)
        assert catalogue.drill_report(backup.ref.cluster, "d1") is not None
        assert catalogue.drill_report(ClusterName("other"), "d1") is None

    def test_pages_go_from_the_newest_to_the_oldest(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        made = [repository.commit(at=NOON + n * HOUR) for n in range(3)]
        for backup in made:
            catalogue.record(verified(repository, backup), NOON)

        page = catalogue.backups(limit=2)
        rest = catalogue.backups(limit=2, before=page[-1].ref.label.text)

        assert [backup.ref for backup in (*page, *rest)] == [item.ref for item in reversed(made)]
        assert catalogue.backups(ClusterName("other"), limit=9) == []

    def test_an_absent_backup_is_not_found(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        with pytest.raises(BackupNotFound):
            catalogue.backup(repository.commit().ref)

    def test_what_is_recorded_is_known_by_its_blob_name(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        for fact in all_facts(repository):
            catalogue.record(fact, NOON)

        documents = {
            blob.name
            for container in ("full", "evidence")
            for blob in repository.store.list(container)
            if blob.name.path.endswith(("/backup.json", "/report.json"))
        }
        assert catalogue.known_blobs() == documents

    def test_never_verified_lists_old_backups_that_no_report_judges(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        for fact in all_facts(repository):
            catalogue.record(fact, NOON)
        third = repository.commit(at=NOON + 2 * HOUR)
        catalogue.record(verified(repository, third), NOON)

        late = NOON + 5 * HOUR
        assert [item.ref for item in catalogue.never_verified(late)] == [third.ref]
        assert catalogue.never_verified(NOON) == []


class TestRebuild:
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_any_order_with_any_duplicates_equals_a_rebuild_from_the_blobs(
        self, server: CatalogueServer, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        store = DirectoryBlobStore(tmp_path_factory.mktemp("rebuild"))
        for container in layout.CONTAINERS:
            store.create_container(container)
        repository = SignedRepository(store)
        repository.register()
        facts = all_facts(repository)
        repeated = facts + data.draw(st.lists(st.sampled_from(facts), max_size=6))
        live, rebuilt = PostgresCatalogue(server.database()), PostgresCatalogue(server.database())

        for number, fact in enumerate(data.draw(st.permutations(repeated))):
            live.record(fact, NOON + number * HOUR)
        outcome = rebuild(rebuilt, store, repository.pinned, NOON)

        assert outcome.refused == ()
        assert outcome.facts == len(facts)
        assert rebuilt.content() == live.content()
        assert rebuilt.backups(limit=9) == live.backups(limit=9)

    def test_rebuild_repairs_tampered_forged_and_missing_rows(
        self, dsn: str, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        for fact in all_facts(repository):
            catalogue.record(fact, NOON)
        truth = catalogue.content()
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE backup SET digest = 'x', suspect = true")
            connection.execute("UPDATE verification SET id = 'forged' WHERE id = 'v2'")
            connection.execute("DELETE FROM drill")

        rebuild(catalogue, repository.store, repository.pinned, NOON + HOUR)

        assert catalogue.content() == truth

    def test_facts_that_arrive_while_it_reads_stay(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        fact = verified(repository, repository.commit())
        catalogue.record(fact, NOON + HOUR)

        catalogue.replace([], NOON + HOUR)
        assert len(catalogue.content()["backup"]) == 1
        catalogue.replace([], NOON + 2 * HOUR)
        assert catalogue.content() == {table.name: [] for table in FACT_TABLES}

    def test_documents_that_nobody_believable_signed_are_left_out_and_reported(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        stranger = type(repository.signer)(key_id="stranger")
        good = repository.commit()
        forged = repository.commit(at=NOON + HOUR, signer=stranger)

        outcome = rebuild(catalogue, repository.store, repository.pinned, NOON)

        assert [backup.ref for backup in catalogue.backups(limit=9)] == [good.ref]
        assert [(item.code, item.object) for item in outcome.refused] == [
            ("signer-not-pinned", str(forged.ref.document))
        ]

    def test_a_rebuild_leaves_jobs_ticks_and_quarantine_alone(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        catalogue.request(backup_job(), NOON)
        catalogue.set_aside("full/x", "corrupt", "a fact", NOON)

        rebuild(catalogue, repository.store, repository.pinned, NOON + HOUR)

        assert catalogue.job(JOB).request == backup_job()
        assert catalogue.set_aside_codes() == {"full/x": "corrupt"}

    def test_losing_a_volume_shows_as_the_same_finding_live_and_rebuilt(
        self, server: CatalogueServer, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        backup = repository.commit(omit="base.pgdata.0000")
        fact = verified(repository, backup)
        catalogue.record(fact.cluster, NOON)
        catalogue.record(fact, NOON)
        rebuilt = PostgresCatalogue(server.database())

        rebuild(rebuilt, repository.store, repository.pinned, NOON)

        assert [item.code for item in catalogue.backup(backup.ref).findings] == ["blob-not-found"]
        assert rebuilt.content() == catalogue.content()


def backup_job(job_id: UUID = JOB, cluster: str = "demo") -> BackupJob:
    return BackupJob(job_id=job_id, cluster=cluster, kind=BackupKind.FULL)


def event(kind: JobEventKind, second: int, attempt: int = 1, **more: object) -> JobEvent:
    at = NOON + timedelta(seconds=second)
    base = JobEvent(
        job_id=JOB, cluster="demo", verb=JobVerb.BACKUP, kind=kind, attempt=attempt, at=at
    )
    return base.model_copy(update=more)


EVENTS = (
    event(JobEventKind.STARTED, 0),
    event(JobEventKind.PROGRESS, 5, done_bytes=10, total_bytes=100),
    event(JobEventKind.FINISHED, 9, succeeded=False, error_code="postgres-gone"),
    event(JobEventKind.STARTED, 20, attempt=2),
    event(JobEventKind.FINISHED, 30, attempt=2, succeeded=True, result="a-label"),
)


class TestJobs:
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(events=st.lists(st.sampled_from(EVENTS), min_size=1, max_size=8))
    def test_any_order_with_any_duplicates_of_events_gives_the_fold_of_the_set(
        self, server: CatalogueServer, events: list[JobEvent]
    ) -> None:
        catalogue = PostgresCatalogue(server.database())

        for number, item in enumerate(events):
            if number == len(events) // 2:
                catalogue.request(backup_job(), NOON)
            catalogue.record_event(item, NOON)

        distinct = {item.model_dump_json(): item.report() for item in events}.values()
        job = catalogue.job(JOB)
        assert job.progress == fold_all(distinct)
        assert job.request == backup_job()
        assert sorted(catalogue.job_reports(JOB), key=repr) == sorted(distinct, key=repr)

    def test_events_of_a_job_that_nobody_asked_for_are_kept(self, catalogue: Catalogue) -> None:
        job = catalogue.record_event(EVENTS[0], NOON)

        assert (job.request, job.progress.state) == (None, JobState.RUNNING)
        assert [running.job_id for running in catalogue.running_jobs()] == [JOB]
        assert catalogue.claim_unsent(NOON) == []

    def test_an_event_of_another_cluster_or_verb_is_refused(self, catalogue: Catalogue) -> None:
        catalogue.request(backup_job(), NOON)

        with pytest.raises(MessageInvalid, match="is a backup of demo"):
            catalogue.record_event(EVENTS[0].model_copy(update={"cluster": "other"}), NOON)
        assert catalogue.job_reports(JOB) == []

    def test_null_bytes_in_an_event_are_refused_by_name(self, catalogue: Catalogue) -> None:
        with pytest.raises(CatalogueValueRefused):
            catalogue.record_event(EVENTS[2].model_copy(update={"error_fact": "a\0b"}), NOON)

    def test_the_same_request_is_one_job_and_another_one_a_conflict(
        self, catalogue: Catalogue
    ) -> None:
        assert [catalogue.request(backup_job(), NOON) for _ in range(3)] == [True, False, False]

        with pytest.raises(RequestConflict):
            catalogue.request(backup_job(cluster="other"), NOON)

    def test_a_claim_is_exclusive_until_it_lapses_and_ends_with_sending(
        self, catalogue: Catalogue
    ) -> None:
        catalogue.request(backup_job(), NOON)

        assert catalogue.claim_unsent(NOON) == [backup_job()]
        assert catalogue.claim_unsent(NOON + CLAIM_LAPSES) == []
        later = NOON + CLAIM_LAPSES + timedelta(seconds=1)
        assert catalogue.claim_unsent(later) == [backup_job()]
        catalogue.mark_sent(JOB, later)
        assert catalogue.claim_unsent(later + HOUR) == []

    def test_a_job_is_sent_again_only_when_it_was_quiet(self, catalogue: Catalogue) -> None:
        catalogue.request(backup_job(), NOON)
        assert not catalogue.send_again(JOB, quiet_since=NOON + HOUR)  # not sent yet
        catalogue.mark_sent(JOB, NOON)
        catalogue.record_event(EVENTS[0], NOON)

        assert not catalogue.send_again(JOB, quiet_since=NOON)
        assert catalogue.send_again(JOB, quiet_since=NOON + HOUR)
        assert catalogue.claim_unsent(NOON + HOUR) == [backup_job()]

    @pytest.mark.parametrize("isolation", ["serializable", "repeatable read", "read committed"])
    def test_concurrent_events_fold_completely_whatever_isolation_is_the_default(
        self, dsn: str, catalogue: Catalogue, isolation: str
    ) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}").format(
                    sql.Identifier(connection.info.dbname), sql.Literal(isolation)
                )
            )
        events = [event(JobEventKind.PROGRESS, n, done_bytes=n) for n in range(24)]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: catalogue.record_event(item, NOON), events))

        assert catalogue.job(JOB).progress == fold_all(item.report() for item in events)
        assert len(catalogue.job_reports(JOB)) == len(events)


class TestQuarantine:
    def test_it_counts_what_comes_again_and_forgets_what_was_accepted(
        self, dsn: str, catalogue: Catalogue
    ) -> None:
        for hour in range(3):
            catalogue.set_aside("full/a'; DROP TABLE job; --", "corrupt", "x", NOON + hour * HOUR)

        query = "SELECT times, first_seen_at, last_seen_at FROM quarantined"
        with psycopg.connect(dsn) as connection:
            assert connection.execute(query).fetchall() == [(3, NOON, NOON + 2 * HOUR)]
        catalogue.release("full/a'; DROP TABLE job; --")
        assert catalogue.set_aside_codes() == {}


class TestServerTrouble:
    def test_a_server_that_is_down_is_unavailable_and_its_password_unsaid(self) -> None:
        dsn = "host=127.0.0.1 port=1 user=x password=sesame dbname=x"

        with pytest.raises(CatalogueUnavailable) as caught:
            PostgresCatalogue(dsn).check()
        assert "sesame" not in f"{caught.value} {caught.value.__cause__}"

    def test_a_wrong_password_is_a_denial(self, dsn: str) -> None:
        wrong = psycopg.conninfo.make_conninfo(dsn, password="no")  # noqa: S106 - is to fail

        with pytest.raises(CatalogueDenied):
            PostgresCatalogue(wrong).check()

    @pytest.mark.parametrize(
        ("isolation", "orders"),
        [("READ COMMITTED", [(1, 2), (2, 1)]), ("SERIALIZABLE", [(1, 2), (1, 2)])],
        ids=["deadlock", "serialization failure"],
    )
    def test_a_transaction_that_lost_to_another_runs_again(
        self, dsn: str, isolation: LiteralString, orders: list[tuple[int, int]]
    ) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE account (id int PRIMARY KEY, runs int DEFAULT 0)")
            connection.execute("INSERT INTO account VALUES (1), (2)")
        both_have_begun = threading.Barrier(2, timeout=20)
        attempts = []

        def work(order: tuple[int, int]) -> None:
            def change(session: Session) -> None:
                attempts.append(order)
                session.execute("SET TRANSACTION ISOLATION LEVEL " + isolation)
                session.execute("SELECT sum(runs) FROM account")  # takes the snapshot
                first = len(attempts) <= 2
                if first and isolation == "SERIALIZABLE":
                    both_have_begun.wait()
                session.execute("UPDATE account SET runs = runs + 1 WHERE id = %s", [order[0]])
                if first and isolation == "READ COMMITTED":
                    both_have_begun.wait()
                session.execute("UPDATE account SET runs = runs + 1 WHERE id = %s", [order[1]])

            transact(dsn, change)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, orders))

        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT runs FROM account").fetchall() == [(2,), (2,)]
        assert len(attempts) >= 3  # the victim ran again, and perhaps met the other once more


class TestMigrations:
    def test_an_empty_database_is_refused_until_it_is_migrated(
        self, server: CatalogueServer
    ) -> None:
        dsn = server.empty_database()
        with pytest.raises(CatalogueSchemaOutdated, match=r"0001_initial\.sql"):
            PostgresCatalogue(dsn).check()

        assert migrate(dsn, NOON) == [item.name for item in release_migrations()]
        assert migrate(dsn, NOON) == []
        PostgresCatalogue(dsn).check()

    def test_two_migrators_at_once_apply_each_migration_once(self, server: CatalogueServer) -> None:
        dsn = server.empty_database()

        with ThreadPoolExecutor(4) as pool:
            applied = list(pool.map(lambda _: migrate(dsn, NOON), range(4)))

        # Each is a transaction of its own, so the migrators may take turns.
        names = sorted(name for names in applied for name in names)
        assert names == [item.name for item in release_migrations()]

    def test_a_failing_migration_leaves_nothing_behind(self, server: CatalogueServer) -> None:
        dsn = server.empty_database()
        broken = Migration(NEXT, "9999_broken.sql", "CREATE TABLE half (a int); SELECT 1 / 0;")

        with pytest.raises(CatalogueValueRefused, match="division by zero"):
            migrate(dsn, NOON, [*release_migrations(), broken])

        PostgresCatalogue(dsn).check()
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)

    def test_a_newer_schema_is_refused(self, dsn: str) -> None:
        newer = Migration(NEXT, "9999_newer.sql", "CREATE TABLE newer (a int)")
        migrate(dsn, NOON, [*release_migrations(), newer])

        for refuse in (PostgresCatalogue(dsn).check, lambda: migrate(dsn, NOON)):
            with pytest.raises(CatalogueSchemaTooNew, match=r"9999_newer\.sql"):
                refuse()

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE migration SET sha256 = 'another'",
            "DELETE FROM migration",
            "DROP TABLE migration",
        ],
    )
    def test_a_history_that_is_not_ours_is_refused(self, dsn: str, damage: str) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute(damage.encode())

        for refuse in (PostgresCatalogue(dsn).check, lambda: migrate(dsn, NOON)):
            with pytest.raises(CatalogueSchemaBroken):
                refuse()

    def test_migrations_are_numbered_without_gaps(self) -> None:
        numbers = [item.number for item in migrations.release_migrations()]
        assert numbers == list(range(1, len(numbers) + 1))


def test_the_reference_names_every_table_and_column(dsn: str) -> None:
    reference = (Path(__file__).parents[2] / "docs/reference/catalogue-schema.md").read_text()
    sections = {part.partition("\n")[0]: part for part in reference.split("### ")}
    query = """
        SELECT table_name, column_name FROM information_schema.columns
        WHERE table_schema = 'public' AND (table_name <> 'backup_facts' OR column_name NOT IN (
            SELECT column_name FROM information_schema.columns WHERE table_name = 'backup'))
    """
    with psycopg.connect(dsn) as connection:
        columns = connection.execute(query).fetchall()

    assert len(columns) > 60
    missing = [(table, name) for table, name in columns if f"`{name}`" not in sections[table]]
    assert missing == []


def test_times_keep_their_microseconds(catalogue: Catalogue, repository: SignedRepository) -> None:
    catalogue.record(verified(repository, repository.commit()), NOON)
    [row] = catalogue.content()["backup"]
    assert isinstance(row["started_at"], datetime)
    assert row["started_at"].microsecond == NOON.microsecond
