"""Azurite for tests: one emulator per process, and for each test an account of its own.

An account of its own lets a test use the product's fixed names (`full`, `wal`, a queue) as they
are, whatever other tests do at the same time.
"""

import itertools
from collections.abc import Iterator

import pytest
from azure.storage.blob import BlobServiceClient

from local.azurite import EMULATOR_ACCOUNT, EMULATOR_KEY, Azurite, EmulatedAccount

CONTAINERS = ("full", "incremental", "wal", "dump", "evidence", "state")
# They go into one environment variable, which Linux limits to 128 KiB (MAX_ARG_STRLEN): hence
# the short key, base64 of sixteen zero bytes.
_POOL = {f"test{number:04d}": "AAAAAAAAAAAAAAAAAAAAAA==" for number in range(2_500)}
_numbers = itertools.count()


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Over HTTP and in memory. Never stop it: make your own where a test needs that."""
    with Azurite(None, accounts={EMULATOR_ACCOUNT: EMULATOR_KEY, **_POOL}) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def azurite_https() -> Iterator[Azurite]:
    """Over HTTPS and in memory, with the emulator's own account only."""
    with Azurite(None, https=True) as emulator:
        yield emulator


@pytest.fixture
def fresh_azurite_account(azurite: Azurite) -> EmulatedAccount:
    """An account that no other test uses, empty."""
    number = next(_numbers)
    if number >= len(_POOL):
        raise RuntimeError(f"more than {len(_POOL)} tests in one process: make the pool larger")
    return azurite.account(f"test{number:04d}")


@pytest.fixture
def azurite_account(fresh_azurite_account: EmulatedAccount) -> EmulatedAccount:
    """An account that no other test uses, with the repository's containers."""
    account = fresh_azurite_account
    with BlobServiceClient(account.blob_url, credential=account.credential) as client:
        for container in CONTAINERS:
            client.create_container(container).close()
    return account
