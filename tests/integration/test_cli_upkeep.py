"""The verbs that keep a repository in order, and a look at the settings, as people run them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.postgres_server import PostgresServer
from tests.harness.worker_services import CLUSTER, Site

pytestmark = pytest.mark.integration


def run(site: Site, *words: str, status: int = 0) -> Any:
    """The JSON of a verb that ends with `status`."""
    done = site.pgkeep(*words, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def said(site: Site, *words: str, status: int = 0) -> str:
    done = site.pgkeep(*words)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_the_settings_alone_say_what_holds_for_each_cluster(site: Site) -> None:
    gold = site.changed(policy={"retention": {"full_days": 90}})

    [cluster] = run(gold, "check", "--settings-only")["clusters"]
    kinds = {one["kind"] for one in cluster["runs"]}
    words = said(gold, "check", "--settings-only")

    assert (cluster["cluster"], cluster["retention"]["full_days"]) == (CLUSTER, 90)
    assert {"full", "incremental", "verify", "drill_quick", "expire", "audit"} <= kinds
    assert "maintenance" not in kinds
    nexts = [datetime.fromisoformat(one["next"]) for one in cluster["runs"]]
    assert nexts == sorted(nexts)
    assert nexts[0] > datetime.now(UTC) - timedelta(minutes=5)
    assert "the settings are valid; 1 clusters" in words
    assert "full_days 90" in words


def test_settings_that_do_not_read_are_told_by_file_line_and_key(site: Site) -> None:
    broken = site.changed(policy={"retention": {"full_days": 0}})
    fact = run(broken, "check", "--settings-only", status=2)["error"]["fact"]
    assert "policy.retention.full_days" in fact
    assert "pgkeep.toml, line" in fact


def test_retention_looks_ahead_to_a_day_and_only_in_a_dry_run(site: Site) -> None:
    first, second, third = (site.backup().label for _ in range(3))
    for label in (first, second, third):
        run(site, "verify", CLUSTER, "--label", label)
    later = (datetime.now(UTC) + timedelta(days=100)).date().isoformat()

    today = run(site, "expire", CLUSTER, "--dry-run")
    then = run(site, "expire", CLUSTER, "--dry-run", "--at", later)
    refused = run(site, "expire", CLUSTER, "--at", later, status=2)["error"]

    assert today["went"] == []
    assert [one["label"] for one in then["went"]] == [first]
    assert then["staying_count"] == 2
    assert refused["code"] == "expire-day-without-dry-run"
    assert run(site, "expire", CLUSTER, "--dry-run", "--at", "soon", status=2)["error"]["code"] == (
        "day-invalid"
    )
    assert [one["label"] for one in run(site, "list")["backups"]] == [first, second, third]


def test_an_audit_names_what_was_not_done_and_ends_with_status_5(site: Site) -> None:
    site.backup()
    period = ("--since", "2026-01-01", "--until", datetime.now(UTC).isoformat())

    report = run(site, "audit", CLUSTER, *period, status=5)
    words = said(site, "audit", CLUSTER, *period, status=5)

    assert report["passed"] is False
    duties = {duty["kind"]: duty for duty in report["duties"]}
    assert duties["drill_quick"]["missed_count"] > 0
    assert len(report["backups"]) == 1
    assert "NOT all that was promised was done" in words
    assert "RTO: promised 14400.0 s, worst never measured" in words


def test_maintenance_shows_what_it_would_do(site: Site, source_cluster: PostgresServer) -> None:
    error = run(site, "maintenance", CLUSTER, status=2)["error"]
    assert error["code"] == "settings-invalid"
    able = site.changed(cluster={"maintenance": {"dsn": source_cluster.dsn("postgres")}})

    planned = run(able, "maintenance", CLUSTER, "--dry-run")
    words = said(able, "maintenance", CLUSTER, "--dry-run", "--minutes", "5")

    assert planned["done"] == planned["failed"] == []
    assert {one["problem"] for one in planned["left"]} <= {"a dry run"}
    assert f"0 done, 0 failed, {len(planned['left'])} left" in words
