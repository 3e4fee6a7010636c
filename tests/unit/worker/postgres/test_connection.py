"""Connection strings: nothing from the environment, nothing secret into messages."""

import socket

import pytest
from psycopg import pq

from shared.errors import (
    ConninfoInvalid,
    FullPageWritesOff,
    PgkeepError,
    PostgresAuthenticationFailed,
    PostgresCommandFailed,
    PostgresConnectionsExhausted,
    PostgresDenied,
    PostgresEnvironmentRefused,
    PostgresGone,
    PostgresTlsFailed,
    PostgresUnreachable,
    PostgresVersionUnsupported,
    ReplicationDenied,
    StandbyIdle,
    StandbyPromoted,
)
from worker.postgres.connection import (
    SUPPORTED_MAJORS,
    _connection_error,
    connect,
    connect_sql,
    require_supported_version,
    resolve,
    server_error,
)

SECRET = "correct horse"  # noqa: S105 - a canary


def resolved(conninfo: str) -> dict[str, str]:
    return resolve(conninfo, replication=True)


def test_every_parameter_that_a_variable_could_set_is_written_out() -> None:
    from_variables = {o.keyword.decode() for o in pq.Conninfo.get_defaults() if o.envvar}
    assert from_variables - resolved("host=db user=u").keys() <= {"service", "servicefile"}


@pytest.mark.parametrize(
    ("hosts", "sslmode"),
    [
        ("host=db.example", "verify-full"),
        ("host=203.0.113.7", "verify-full"),
        ("hostaddr=203.0.113.7 host=localhost", "verify-full"),
        ("host=localhost,db.example", "verify-full"),
        ("host=localhost", "prefer"),
        ("host=127.0.0.1", "prefer"),
        ("host=::1", "prefer"),
        ("host=/run/postgresql", "prefer"),
        ("host=db.example sslmode=require", "require"),
    ],
)
def test_tls_is_verified_unless_the_server_is_local_or_the_string_says_so(
    hosts: str, sslmode: str
) -> None:
    assert resolved(f"{hosts} user=u")["sslmode"] == sslmode


def test_a_uri_is_read_like_a_string() -> None:
    parameters = resolved("postgresql://u@db.example:5433/app?application_name=x")
    assert (parameters["host"], parameters["port"], parameters["dbname"]) == (
        "db.example",
        "5433",
        "app",
    )


def test_the_password_file_entry_for_replication_is_found() -> None:
    assert resolved("host=db user=u")["dbname"] == "replication"
    assert resolve("host=db user=u", replication=False)["dbname"] == "postgres"


def test_a_dead_peer_is_noticed_within_a_minute() -> None:
    p = resolved("host=db user=u")
    silence = int(p["keepalives_idle"]) + int(p["keepalives_interval"]) * int(p["keepalives_count"])
    assert p["keepalives"] == "1"
    assert silence <= 60
    assert 0 < int(p["tcp_user_timeout"]) <= 60_000


@pytest.mark.parametrize(
    ("conninfo", "fact"),
    [
        ("", "must name host and user"),
        ("user=u", "must name host and user"),
        ("host=db", "must name host and user"),
        ("host=db user=u service=prod", "names a service"),
        (f"host=db user=u password='{SECRET}", "cannot be parsed"),
        (f"host=db user=u {SECRET}", "cannot be parsed"),
        ("host=db user=u nosuch=1", "cannot be parsed"),
    ],
)
def test_a_string_that_leaves_the_target_open_is_refused(conninfo: str, fact: str) -> None:
    with pytest.raises(ConninfoInvalid) as refusal:
        resolved(conninfo)
    assert fact in refusal.value.fact
    assert "horse" not in str(refusal.value)


