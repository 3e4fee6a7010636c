"""Reading backup_manifest: what PostgreSQL writes is understood, all else is refused.

The malformed ones are the thirty of PostgreSQL's own test pg_verifybackup/t/005_bad_manifest.pl.
"""

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from shared.errors import ManifestInvalid
from worker.postgres.backup_manifest import (
    BackupManifest,
    ChecksumAlgorithm,
    ManifestFile,
    WalRange,
    file_checksum,
    parse,
    read,
)
from worker.postgres.manifest_files import ManifestFiles

MODIFIED = "2026-11-22 19:08:45 GMT"
FILE = f'{{ "Path": "PG_VERSION", "Size": 3, "Last-Modified": "{MODIFIED}" }}'
RANGE = '{ "Timeline": 1, "Start-LSN": "0/4000028", "End-LSN": "0/4000120" }'


def sealed(text: str) -> bytes:
    """The text as a manifest that ends in the right checksum."""
    body = f"{text},\n".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(body).hexdigest()
    return body + f'"Manifest-Checksum": "{digest}"}}\n'.encode()


def manifest(*files: str, ranges: str = RANGE, version: int = 1, head: str = "") -> bytes:
    """A manifest laid out as PostgreSQL does."""
    lines = ",\n".join(files or (FILE,))
    return sealed(
        f'{{ "PostgreSQL-Backup-Manifest-Version": {version},\n{head}'
        f'"Files": [\n{lines}\n],\n"WAL-Ranges": [\n{ranges}\n]'
    )


def test_a_manifest_of_postgresql_17_is_understood() -> None:
    encoded = (
        f'{{ "Encoded-Path": "ff6669", "Size": 0, "Last-Modified": "{MODIFIED}", '
        '"Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }'
    )
    raw = manifest(FILE, encoded, version=2, head='"System-Identifier": 7711071899701634696,\n')
    assert parse(raw) == BackupManifest(
        version=2,
        system_identifier=7711071899701634696,
        files=ManifestFiles(
            (
                (b"PG_VERSION", ManifestFile(3, MODIFIED, None, b"")),
                (b"\xfffi", ManifestFile(0, MODIFIED, ChecksumAlgorithm.CRC32C, bytes(4))),
            )
        ),
        wal_ranges=(WalRange(1, Lsn.parse("0/4000028"), Lsn.parse("0/4000120")),),
    )


def test_a_manifest_of_postgresql_15_has_no_system_identifier() -> None:
    assert parse(manifest()).system_identifier is None


def _v1(rest: str) -> str:
    return f'{{"PostgreSQL-Backup-Manifest-Version": 1, {rest}}}\n'


def _one_file(members: str) -> str:
    return _v1(f'"Files": [\n    {{{members}}}\n]')


def _one_range(members: str) -> str:
    return _v1(f'"WAL-Ranges": [\n    {{{members}}}\n]')


