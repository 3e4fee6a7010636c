"""Results come in order, a bounded number is under way, and the first failure ends it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.pipeline.in_order import map_in_order

LIMIT_S = 10


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 8), st.integers(1, 4))
def test_results_come_in_the_order_of_the_items(items: list[int], depth: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as executor:
        assert list(map_in_order(executor, str, items, depth)) == [str(item) for item in items]


def test_b09_no_more_items_are_taken_than_the_depth_allows() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(4) as executor:
        results = map_in_order(executor, lambda item: item, items(), depth=3)
        for seen in range(20):
            assert next(results) == seen
            assert len(taken) <= seen + 4
        results.close()  # type: ignore[attr-defined]


def test_the_first_failure_is_raised_once_everything_under_way_has_ended() -> None:
    release, running, ended = threading.Event(), threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item == 1:
            assert running.wait(LIMIT_S)
            threading.Timer(0.05, release.set).start()
            raise ValueError("item 1")
        if item == 2:
            running.set()
            assert release.wait(LIMIT_S)
            ended.set()
        return item

    with ThreadPoolExecutor(2) as executor:
        results = map_in_order(executor, work, range(10), depth=5)
        assert next(results) == 0
        with pytest.raises(ValueError, match="item 1"):
            next(results)
        assert ended.is_set()


def test_a_consumer_that_stops_leaves_no_work_behind() -> None:
    done: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        results = map_in_order(executor, done.append, range(1000), depth=4)
        next(results)
        results.close()  # type: ignore[attr-defined]
        count = len(done)
        executor.submit(int).result(LIMIT_S)
        assert len(done) == count <= 5
