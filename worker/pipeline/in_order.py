"""Work in parallel, results in order, a bounded number in flight: the pipeline's back-pressure."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    executor: Executor, work: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Iterator[Result]:
    """`work(item)` for every item, yielded in the items' order, at most `depth` under way.

    Takes the next item only when there is room, so a slow consumer slows the producer down.
    Raises the first failure; work already under way ends before the exception leaves.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(pending) >= depth:
                yield pending.popleft().result()
            pending.append(executor.submit(work, item))
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for future in pending:
            if not future.cancelled():
                future.exception()
