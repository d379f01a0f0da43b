"""Something read ahead by a thread, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_turn(work: Callable[[S], T], items: Sequence[S], ahead: int) -> Iterator[T]:
    """`work` of every item, in their order; a thread works on at most `ahead` items beyond the one
    that was asked for.  After an exception, which is raised where its item would have come, no
    further item is begun."""
    if len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(1, "ahead") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
