"""Work in a process of its own, which has nothing in memory but what was imported."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection


@dataclass(frozen=True)
class Spent:
    """By a child."""

    seconds: float
    cpu: float
    """Seconds on processors."""
    grown: int
    """Bytes that its resident memory grew by, at the most."""


def spent(work: Callable[[], object], *, first: Callable[[], object] | None = None) -> Spent:
    """Run `work`, which can be pickled, in a process in which torch has started no thread yet;
    `first` runs before it and is not counted.

    Raises:
        RuntimeError: it failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.bench.test_growth", "tests.bench.test_scale"])
    ours, theirs = context.Pipe()
    child = context.Process(target=_run, args=(work, first, theirs))
    child.start()
    theirs.close()
    try:
        found: Spent = ours.recv()
    except EOFError:
        raise RuntimeError("the work in a child process failed: see above") from None
    finally:
        child.join()
    return found


def _run(work: Callable[[], object], first: Callable[[], object] | None, to: Connection) -> None:
    if first is not None:
        first()
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    work()
    seconds = time.perf_counter() - started, time.process_time() - cpu
    to.send(Spent(*seconds, peak() - before))


def peak() -> int:
    """Resident bytes of this process at the most, so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