BAD = {
    "input string ended unexpectedly": ("{\n", "not JSON"),
    "unexpected object end": ("{}\n", "does not begin with its version"),
    "unexpected array start": ("[]\n", "the manifest is not an object"),
    "expected version indicator": ('{"not-expected": 1}\n', "does not begin with its version"),
    "manifest version not an integer": (
        '{"PostgreSQL-Backup-Manifest-Version": "phooey"}\n',
        "PostgreSQL-Backup-Manifest-Version is missing or not an integer",
    ),
    "unexpected manifest version": (
        '{"PostgreSQL-Backup-Manifest-Version": 9876599}\n',
        "manifest version 9876599 is unknown",
    ),
    "unexpected scalar": (_v1('"Files": true'), "Files is not an array"),
    "unrecognized top-level field": (_v1('"Oops": 1'), "the manifest holds the unknown field"),
    "unexpected object start": (_v1('"Files": {}'), "Files is not an array"),
    "missing path name": (_v1('"Files": [{}]'), "a file has no path"),
    "both path name and encoded path name": (
        _one_file('"Path": "x", "Encoded-Path": "1234"'),
        "both Path and Encoded-Path",
    ),
    "unexpected file field": (_one_file('"Oops": 1'), "a file holds the unknown field 'Oops'"),
    "missing size": (_one_file('"Path": "x"'), "Size is missing"),
    "file size is not an integer": (
        _one_file('"Path": "x", "Size": "Oops"'),
        "Size is missing or not an integer",
    ),
    "could not decode file name": (
        _one_file('"Encoded-Path": "123", "Size": 0'),
        "Encoded-Path '123' is not hexadecimal",
    ),
    "duplicate path name in backup manifest": (
        _v1('"Files": [\n    {"Path": "x", "Size": 0},\n    {"Path": "x", "Size": 0}\n]'),
        "path b'x' occurs twice",
    ),
    "checksum without algorithm": (
        _one_file('"Path": "x", "Size": 100, "Checksum": "Oops"'),
        "checksum by '', which is unknown",
    ),
    "unrecognized checksum algorithm": (
        _one_file('"Path": "x", "Size": 100, "Checksum-Algorithm": "Oops", "Checksum": "00"'),
        "checksum by 'Oops', which is unknown",
    ),
    "invalid checksum for file": (
        _one_file('"Path": "x", "Size": 100, "Checksum-Algorithm": "CRC32C", "Checksum": "0"'),
        "invalid CRC32C checksum '0'",
    ),
    "missing start LSN": (_one_range('"Timeline": 1'), "Start-LSN is missing"),
    "missing end LSN": (_one_range('"Timeline": 1, "Start-LSN": "0/0"'), "End-LSN is missing"),
    "unexpected WAL range field": (_one_range('"Oops": 1'), "a WAL range holds the unknown field"),
    "missing timeline": (_one_range(""), "Timeline is missing"),
    "unexpected object end after WAL ranges": (
        _one_range('"Timeline": 1, "Start-LSN": "0/0", "End-LSN": "0/0"'),
        "Manifest-Checksum is missing",
    ),
    "timeline is not an integer": (
        _one_range('"Timeline": true, "Start-LSN": "0/0", "End-LSN": "0/0"'),
        "Timeline is missing or not an integer",
    ),
    "could not parse start LSN": (
        _one_range('"Timeline": 1, "Start-LSN": "oops", "End-LSN": "0/0"'),
        "Start-LSN: 'oops' is not an LSN",
    ),
    "could not parse end LSN": (
        _one_range('"Timeline": 1, "Start-LSN": "0/0", "End-LSN": "oops"'),
        "End-LSN: 'oops' is not an LSN",
    ),
    "expected at least 2 lines": (
        _v1('"Files": [], "Manifest-Checksum": null'),
        "the manifest has one line only",
    ),
    "last line not newline-terminated": (
        _v1('\n "Files": [],\n "Manifest-Checksum": null').rstrip("\n"),
        "the last line does not end in a newline",
    ),
    "invalid manifest checksum": (
        _v1(
            '"Files": [],\n "Manifest-Checksum": '
            '"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz01234567890-"'
        ),
        "the manifest's own checksum 'ABC",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_pg_verifybackup_refuses_is_refused(name: str) -> None:
    text, fact = BAD[name]
    with pytest.raises(ManifestInvalid) as refusal:
        parse(text.encode())
    assert fact in refusal.value.fact


def test_all_thirty_are_here() -> None:
    assert len(BAD) == 30


def _checksummed(algorithm: str, checksum: str) -> str:
    return (
        f'{{"Path": "x", "Size": 1, "Checksum-Algorithm": "{algorithm}", "Checksum": "{checksum}"}}'
    )


STRICTER = {
    "no file": (
        sealed(f'{{"PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [], "WAL-Ranges": [{RANGE}]'),
        "no files or no WAL",
    ),
    "same key twice": (manifest('{"Path": "x", "Path": "y", "Size": 1}'), "the same key twice"),
    "a float": (manifest('{"Path": "x", "Size": 1.0}'), "'1.0' is not an integer"),
    "not a number": (manifest('{"Path": "x", "Size": NaN}'), "'NaN' is not an integer"),
    "a huge number": (manifest(f'{{"Path": "x", "Size": {2**63}}}'), "Size is out of range"),
    "an absurd number": (manifest(f'{{"Path": "x", "Size": {"9" * 5000}}}'), "not JSON"),
    "negative size": (manifest('{"Path": "x", "Size": -1}'), "Size is out of range"),
    "boolean size": (manifest('{"Path": "x", "Size": true}'), "not an integer"),
    "absolute path": (manifest('{"Path": "/etc/passwd", "Size": 1}'), "not inside"),
    "path upwards": (manifest('{"Path": "base/../../x", "Size": 1}'), "not inside"),
    "path upwards in hex": (manifest('{"Encoded-Path": "2e2e2f78", "Size": 1}'), "not inside"),
    "empty path": (manifest('{"Path": "", "Size": 1}'), "not inside"),
    "path with NUL": (manifest(r'{"Path": "a\u0000b", "Size": 1}'), "not inside"),
    "path is no text": (manifest('{"Path": 1, "Size": 1}'), "no text"),
    "hex is no text": (manifest('{"Encoded-Path": 12, "Size": 1}'), "not hexadecimal"),
    "same path in both forms": (
        manifest('{"Path": "x", "Size": 1}', '{"Encoded-Path": "78", "Size": 1}'),
        "occurs twice",
    ),
    "algorithm without checksum": (manifest(_checksummed("SHA256", "")), "invalid SHA256"),
    "checksum too short": (manifest(_checksummed("SHA256", "00" * 31)), "invalid SHA256"),
    "range backwards": (
        manifest(ranges='{"Timeline": 1, "Start-LSN": "0/2", "End-LSN": "0/1"}'),
        "before its start",
    ),
    "timeline 0": (
        manifest(ranges='{"Timeline": 0, "Start-LSN": "0/1", "End-LSN": "0/1"}'),
        "Timeline is out of range",
    ),
    "no WAL": (manifest(ranges=""), "no files or no WAL"),
    "version 2 without system identifier": (manifest(version=2), "System-Identifier is missing"),
    "not UTF-8": (manifest().replace(b"PG_VERSION", b"\xff\xfe"), "is not UTF-8"),
    "deep nesting": (b"[" * 200_000, "not JSON"),
    "one newline more": (manifest().replace(b"[\n", b"[\n\n", 1), "match its own checksum"),
    "one digit changed": (manifest().replace(b'"Size": 3', b'"Size": 4'), "match its own checksum"),
}


@pytest.mark.parametrize("name", STRICTER)
def test_what_postgresql_never_writes_is_refused(name: str) -> None:
    raw, fact = STRICTER[name]
    with pytest.raises(ManifestInvalid) as refusal:
        parse(raw)
    assert fact in refusal.value.fact


def test_a_manifest_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(ManifestInvalid, match="has more than 8 bytes"):
        parse(b"[" * 9, size_limit=8)


@given(st.data())
def test_a_manifest_changed_anywhere_is_refused(data: st.DataObject) -> None:
    raw = bytearray(manifest())
    place = data.draw(st.integers(0, len(raw) - 1))
    bit = data.draw(st.integers(0, 7))
    raw[place] ^= 1 << bit
    try:
        changed = parse(bytes(raw))
    except ManifestInvalid:
        return
    # the checksum itself is hexadecimal in either case; nothing else may pass
    assert changed == parse(manifest())
    assert bytes(raw).lower() == manifest().lower()


@given(st.data())
def test_a_manifest_cut_anywhere_is_refused(data: st.DataObject) -> None:
    raw = manifest()
    with pytest.raises(ManifestInvalid):
        parse(raw[: data.draw(st.integers(0, len(raw) - 1))])


_scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
_FILE_KEYS = ("Path", "Encoded-Path", "Size", "Last-Modified", "Checksum-Algorithm", "Checksum")
_keys = st.sampled_from([*_FILE_KEYS, "Timeline", "Start-LSN", "End-LSN", "x"])
_entries = st.lists(st.dictionaries(_keys, _scalars, max_size=5) | _scalars, max_size=3)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        parse(raw)


@given(files=_entries | _scalars, ranges=_entries | _scalars, version=_scalars)
def test_any_json_of_the_right_outline_is_understood_or_refused(
    files: Any, ranges: Any, version: Any
) -> None:
    document = {
        "PostgreSQL-Backup-Manifest-Version": version,
        "Files": files,
        "WAL-Ranges": ranges,
    }
    try:
        found = parse(sealed(json.dumps(document)[:-1]))
    except ManifestInvalid:
        return
    assert found.files
    assert found.wal_ranges


@given(st.dictionaries(st.binary(min_size=1, max_size=12), st.integers(0, 2**63 - 1), min_size=1))
def test_names_of_any_bytes_come_back_exactly(sizes: dict[bytes, int]) -> None:
    sizes = {
        b"base/f" + name.replace(b"\0", b"0").replace(b"/", b"1"): n for name, n in sizes.items()
    }
    entries = [f'{{"Encoded-Path": "{name.hex()}", "Size": {n}}}' for name, n in sizes.items()]
    files = parse(manifest(*entries)).files
    assert {name: file.size for name, file in files.items()} == sizes


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        # 0xE3069283 is the check value of CRC-32C (RFC 3720, appendix B.4), in host byte order
        (ChecksumAlgorithm.CRC32C, "839206e3"),
        (ChecksumAlgorithm.SHA224, hashlib.sha224(b"123456789").hexdigest()),
        (ChecksumAlgorithm.SHA256, hashlib.sha256(b"123456789").hexdigest()),
        (ChecksumAlgorithm.SHA384, hashlib.sha384(b"123456789").hexdigest()),
        (ChecksumAlgorithm.SHA512, hashlib.sha512(b"123456789").hexdigest()),
    ],
)
def test_file_checksums_come_out_as_the_manifest_writes_them(
    algorithm: ChecksumAlgorithm, digest: str
) -> None:
    checksum = file_checksum(algorithm)
    for chunk in (b"123", b"", b"456789"):
        checksum.update(chunk)
    assert checksum.digest().hex() == digest
    assert len(checksum.digest()) == algorithm.digest_size


