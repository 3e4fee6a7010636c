"""Contract tests of the catalogue: for the one in PostgreSQL, and for the one in memory.

A module that says `BOTH_CATALOGUES = True` has a fixture `catalogue` that returns
`catalogue_of(request)`. A test that also asks for the server or a dsn does something that only
PostgreSQL can answer, and is run for that alone.
"""

from typing import Final

import pytest

from shared.catalogue.ports import Catalogue
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from tests.harness.catalogue_server import CatalogueServer
from tests.harness.memory_catalogue import MemoryCatalogue

_KINDS: Final = ("postgres", "memory")
_OF_POSTGRES_ALONE: Final = frozenset({"dsn", "server"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted = getattr(metafunc.module, "BOTH_CATALOGUES", False)
    if wanted and "catalogue" in metafunc.fixturenames:
        alone = _OF_POSTGRES_ALONE & set(metafunc.fixturenames)
        metafunc.parametrize("catalogue", _KINDS[:1] if alone else _KINDS, indirect=True)


def catalogue_of(request: pytest.FixtureRequest) -> Catalogue:
    """An empty one, of the kind that the test is run for."""
    if request.param == "memory":
        return MemoryCatalogue()
    if "dsn" in request.fixturenames:
        return PostgresCatalogue(request.getfixturevalue("dsn"))
    server: CatalogueServer = request.getfixturevalue("server")
    return PostgresCatalogue(server.database())
