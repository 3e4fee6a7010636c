"""What `pgkeep check` prints: a line for each check, then what is to be run, ready to be pasted."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from worker.commands import printed
from worker.commands.check_result import CheckResult
from worker.commands.printed import OUT, print_json
from worker.postgres.prerequisites import Lack


def checks(results: Sequence[CheckResult], *, as_json: bool) -> None:
    if as_json:
        print_json({"checks": [_members(result) for result in results]})
        return
    printed.checks(results)
    for server, lacks in lacks_by_server(results).items():
        for line in _instructions(server, lacks):
            OUT.print(line, markup=False)


def lacks_by_server(results: Iterable[CheckResult]) -> dict[str, list[Lack]]:
    """Each once, though several checks may have met it."""
    found: dict[str, dict[tuple[str | None, str], Lack]] = {}
    for result in results:
        for lack in result.lacks:
            of_server = found.setdefault(result.server, {})
            of_server.setdefault((lack.database, lack.statement), lack)
    return {server: list(lacks.values()) for server, lacks in found.items()}


def script(lacks: Iterable[Lack]) -> Iterator[str]:
    """For psql, which has to be connected to any database of the server.

    What belongs to a database comes last; one reload, where it is needed, before that.
    """
    by_sql = [lack for lack in lacks if lack.place == "sql"]
    anywhere = [lack for lack in by_sql if lack.database is None]
    yield from map(_line, anywhere)
    if any(lack.effect == "after a reload" for lack in anywhere):
        yield "SELECT pg_reload_conf();"
    there = sorted((x for x in by_sql if x.database is not None), key=lambda x: str(x.database))
    for database, lacking in groupby(there, key=lambda lack: str(lack.database)):
        yield f"\\connect {_identifier(database)}"
        yield from map(_line, lacking)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _line(lack: Lack) -> str:
    """With what is at stake as a comment, where pgkeep works without it."""
    notes = [] if lack.needed else [f"advised: {lack.fact}"]
    if lack.effect == "after a restart":
        notes.append("then restart the server")
    comment = "; ".join(notes).replace("\n", " ")
    return f"{lack.statement}  -- {comment}" if comment else lack.statement


def _instructions(server: str, lacks: Sequence[Lack]) -> Iterator[str]:
    statements = list(script(lacks))
    if statements:
        yield f"\nTo run on {server}, in psql, as a superuser:\n"
        yield from statements
    for place in ("postgresql.conf", "pg_hba.conf"):
        lines = [lack for lack in lacks if lack.place == place]
        if lines:
            then = "restart" if any(x.effect == "after a restart" for x in lines) else "reload"
            yield f"\nTo write into {place} of {server}; then {then} it:\n"
            yield from (lack.statement for lack in lines)


def _members(result: CheckResult) -> dict[str, object]:
    return {
        "name": result.name,
        "outcome": result.outcome,
        "detail": result.detail,
        "server": result.server or None,
        "lacks": [asdict(lack) for lack in result.lacks],
    }
