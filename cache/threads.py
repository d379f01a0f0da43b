"""Work in order, on all cores: of what lets others run meanwhile (reading, checksums, numpy)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable[[T], object], items: Sequence[T], most: int | None = None) -> None:
    """`work` of every item, begun in their order, by at most `most` threads.

    After an exception no further item is begun; raised is that of the first item that has one,
    as one thread alone would.
    """
    threads = min(most or cores(), len(items))
    failed: dict[int, BaseException] = {}
    waiting = iter(enumerate(items))  # shared: one step of it is never cut in two

    def run() -> None:
        for place, item in waiting:
            if failed:
                return
            try:
                work(item)
            except BaseException as error:
                failed[place] = error

    if threads <= 1:
        run()
    else:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(threads):
                pool.submit(run)
    if failed:
        raise failed[min(failed)]
