"""Data keys: what can be asked of them, and that nothing shows them by mistake."""

import copy
import logging
import pickle

import pytest

from worker.keys.data_key import DataKey

SECRET = b"canary-canary-canary-canary-1234"


def test_it_reveals_its_bytes_only_when_asked() -> None:
    assert DataKey(SECRET).reveal() == SECRET


def test_generated_keys_differ() -> None:
    assert DataKey.generate().reveal() != DataKey.generate().reveal()


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_only_32_bytes_are_a_data_key(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        DataKey(b"c" * length)


def test_it_prints_redacted(caplog: pytest.LogCaptureFixture) -> None:
    key = DataKey(SECRET)
    logging.getLogger(__name__).warning("%s %r %s", key, key, {"key": [key]})
    shown = f"{key} {key!r} {[key]} {caplog.text}"
    assert "canary" not in shown
    assert shown.count("**redacted**") == 6


def test_it_compares_by_identity_so_that_equality_tells_nothing() -> None:
    key, twin = DataKey(SECRET), DataKey(SECRET)
    assert key != twin
    assert key == key  # noqa: PLR0124 - that is the point
    assert hash(key) != hash(twin)


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, DataKey.__getstate__])
def test_it_is_neither_pickled_nor_copied(leak) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match="not serialised"):
        leak(DataKey(SECRET))


def test_it_has_no_dictionary_to_dump() -> None:
    with pytest.raises(TypeError):
        vars(DataKey(SECRET))
