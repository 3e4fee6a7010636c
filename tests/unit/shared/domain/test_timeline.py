"""Timeline histories, as PostgreSQL writes them and as it would refuse them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import LSN_MAX, Lsn
from shared.domain.timeline import Branch, HistoryInvalid, TimelineHistory

# As timeline.c writes it after two promotions.
REAL = (
    b"1\t0/3000148\tno recovery target specified\n\n2\t0/501B2F8\tbefore 2026-11-22 12:00:00+00\n"
)
LSNS = st.integers(0, LSN_MAX).map(Lsn)


@st.composite
def histories(draw: st.DrawFn) -> TimelineHistory:
    numbers = draw(st.lists(st.integers(1, 2**32 - 2), max_size=6, unique=True).map(sorted))
    own = draw(st.integers(max(numbers, default=0) + 1, 2**32 - 1))
    return TimelineHistory(own, tuple(Branch(number, draw(LSNS)) for number in numbers))


def test_a_real_history_tells_where_each_ancestor_was_left() -> None:
    history = TimelineHistory.parse(3, REAL)
    assert history.ancestors == (
        Branch(1, Lsn.parse("0/3000148")),
        Branch(2, Lsn.parse("0/501B2F8")),
    )
    assert [history.end_of(number) for number in (1, 2, 3)] == [
        Lsn.parse("0/3000148"),
        Lsn.parse("0/501B2F8"),
        None,
    ]


def test_the_first_timeline_has_no_ancestors() -> None:
    assert TimelineHistory.parse(1, b"") == TimelineHistory(1)
    assert TimelineHistory(1).end_of(1) is None


# PostgreSQL quotes a restore point's name; only its own line end ends a line.
REASONS = st.text(
    st.characters(exclude_characters="\n", exclude_categories=["Cs"])
) | st.sampled_from(['at restore point "a\u2028b"', "\x0c\x85\x1c1\t0/0"])


@given(histories(), st.sampled_from(["", "# a remark\n", "\n", "  \t \n"]), REASONS)
def test_a_history_reads_back_whatever_stands_between_and_behind_its_positions(
    history: TimelineHistory, noise: str, reason: str
) -> None:
    lines = [f"{noise}{item.timeline}\t{item.switch}\t{reason}\n" for item in history.ancestors]
    assert TimelineHistory.parse(history.timeline, "".join(lines).encode()) == history


@given(histories(), st.integers(1, 2**32 - 1), LSNS)
def test_a_position_belongs_to_a_history_up_to_where_it_was_left(
    history: TimelineHistory, timeline: int, lsn: Lsn
) -> None:
    assert history.holds(history.timeline, lsn)
    for branch in history.ancestors:
        assert history.holds(branch.timeline, branch.switch)
        assert history.holds(branch.timeline, lsn) == (lsn <= branch.switch)
    known = {history.timeline, *(branch.timeline for branch in history.ancestors)}
    if timeline not in known:
        assert not history.holds(timeline, lsn)
        with pytest.raises(KeyError):
            history.end_of(timeline)


@pytest.mark.parametrize(
    "content",
    [
        b"1",
        b"1\n",
        b"one\t0/3000148\treason\n",
        b"1\t03000148\treason\n",
        b"1\t0/123456789\treason\n",
        b"0\t0/3000148\treason\n",
        b"-1\t0/3000148\treason\n",
        b"2\t0/3000148\treason\n1\t0/4000000\treason\n",
        b"1\t0/3000148\treason\n1\t0/4000000\treason\n",
        b"3\t0/3000148\treason\n",
        b"4\t0/3000148\treason\n",
        b"\xff\xfe\x00",
    ],
)
def test_w08_what_postgresql_would_refuse_is_refused(content: bytes) -> None:
    with pytest.raises(HistoryInvalid, match=r"00000003\.history"):
        TimelineHistory.parse(3, content)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_history_or_refused(content: bytes) -> None:
    try:
        history = TimelineHistory.parse(7, content)
    except HistoryInvalid:
        return
    assert all(branch.timeline < 7 for branch in history.ancestors)
