"""Which files a pattern chooses: part by part, and everything below a directory."""

import pytest

from shared.domain.path_patterns import PathPatternInvalid, matches, parse_pattern

PATHS = [
    b"PG_VERSION",
    b"base/16384/2619",
    b"base/16384/2619.1",
    b"base/16384/2619_vm",
    b"base/5/2619",
    b"pg_tblspc/16400/PG_17_202406281/5/3000",
    b"caf\xe9",
]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        (b"PG_VERSION", [0]),
        (b"base/16384/2619", [1]),
        (b"base/16384/2619*", [1, 2, 3]),
        (b"base/16384/2619.[0-9]*", [2]),
        (b"base/16384/", [1, 2, 3]),
        (b"base", [1, 2, 3, 4]),
        (b"base/*/2619", [1, 4]),
        (b"*/5", [4]),
        (b"*", [0, 1, 2, 3, 4, 5, 6]),
        (b"pg_tblspc/16400", [5]),
        (b"bas", []),
        (b"BASE", []),
        (b"caf\xe9", [6]),
        (b"base/16384/2619/5", []),
    ],
)
def test_a_pattern_chooses_by_whole_parts(pattern: bytes, chosen: list[int]) -> None:
    parsed = parse_pattern(pattern)
    assert [number for number, path in enumerate(PATHS) if matches(parsed, path)] == chosen


@pytest.mark.parametrize(
    "pattern", [b"", b"/", b"/base", b"..", b"../base", b"base/../x", b"./x", b"base//5", b"."]
)
def test_a_pattern_that_no_path_can_have_is_refused(pattern: bytes) -> None:
    with pytest.raises(PathPatternInvalid):
        parse_pattern(pattern)
