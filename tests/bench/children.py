"""Work in a process of its own, which has nothing in memory but what was imported."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spent:
    """By a child."""

    seconds: float
    cpu: float
    """Seconds on processors."""
    grown: int
    """Bytes that its resident memory grew by, at the most."""


def spent(work: Callable[[], object], *, first: Callable[[], object] | None = None) -> Spent:
    """What `work` takes in a child; `first` runs before it and is not counted."""
    return apart(partial(_measured, work, first))


def apart(work: Callable[[], T]) -> T:
    """What `work`, which can be pickled, returns in a process of its own, in which torch has
    started no thread and nobody has told the allocator what to keep.

    Raises:
        RuntimeError: it failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.bench.test_growth", "tests.bench.test_scale"])
    ours, theirs = context.Pipe()
    child = context.Process(target=_send, args=(work, theirs))
    child.start()
    theirs.close()
    try:
        found: T = ours.recv()
    except EOFError:
        raise RuntimeError("the work in a child process failed: see above") from None
    finally:
        child.join()
    return found


def _send(work: Callable[[], object], to: Connection) -> None:
    to.send(work())


def _measured(work: Callable[[], object], first: Callable[[], object] | None) -> Spent:
    if first is not None:
        first()
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    work()
    seconds = time.perf_counter() - started, time.process_time() - cpu
    return Spent(*seconds, peak() - before)


def peak() -> int:
    """Resident bytes of this process at the most, so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
