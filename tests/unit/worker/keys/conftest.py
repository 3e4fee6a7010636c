"""One development key set per test process: RSA keys take a while to make."""

import pytest

from worker.keys.generate import KeySet, generate_key_set


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeySet:
    return generate_key_set(tmp_path_factory.mktemp("keys"))
