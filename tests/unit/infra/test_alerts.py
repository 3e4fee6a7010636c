"""Alert rules against the code that they read, the runbooks they lead to, and what must be told.

Every query is run over rows as our telemetry writes them: it fires on the bad case, and is silent
on the good one.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from scripts.reference_pages.log_events import Places, log_events
from shared.domain.drill import DrillVerdict
from shared.domain.finding_rules import RULES, FindingCode, Severity
from shared.domain.findings import REPOSITORY
from shared.repository.documents import VerificationReport
from shared.telemetry import metric_names as names
from shared.telemetry.metric_names import METRICS
from tests.harness.bicep_deployment import Deployment, deploy
from tests.harness.deployed import INFRA
from tests.harness.log_analytics import (
    NOTHING,
    AlertRule,
    Rows,
    Value,
    event_row,
    event_rows,
    metric_rows,
    together,
)
from worker.commands.services import Services
from worker.commands.verification_report import keep_report

DOCS: Final = INFRA.parent / "docs"
NOW: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
FIRST, SECOND = "20261121T030000Z-F-k3x7", "20261122T030000Z-F-k3x7"
RUNBOOKS: Final = "https://example.org/runbooks"

# What the strategy wants to be told of, and who tells it.
WANTED: Final = {
    "job failed": "job-failed",
    "WAL archiving behind": "wal-behind",
    "storage above 80 %": "storage-nearly-full",
    "restore test failed": "drill-failed",
    "no verified backup for 26 h": "verification-overdue",
    "RTO or RPO objective broken": "objective-broken",
    "geo-replication behind": "geo-behind",
    "finding of severity critical": "finding-critical",
    "telemetry silent": "telemetry-silent",
}
_ALERT_LINE: Final = re.compile(
    r"\A# [^\n]+\n\nAlert: `([\w-]+)`, severity (\d)\.\n\n\*\*Impact:\*\* "
)
_METRIC: Final = re.compile(r'"(pgkeep\.[\w.]+)"')
_MESSAGE: Final = re.compile(r'Message (?:==|in \() ?"([\w-]+)"')
_PROPERTY: Final = re.compile(r"\bProperties\.(\w+)")


@cache
def deployment() -> Deployment:
    given = {
        "location": "westeurope",
        "tags": {},
        "prefix": "test",
        "workspaceId": "workspace",
        "actionGroupId": "group",
        "runbooks": RUNBOOKS,
    }
    return deploy(INFRA / "modules/alerts.bicep", given)


@cache
def alerts() -> dict[str, AlertRule]:
    rules = map(AlertRule, deployment().of("Microsoft.Insights/scheduledQueryRules"))
    return {rule.name: rule for rule in rules}


def fires(rows: Rows, now: datetime = NOW) -> dict[str, list[tuple[str, ...]]]:
    """The alerts that are open, but those of silence: few tests let the timers speak."""
    found = {name: rule.fires(rows, now) for name, rule in alerts().items()}
    return {name: dims for name, dims in found.items() if dims and name != "telemetry-silent"}


def healthy_except(at: datetime, *opened: tuple[str, FindingCode]) -> Rows:
    """What a look at everything sends: each code that no finding has is 0."""
    counts = Counter(opened)
    found = {code for _, code in opened}
    counts.update({(REPOSITORY, code): 0 for code in FindingCode if code not in found})
    return metric_rows(at, *(_findings(*key, count) for key, count in counts.items()))


def _findings(cluster: str, code: FindingCode, count: int) -> Value:
    severity = RULES[code].severity.value
    return Value(
        names.FINDINGS, count, {"cluster": cluster, "code": code.value, "severity": severity}
    )


class TestWhatIsToldAndWhereItLeads:
    def test_each_alert_has_its_runbook_and_each_runbook_with_an_alert_has_that(self) -> None:
        told = {}
        for page in (DOCS / "runbooks").glob("*.md"):
            if match := _ALERT_LINE.match(page.read_text("utf-8")):
                assert match[1] == page.stem
                told[match[1]] = int(match[2])
            else:
                assert "Alert: " not in page.read_text("utf-8"), page.name
        assert told == {name: rule.severity for name, rule in alerts().items()}

    def test_all_that_the_strategy_wants_to_be_told_of_is_an_alert(self) -> None:
        assert set(WANTED.values()) <= alerts().keys()

    def test_an_alert_carries_its_name_and_its_runbook(self) -> None:
        for name, rule in alerts().items():
            properties = rule.rule.get("properties")
            runbook = f"{RUNBOOKS}/{name}.md"
            assert rule.rule.name == f"test-{name}"
            assert properties["description"].endswith(f" What to do: {runbook}")
            assert properties["actions"]["customProperties"]["runbook"] == runbook
            assert properties["actions"]["actionGroups"] == ["group"]
            assert properties["scopes"] == ["workspace"]

    def test_the_reference_has_a_row_for_each_alert(self) -> None:
        page = (DOCS / "reference/alerts.md").read_text("utf-8")
        rows = re.findall(
            r"^\| `([\w-]+)` \| (\d) \| (.+?) \| .+ \| \[.+\]\(\.\./runbooks/([\w-]+)\.md\) \|$",
            page,
            re.MULTILINE,
        )
        told = {name: (int(severity), reads, book) for name, severity, reads, book in rows}
        assert len(told) == len(rows)
        assert told == {
            name: (rule.severity, _read_by(rule), name) for name, rule in alerts().items()
        }

    def test_rules_are_stateful_and_look_at_every_row_at_least_once(self) -> None:
        for rule in alerts().values():
            properties = rule.rule.get("properties")
            assert properties["enabled"]
            assert properties["autoMitigate"]
            assert "muteActionsDuration" not in properties, "Azure refuses both"
            assert 2 * rule.evaluated_each <= rule.window, "what arrives late is seen, too"


def _read_by(rule: AlertRule) -> str:
    """As docs/reference/alerts.md has it."""
    named = _METRIC.findall(rule.query) + _MESSAGE.findall(rule.query)
    codes = re.search(r"code in \((.+?)\)", rule.query)
    of = [] if codes is None else re.findall(r'"([\w-]+)"', codes[1])
    others = re.search(r'severity == "(\w+)"', rule.query)
    said = [f"`{name}`" for name in named]
    if of:
        said.append("of " + ", ".join(f"`{code}`" for code in of))
    if others:
        said.append(f"of all other *{others[1]}* ones")
    return " ".join(said)


class TestWhatTheQueriesName:
    def test_alerts_name_metrics_events_and_attributes_that_there_are(self) -> None:
        wrong = {name: _unknown(rule.query) for name, rule in alerts().items()}
        assert not any(wrong.values()), wrong

    def test_the_workbook_does_so_too(self) -> None:
        queries = list(_workbook_queries())
        assert len(queries) >= 8
        assert [(query, _unknown(query)) for query in queries if _unknown(query)] == []

    def test_a_name_that_there_is_not_is_noticed(self) -> None:
        assert _unknown('AppMetrics | where Name == "pgkeep.nothing"')
        assert _unknown('AppMetrics | where Name == "pgkeep.rpo" | extend a = Properties.fact')
        assert _unknown('AppTraces | where Message == "nothing"')
        assert _unknown('AppTraces | where Message == "drill-reported" | extend a = Properties.no')
        assert _unknown("AppTraces | take 1") == ["nothing"]

    def test_codes_and_severities_are_those_of_the_rules(self) -> None:
        for rule in alerts().values():
            for listed in re.findall(r"code !?in \((.+?)\)", rule.query):
                assert set(re.findall(r'"([\w-]+)"', listed)) <= set(FindingCode)
        asked = re.findall(r'severity == "(\w+)"', " ".join(r.query for r in alerts().values()))
        assert sorted(asked) == sorted(Severity)


def _unknown(query: str) -> list[str]:
    """What the query names and the code does not write."""
    written = _events()
    metrics, messages = _METRIC.findall(query), _MESSAGE.findall(query)
    known: set[str] = set()
    for metric in metrics:
        known |= set(METRICS[metric].attributes) if metric in METRICS else set()
    for message in messages:
        known |= {field for place in written.get(message, {}).values() for field in place}
    wrong = [metric for metric in metrics if metric not in METRICS]
    wrong += [message for message in messages if message not in written]
    wrong += [name for name in _PROPERTY.findall(query) if name not in known]
    return wrong or ([] if metrics or messages else ["nothing"])


@cache
def _events() -> Mapping[str, Places]:
    return log_events()


class TestFindings:
    @pytest.mark.parametrize("code", FindingCode, ids=lambda code: code.value)
    def test_each_fires_one_alert_as_bad_as_itself_and_ends_with_it(
        self, code: FindingCode
    ) -> None:
        opened = healthy_except(NOW - 5 * MINUTE, ("orders", code))
        [(name, dimensions)] = fires(opened).items()
        assert dimensions == [("orders", code.value)]
        allowed = {Severity.CRITICAL: 0, Severity.ERROR: 1, Severity.WARNING: 2}
        assert alerts()[name].severity <= allowed[RULES[code].severity]
        later = NOW + alerts()[name].window
        assert fires(together(opened, healthy_except(later - MINUTE)), later) == {}

    def test_a_runbook_is_the_finding_s_own_or_names_it(self) -> None:
        for code, rule in RULES.items():
            [name] = fires(healthy_except(NOW, ("orders", code)))
            text = (DOCS / f"runbooks/{name}.md").read_text("utf-8")
            assert rule.page == f"runbooks/{name}.md" or f"`{code}`" in text, (name, code)

    def test_nothing_fires_when_nothing_is_wrong_or_nothing_is_known(self) -> None:
        assert fires(healthy_except(NOW)) == {}
        assert fires(NOTHING) == {}

    def test_each_cluster_has_an_alert_of_its_own(self) -> None:
        rows = healthy_except(NOW, *((name, FindingCode.JOB_FAILED) for name in ("b", "a", "a")))
        assert fires(rows) == {"job-failed": [("a", "job-failed"), ("b", "job-failed")]}

    def test_the_newest_look_counts(self) -> None:
        full = (REPOSITORY, FindingCode.STORAGE_NEARLY_FULL)
        rows = together(healthy_except(NOW - 6 * MINUTE, full), healthy_except(NOW - MINUTE))
        assert fires(rows) == {}
        rows = together(healthy_except(NOW - 6 * MINUTE), healthy_except(NOW - MINUTE, full))
        assert fires(rows) == {"storage-nearly-full": [(REPOSITORY, "storage-nearly-full")]}

    def test_a_code_that_is_newer_than_the_rules_is_told_all_the_same(self) -> None:
        attributes = {"cluster": "orders", "code": "of-tomorrow", "severity": "critical"}
        rows = metric_rows(NOW, Value(names.FINDINGS, 1, attributes))
        assert fires(rows) == {"finding-critical": [("orders", "of-tomorrow")]}


class TestReports:
    """Of drills and verifications: what the last one said holds."""

    @staticmethod
    def drill(
        at: datetime, verdict: DrillVerdict, cluster: str = "orders", label: str = "L"
    ) -> Rows:
        fields = {"cluster": cluster, "drill_id": "1", "label": label, "verdict": verdict}
        return event_row(at, "drill-reported", **fields)

    @staticmethod
    def verification(at: datetime, label: str, *, passed: bool) -> Rows:
        """Written by the worker's own code; without a signer it keeps nothing else."""
        report = VerificationReport(
            id="1",
            cluster="orders",
            label=label,
            document_digest="0" * 64,
            deep=True,
            passed=passed,
            created_at=at,
            total_ms=1,
            segments=1,
            files=1,
            stored_bytes=1,
            plain_bytes=1,
        )
        unsigned = cast("Services", SimpleNamespace(signer=None))
        return event_rows(at, lambda: keep_report(unsigned, report))

    def test_a_failed_drill_is_told_until_one_proves_its_backup(self) -> None:
        failed = self.drill(NOW - 30 * HOUR, DrillVerdict.FAILED)
        assert fires(failed) == {"drill-failed": [("orders", "L")]}
        unclear = self.drill(NOW - 20 * HOUR, DrillVerdict.INCONCLUSIVE)
        elsewhere = self.drill(NOW - 10 * HOUR, DrillVerdict.PROVEN, "billing")
        # An extended drill fails, and an hour later a quick one proves the newest backup.
        newest = self.drill(NOW - HOUR, DrillVerdict.PROVEN, label="N")
        told = together(failed, unclear, elsewhere, newest)
        assert fires(told) == {"drill-failed": [("orders", "L")]}
        assert fires(together(failed, self.drill(NOW - HOUR, DrillVerdict.PROVEN))) == {}
        assert fires(self.drill(NOW, DrillVerdict.INCONCLUSIVE)) == {}

    def test_a_damaged_backup_is_told_until_it_is_read_back_whole(self) -> None:
        damaged = self.verification(NOW - 2 * HOUR, FIRST, passed=False)
        whole = self.verification(NOW - HOUR, SECOND, passed=True)
        assert fires(together(damaged, whole)) == {"repository-damaged": [("orders", FIRST)]}
        mended = self.verification(NOW, FIRST, passed=True)
        assert fires(together(damaged, whole, mended)) == {}


