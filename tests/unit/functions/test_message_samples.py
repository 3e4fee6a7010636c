"""The sample messages in tests/events are what the parsers take and refuse, and the docs quote."""

import json
from pathlib import Path

import pytest

from shared.domain.job import JobState, fold_all
from shared.errors import MessageInvalid
from shared.jobs.messages import parse_event, parse_job
from shared.repository.blob_store import BlobName
from shared.repository.layout import backup_of_document

ROOT = Path(__file__).parents[3]
EVENTS = ROOT / "tests" / "events"


@pytest.mark.parametrize("path", sorted(EVENTS.glob("job-*.json")), ids=lambda path: path.stem)
def test_every_sample_job_is_read_as_what_its_name_says(path: Path) -> None:
    assert f"job-{parse_job(path.read_text()).verb}" == path.stem


def test_the_sample_events_tell_the_story_of_one_job() -> None:
    events = [parse_event(path.read_text()) for path in sorted(EVENTS.glob("event-*.json"))]

    assert len({event.job_id for event in events}) == 1
    assert fold_all(event.report() for event in events).state is JobState.SUCCEEDED


@pytest.mark.parametrize("path", sorted(EVENTS.glob("refused/*.json")), ids=lambda path: path.stem)
def test_every_refused_sample_is_refused_as_an_event(path: Path) -> None:
    with pytest.raises(MessageInvalid):
        parse_event(path.read_text())


def test_the_sample_blob_event_names_a_backup_document() -> None:
    event = json.loads((EVENTS / "blob-backup-committed.json").read_text())
    container, _, path = event["data"]["url"].split("/", 3)[3].partition("/")

    ref = backup_of_document(BlobName(container, path))

    assert ref.cluster == "demo"
    assert event["subject"].endswith(f"/containers/{container}/blobs/{path}")


@pytest.mark.parametrize(
    "path", sorted([*EVENTS.glob("job-*.json"), *EVENTS.glob("event-*.json")]), ids=lambda p: p.stem
)
def test_the_reference_quotes_the_samples_to_the_letter(path: Path) -> None:
    reference = (ROOT / "docs" / "reference" / "messages.md").read_text()
    assert path.read_text().strip() in reference
