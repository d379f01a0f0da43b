"""How stage one is run: nothing in here decides a value in a cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.errors import Refused
from pipeline.console import Bars, Tick, say

if TYPE_CHECKING:
    from cache.parts import Parts

Shard = tuple[int, int]
"""(i, n): every n-th unit of work, from the i-th on."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Dask:
    """--executor dask."""

    scheduler: str | None = None
    """Its address, or the file that says it; None: a cluster on this machine, for this run."""
    workers: int | None = None
    """Size of that; None: one a core, or one a GPU."""


@dataclass(frozen=True)
class How:
    workers: int
    device: str = "cpu"
    batch_size: int = 256
    overwrite: bool = False
    shard: Shard | None = None
    retry_failed: bool = False
    download: bool = False
    dask: Dask | None = None
    """None: worker processes of this run."""

    def units(self, parts: Parts) -> list[int]:
        """The units that this run is for."""
        index, count = self.shard or (0, 1)
        return [unit for unit in parts.plan.units if unit % count == index]


def parse_shard(text: str | None) -> Shard | None:
    """
    >>> parse_shard("0/4")
    (0, 4)

    Raises:
        Refused: not i/n with 0 <= i < n.
    """
    if text is None:
        return None
    first, slash, last = text.partition("/")
    if not (slash and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise Refused(f"--shard must be i/n with i from 0 to n-1, such as 0/4, got {text!r}.")
    return int(first), int(last)


EXECUTORS = ("process", "dask")


def parse_executor(
    executor: str,
    scheduler: str | None,
    workers: int | None,
    *,
    size: str = "--workers",
    shard: str | None = None,
) -> Dask | None:
    """What --executor, --dask-scheduler and `size`, which gives `workers`, say together.

    None: process.

    Raises:
        Refused: another executor, or options that contradict each other.
    """
    if executor not in EXECUTORS:
        raise Refused(f"--executor must be {' or '.join(EXECUTORS)}, got {executor!r}.")
    if executor == "process":
        if scheduler is not None:
            raise Refused("--dask-scheduler is for --executor dask: add that, or leave it out.")
        return None
    if shard is not None:
        raise Refused(
            "--shard divides the work among jobs that know nothing of each other, --executor dask "
            "among workers that a scheduler knows: leave one of them out."
        )
    if scheduler is not None and workers is not None:
        raise Refused(
            f"{size} is the size of a cluster of this machine; that of --dask-scheduler has its "
            "own workers: leave one of them out."
        )
    return Dask(scheduler, workers)


def bar(shown: Bars, title: str, parts: Parts, units: Sequence[int], todo: Sequence[int]) -> Tick:
    """A bar over the images of `units`, of which those not in `todo` are done."""

    def count(some: Sequence[int]) -> int:
        return sum(len(parts.plan.rows_of(unit)) for unit in some)

    return shown.add(title, count(units), "images", before=count(units) - count(todo))


@contextmanager
def tidy(parts: Parts, how: How) -> Iterator[None]:
    """A refusal before the first unit leaves nothing behind, unless other jobs may be there."""
    try:
        yield
    except Refused:
        if how.shard is None:
            parts.discard_if_empty()
        raise


def note_others(parts: Parts) -> None:
    """Work with other settings is kept, and takes room: whoever wants it gone must say so."""
    from cache.schema import scratch_folders

    for folder in scratch_folders(parts.out):
        if folder != parts.scratch:
            say(f"Note: unfinished work with other settings is kept in {folder}.")