def test_the_one_variable_that_no_parameter_overrides_is_refused() -> None:
    with pytest.raises(PostgresEnvironmentRefused, match="PGSERVICE"):
        connect("host=db user=u", replication=True, environment={"PGSERVICE": "elsewhere"})


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ('FATAL:  password authentication failed for user "u"', PostgresAuthenticationFailed),
        ("fe_sendauth: no password supplied", PostgresAuthenticationFailed),
        ("FATAL:  permission denied to start WAL sender", ReplicationDenied),
        (
            "FATAL:  must be superuser or replication role to start walsender",
            ReplicationDenied,
        ),
        (
            'FATAL:  no pg_hba.conf entry for host "192.0.2.1", user "u", no encryption',
            PostgresDenied,
        ),
        ('FATAL:  pg_hba.conf rejects connection for host "192.0.2.1"', PostgresDenied),
        ('FATAL:  Peer authentication failed for user "u"', PostgresDenied),
        ('FATAL:  role "u" does not exist', PostgresDenied),
        ('FATAL:  role "u" is not permitted to log in', PostgresDenied),
        ("FATAL:  sorry, too many clients already", PostgresConnectionsExhausted),
        (
            "FATAL:  number of requested standby connections exceeds max_wal_senders (currently 1)",
            PostgresConnectionsExhausted,
        ),
        ("SSL error: certificate verify failed", PostgresTlsFailed),
        ("server does not support SSL, but SSL was required", PostgresTlsFailed),
        ('root certificate file "/x/root.crt" does not exist', PostgresTlsFailed),
        ("FATAL:  the database system is starting up", PostgresUnreachable),
        ("Connection refused", PostgresUnreachable),
    ],
)
def test_what_kept_us_from_connecting_has_its_own_error(
    words: str, error: type[PgkeepError]
) -> None:
    message = f'connection to server at "tls.example" (192.0.2.9), port 5432 failed: {words}\n'
    assert type(_connection_error(message, resolved("host=tls.example user=u"))) is error


def test_no_message_holds_a_password() -> None:
    parameters = resolved(f"host=db user=u password='{SECRET}' sslpassword=hunter2")
    error = _connection_error(f"no pg_hba.conf entry for {SECRET} hunter2", parameters)
    assert "no pg_hba.conf entry for **redacted** **redacted**" in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("sqlstate", "error"),
    [
        ("28P01", PostgresAuthenticationFailed),
        ("28000", PostgresDenied),
        ("42501", ReplicationDenied),
        ("53300", PostgresConnectionsExhausted),
        ("57P01", PostgresGone),
        ("57P03", PostgresGone),
        ("08006", PostgresGone),
        ("22023", PostgresCommandFailed),
    ],
)
def test_a_sqlstate_has_its_own_error(sqlstate: str, error: type[PgkeepError]) -> None:
    found = server_error(sqlstate, "ERROR:  it went wrong\nDETAIL:  badly\n")
    assert type(found) is error
    assert found.fact == f"it went wrong; DETAIL:  badly (SQLSTATE {sqlstate})"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("the standby was promoted during online backup", StandbyPromoted),
        ('WAL generated with "full_page_writes=off" was replayed', FullPageWritesOff),
        ("WAL generated with full_page_writes=off was replayed since last", FullPageWritesOff),
        ("manifest requires WAL from final timeline 1 ending at 0/3000000, but", StandbyIdle),
        ("incremental backups cannot be taken unless WAL summarization", PostgresCommandFailed),
    ],
)
def test_what_ends_the_backup_of_a_standby_has_its_own_error(
    words: str, error: type[PgkeepError]
) -> None:
    assert type(server_error("55000", f"ERROR:  {words}\n")) is error
    assert type(server_error("XX000", f"ERROR:  {words}\n")) is PostgresCommandFailed


@pytest.mark.parametrize("version", [150018, 170010, 180006])
def test_versions_that_were_tried_are_accepted(version: int) -> None:
    require_supported_version(version)
    assert version // 10_000 in SUPPORTED_MAJORS


@pytest.mark.parametrize("version", [0, 90624, 140020, 190000])
def test_versions_that_were_not_tried_are_refused(version: int) -> None:
    with pytest.raises(PostgresVersionUnsupported, match="supported are 15 to 18"):
        require_supported_version(version)


def test_a_port_that_refuses_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for attempt in (lambda c: connect(c, replication=True), connect_sql):
        with pytest.raises(PostgresUnreachable, match=f"host=127.0.0.1 port={port} user=u"):
            attempt(f"host=127.0.0.1 port={port} user=u password=hunter2")


def test_a_server_that_accepts_but_never_answers_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        conninfo = f"host=127.0.0.1 port={listener.getsockname()[1]} user=u sslmode=disable"
        with pytest.raises(PostgresUnreachable, match="connection timeout expired"):
            connect(conninfo, replication=True, connect_timeout=1)


def test_a_port_that_is_no_number_is_an_error_of_ours() -> None:
    for attempt in (lambda c: connect(c, replication=True), connect_sql):
        with pytest.raises(PgkeepError):
            attempt("host=127.0.0.1 port=abc user=u")
