"""Work in a process of its own, which has nothing in memory but what was imported."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """By a child."""

    seconds: float
    cpu: float
    """Seconds on processors."""
    grown: int
    """Bytes that its resident memory grew by, at the most."""


def spent(work: Callable[[], object]) -> Spent:
    """Run `work` in a fork of this process.  Raises RuntimeError: it failed."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        before, started, cpu = peak(), time.perf_counter(), time.process_time()
        work()
        seconds = time.perf_counter() - started, time.process_time() - cpu
        theirs.send(Spent(*seconds, peak() - before))

    child = context.Process(target=run)
    child.start()
    theirs.close()
    try:
        found: Spent = ours.recv()
    except EOFError:
        raise RuntimeError("the work in a child process failed: see above") from None
    finally:
        child.join()
    return found


def peak() -> int:
    """Resident bytes of this process at the most, so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