@given(st.lists(st.binary(max_size=50)), st.sampled_from(ChecksumAlgorithm))
def test_how_a_file_is_cut_does_not_change_its_checksum(
    chunks: list[bytes], algorithm: ChecksumAlgorithm
) -> None:
    whole, pieces = file_checksum(algorithm), file_checksum(algorithm)
    whole.update(b"".join(chunks))
    for chunk in chunks:
        pieces.update(chunk)
    assert whole.digest() == pieces.digest()


@given(st.lists(st.integers(0, 700), max_size=6))
def test_how_a_manifest_is_cut_does_not_change_what_it_says(cuts: list[int]) -> None:
    raw = manifest('{"Path": "base/dünn \U0001f418", "Size": 1}', FILE)
    bounds = [0, *sorted(cuts), len(raw)]
    assert read(raw[start:end] for start, end in pairwise(bounds)) == parse(raw)


def test_a_value_beyond_any_of_postgresqls_is_refused_without_reading_on() -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        yield b'{"PostgreSQL-Backup-Manifest-Version": "'
        while True:
            asked += 1
            yield b"x" * 4096

    with pytest.raises(ManifestInvalid, match="not JSON"):
        read(endless())
    assert asked < 100


def test_a_hundred_thousand_files_are_read_in_little_memory() -> None:
    entries = [
        f'{{ "Path": "base/{a}/{b}", "Size": {b}, "Last-Modified": "{MODIFIED}", '
        f'"Checksum-Algorithm": "CRC32C", "Checksum": "{a:08x}" }}'
        for a, b in product(range(100), range(1000))
    ]
    raw = manifest(*entries)
    tracemalloc.start()
    try:
        files = parse(raw).files
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(files) == 100_000
    assert files[b"base/7/999"] == ManifestFile(
        999, MODIFIED, ChecksumAlgorithm.CRC32C, bytes((0, 0, 0, 7))
    )
    assert peak < 200 * len(files)
