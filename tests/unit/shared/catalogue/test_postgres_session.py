"""Connection strings get our limits, and psycopg's errors our names."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from shared.catalogue.postgres_session import connection_string, renamed
from shared.errors import (
    CatalogueDenied,
    CatalogueUnavailable,
    CatalogueValueRefused,
    ConninfoInvalid,
    PgkeepError,
)


def test_limits_are_added_and_the_operators_own_words_kept() -> None:
    made = conninfo_to_dict(
        connection_string("host=db dbname=x connect_timeout=9 options='-c role=keeper'")
    )

    assert (made["host"], made["connect_timeout"]) == ("db", "9")
    assert str(made["options"]).startswith("-c role=keeper -c statement_timeout=")
    assert made["application_name"] == "pgkeep"


def test_a_broken_connection_string_is_refused_without_being_quoted() -> None:
    with pytest.raises(ConninfoInvalid) as caught:
        connection_string("host=db password='sesame")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.NumericValueOutOfRange("too big"), CatalogueValueRefused),
        (psycopg.errors.InsufficientPrivilege("permission denied"), CatalogueDenied),
        (psycopg.OperationalError('password authentication failed for user "x"'), CatalogueDenied),
        (psycopg.OperationalError("connection refused\nsecond line"), CatalogueUnavailable),
        (psycopg.errors.QueryCanceled("statement timeout"), CatalogueUnavailable),
        (psycopg.errors.AdminShutdown("terminating"), CatalogueUnavailable),
    ],
)
def test_every_error_of_the_driver_gets_a_name_of_ours(
    error: psycopg.Error, kind: type[PgkeepError]
) -> None:
    named = renamed(error)
    assert type(named) is kind
    assert "\n" not in named.fact
