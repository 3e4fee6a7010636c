"""The development key set: private to its owner, complete, and never overwritten."""

from pathlib import Path

import pytest

from shared.repository.pinned_keys import PinnedKey, key_fingerprint
from worker.keys.generate import KeyFileExists, KeySet, generate_key_set
from worker.keys.local_pem import PemUnwrappingKey, PemWrappingKey
from worker.keys.signing import PemSigner


def test_every_file_is_its_owners_alone(keys: KeySet) -> None:
    files = list(keys.signing.private.parent.iterdir())
    assert len(files) == 8
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_the_halves_of_every_pair_belong_together(keys: KeySet) -> None:
    for pair in (keys.wrapping, keys.escrow, keys.manifest):
        assert PemWrappingKey.load(pair.public).kek == PemUnwrappingKey.load(pair.private).kek
    pinned = PinnedKey.from_pem(keys.signing.public.read_bytes())
    assert PemSigner.load(keys.signing.private).key_id == key_fingerprint(pinned.public_key)


def test_the_set_is_found_again_by_its_folder(keys: KeySet) -> None:
    assert KeySet.below(keys.wrapping.public.parent) == keys


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    present = KeySet.below(tmp_path).signing.private
    present.write_text("precious")
    with pytest.raises(KeyFileExists, match=r"signing\.private\.pem"):
        generate_key_set(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["signing.private.pem"]
    assert present.read_text() == "precious"
