"""Work for threads: read ahead in order, or shared out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

_MOST = 4
"""Threads that share work: they want the same memory, and the interpreter in between."""


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


def side_by_side(work: Callable[[S], object], items: Sequence[S]) -> None:
    """`work` of every item, on as many threads as this process has processors, at most four.  After
    an exception no further item is begun; of several, that of the first item is raised.

    This thread works too, and none waits for another's result: waking for each made loading a
    fifth slower.
    """
    left = iter(enumerate(items))
    failed: dict[int, BaseException] = {}

    def run() -> None:
        for number, item in left:
            try:
                work(item)
            except BaseException as error:
                failed[number] = error
            if failed:
                return

    others = [Thread(target=run) for _ in range(min(len(items), _processors(), _MOST) - 1)]
    for other in others:
        other.start()
    run()
    for other in others:
        other.join()
    if failed:
        raise failed[min(failed)]


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
