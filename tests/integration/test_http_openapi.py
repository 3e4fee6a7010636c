"""The OpenAPI document says what the interface does: schemathesis makes requests from it, and holds
every answer against it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import azure.functions as func
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from functions.http_openapi import EVERY_OPERATION, whole_document
from functions.intake import take_in_backup
from functions.operations import Operation
from local.functions_host.indexing import index_app
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.http_caller import ROOT, HttpCaller, calling
from tests.harness.light_plane import light_plane

pytestmark = pytest.mark.integration

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

# Made-up names are unknown; with real ones a request gets further.
NAMES = ["cluster", "name", "target", "label", "to", "id"]


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture(scope="module")
def web(server: CatalogueServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpCaller]:
    """With a backup, a job and a restore to be found."""
    folder = tmp_path_factory.mktemp("http")
    with calling(light_plane(server, folder), folder) as caller:
        backup = caller.plane.repository.commit()
        take_in_backup(caller.plane.services, backup.ref.document)
        yield caller


@pytest.fixture(scope="module")
def known(web: HttpCaller) -> Mapping[str, Mapping[str, str]]:
    """Names of what exists: the same in every operation, but for ids, which are by its kind."""
    [backup] = web.get("/api/backups")[1]["backups"]
    label = {"label": backup["label"], "to": "immediate", "target": "scratch"}
    names = {"cluster": "demo", "name": "demo", **label}
    restore = web.post("/api/restores", {"cluster": "demo", "target": "scratch"})[1]["id"]
    drill = web.post("/api/drills", {"cluster": "demo"})[1]["job_id"]
    ids = {"restores/{id}": restore, "drills/{id}": drill, "jobs/{id}": drill}
    ids["restores/{id}/decision"] = restore
    drills = {**names, "target": "latest"}
    return {
        one.path: {**(drills if one.path == "drills" else names), "id": ids.get(one.path, "")}
        for one in EVERY_OPERATION
    }


@pytest.fixture(scope="module")
def schema(web: HttpCaller) -> Any:
    """As a client gets it."""
    headers = {"authorization": f"Bearer {web.token('reader')}"}
    return schemathesis.openapi.from_wsgi("/api/openapi.json", web.app, headers=headers)


def test_every_http_function_serves_the_operations_that_the_document_lists() -> None:
    """Routes of the host, and the paths and methods of the document, are the same set."""
    listed = {
        (path.removeprefix("/api/"), method.upper())
        for path, methods in whole_document().paths.items()
        for method in methods
    }
    served = set()
    for function in index_app(ROOT):
        trigger = function.trigger
        if function.kind != "httpTrigger":
            continue
        assert trigger["authLevel"] is func.AuthLevel.ANONYMOUS
        route = trigger["route"]
        paths = {route.replace("?}", "}"), *([route.partition("/{")[0]] if "?}" in route else [])}
        methods = {method.value for method in trigger["methods"]}
        served |= {(path, method) for path in paths for method in methods}
    assert listed <= served
    # What a route lets through beyond that is answered 404: an id where none belongs, or none.
    assert {path for path, _ in served - listed} <= {"drills", "drills/{id}", "restores/{id}"}
    assert len({operation.name for operation in EVERY_OPERATION}) == len(EVERY_OPERATION)


@pytest.mark.parametrize("path", ["/api/drills", "/api/jobs/1/2"])
def test_a_path_that_nothing_answers_is_404(web: HttpCaller, path: str) -> None:
    assert web.send("GET", path, token=web.token("reader")).status_code == 404


def test_what_there_is_not_is_told_to_nobody_whom_we_do_not_know(web: HttpCaller) -> None:
    assert web.send("POST", "/api/drills/x", {}).status_code == 401
    assert web.send("POST", "/api/drills/x", {}, token=web.token("operator")).status_code == 404


def test_what_changes_something_is_a_post_with_roles_and_problems_are_listed() -> None:
    document = whole_document()
    for operation in EVERY_OPERATION:
        shown = document.paths[f"/api/{operation.path}"][operation.method.lower()]
        assert {"400", "401", "403", "429", "500", "503"} <= shown["responses"].keys()
        assert "Retry-After" in shown["responses"]["429"]["headers"]
        assert ("413" in shown["responses"]) == (operation.method == "POST")
        assert shown["x-pgkeep-roles"] == sorted(operation.may)
        assert operation.method == "POST" or not operation.changes
        names = [one["name"] for one in shown["parameters"]]
        assert ("Idempotency-Key" in names) == operation.changes
    bodies = document.components["schemas"]
    assert {bodies[name]["additionalProperties"] for name in ("BackupRequest", "RestoreAsked")} == {
        False
    }


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("operation", EVERY_OPERATION, ids=lambda operation: operation.name)
def test_every_answer_is_one_that_the_document_promises(
    web: HttpCaller,
    schema: Any,
    known: Mapping[str, Mapping[str, str]],
    operation: Operation[Any],
    mode: GenerationMode,
) -> None:
    asked = schema[f"/api/{operation.path}"][operation.method]
    token = web.token("reader", "operator", "approver")

    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=asked.as_strategy(generation_mode=mode), real=st.sets(st.sampled_from(NAMES)))
    def ask(case: Case[Any], real: set[str]) -> None:
        for part in (case.body, case.query, case.path_parameters):
            if isinstance(part, dict):
                part.update({name: known[operation.path][name] for name in real & part.keys()})
        response = case.call(headers={"authorization": f"Bearer {token}"})
        case.validate_response(response, checks=CHECKS)
        assert b"Traceback" not in response.content

    ask()