class TestLooks:
    """Each timer is missed by itself; no telemetry at all is an alert, too."""

    @staticmethod
    def looks(timer: str, every: timedelta, until: datetime, outcome: str = "ok") -> Rows:
        count = int(3 * HOUR / every)
        attributes = {"timer": timer, "outcome": outcome}
        return together(
            *(
                metric_rows(until - index * every, Value(names.LOOKS, 1, attributes))
                for index in range(count)
            )
        )

    def usual(self) -> dict[str, Rows]:
        return {
            "dispatch": self.looks("dispatch", 5 * MINUTE, NOW),
            "freshness": self.looks("freshness", 5 * MINUTE, NOW - 4 * MINUTE),
            "reconcile": self.looks("reconcile", HOUR, NOW - 50 * MINUTE),
        }

    def silent(self, rows: Rows, now: datetime = NOW) -> list[tuple[str, ...]]:
        return alerts()["telemetry-silent"].fires(rows, now)

    def test_timers_that_run_are_no_alert(self) -> None:
        assert self.silent(together(*self.usual().values())) == []

    def test_no_telemetry_at_all_is_one(self) -> None:
        assert self.silent(NOTHING) == [("dispatch",)]
        assert self.silent(healthy_except(NOW)) == [("dispatch",)], "other metrics are no looks"
        assert self.silent(together(*self.usual().values()), NOW + 25 * MINUTE) == [("dispatch",)]

    @pytest.mark.parametrize("timer", ["dispatch", "freshness", "reconcile"])
    def test_a_timer_that_stopped_is_named(self, timer: str) -> None:
        others = [rows for name, rows in self.usual().items() if name != timer]
        assert self.silent(together(*others)) == [(timer,)]
        assert fires(together(*others)) == {}, "one who is not heard does not fail"

    @pytest.mark.parametrize("timer", ["dispatch", "freshness", "reconcile"])
    def test_a_timer_that_fails_each_time_is_named_and_is_no_silence(self, timer: str) -> None:
        others = [rows for name, rows in self.usual().items() if name != timer]
        failing = together(*others, self.looks(timer, 5 * MINUTE, NOW, "error"))
        assert fires(failing) == {"looks-failing": [(timer,)]}
        assert self.silent(failing) == []
        good = Value(names.LOOKS, 1, {"timer": timer, "outcome": "ok"})
        assert fires(together(failing, metric_rows(NOW - 20 * MINUTE, good))) == {}

    def test_a_new_deployment_is_not_blamed_for_the_hours_before_it(self) -> None:
        new = [
            metric_rows(NOW - minute * MINUTE, Value(names.LOOKS, 1, {"timer": t, "outcome": "ok"}))
            for t in ("dispatch", "freshness")
            for minute in (1, 10)
        ]
        assert self.silent(together(*new)) == []


class TestTheWorkbook:
    def test_it_is_deployed_for_the_workspace_and_its_tiles_have_titles(self) -> None:
        given = {
            "location": "westeurope",
            "tags": {},
            "workspaceId": "the-workspace",
            "displayName": "pgkeep",
        }
        made = deploy(INFRA / "modules/workbook.bicep", given)
        template = made.one("Microsoft.Resources/deployments").get("properties.template")
        [book] = template["resources"]
        assert book["type"] == "Microsoft.Insights/workbooks"
        assert book["properties"]["sourceId"] == "the-workspace"
        assert "operator.json" in book["properties"]["serializedData"]
        titles = [item["content"]["title"] for item in _tiles()]
        assert len(titles) == len(set(titles)) == len(list(_workbook_queries()))


def _tiles() -> Iterator[dict[str, Any]]:
    book = json.loads(Path(INFRA / "workbooks/operator.json").read_text("utf-8"))
    assert book["version"] == "Notebook/1.0"
    yield from (item for item in book["items"] if item["type"] == 3)


def _workbook_queries() -> Iterator[str]:
    yield from (item["content"]["query"] for item in _tiles())
