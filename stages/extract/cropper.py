"""Make the units of a crop cache with worker processes.

Workers crop ahead (dlib holds Python's lock, so threads would not help);
crops come back in the order of the rows and are written a unit at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError
from cache.parts import Parts
from cache.reader import Cache
from stages.extract.crop import CropWork, sample_columns
from stages.extract.faces import Crop, CropSettings, Status, Task, crop_image
from stages.extract.notes import crop_note
from stages.extract.source import CropUnit

Tick = Callable[[int], None]
"""Called with the number of rows that were just done."""

_TOGETHER = 8
"""Images that a worker takes at a time."""
_FEW = 32
"""So few images are not worth starting processes for."""


class Cropper:
    """Makes the units of a crop cache, and knows those that are made.  A context manager."""

    def __init__(
        self,
        work: CropWork,
        parts: Parts,
        *,
        workers: int,
        tick: Tick,
        again: Cache | None = None,
    ) -> None:
        """`again`: take everything from this cache but what failed in it."""
        self.work, self.parts, self.plan = work, parts, parts.plan
        self._workers, self._tick = workers, tick
        self._kept = Kept(again) if again is not None else None
        self._pool: ProcessPoolExecutor | None = None
        self.made = 0
        """Images cropped by this run."""

    def __enter__(self) -> Cropper:
        self.parts.start(self.work.rows())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """Give up what is not begun; whoever waits for it gets an error."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def split(self) -> NDArray[np.uint8]:
        """Column `split` of the cache to be."""
        split: NDArray[np.uint8] = sample_columns(self.work.rows(), self.plan.classes)["split"]
        return split

    def units(self, wanted: Sequence[int]) -> Iterator[CropUnit]:
        """These units in order, made where they are missing."""
        todo = set(self.parts.todo(wanted))
        crops = self._crops(row for unit in wanted if unit in todo for row in self._fresh(unit))
        for unit in wanted:
            if unit in todo:
                pixels, note = self._make(unit, crops)
                self.parts.write(unit, pixels, note)
                status = note["status"]
            else:
                pixels, status = self.parts.read(unit), crop_note(self.parts, unit).status
            yield CropUnit(unit, pixels, np.array(status, dtype=np.uint8))

    def _fresh(self, unit: int) -> list[int]:
        """The rows of a unit that must be cropped."""
        rows = self.plan.rows_of(unit)
        return [row for row in rows if self._kept is None or self._kept.failed(row)]

    def _make(self, unit: int, crops: Iterator[Crop]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        rows, fresh = self.plan.rows_of(unit), self._fresh(unit)
        made = self._kept.crops(rows) if self._kept is not None else {}
        for row in fresh:
            made[row] = next(crops)
            self._tick(1)
        self.made += len(fresh)
        self._tick(len(rows) - len(fresh))
        return packed([made[row] for row in rows])

    def _crops(self, rows: Iterable[int]) -> Iterator[Crop]:
        """The crops of these rows, in their order."""
        samples, digests = self.work.dataset.samples, self.work.digests
        tasks = [Task(samples[row].image, digests[row], samples[row].box) for row in rows]
        trivial = self.work.settings.face_crop == "off" and not any(
            isinstance(task.image, Path) for task in tasks
        )
        if self._workers <= 1 or len(tasks) < _FEW or trivial:
            for task in tasks:
                yield crop_image(task, self.work.settings)
            return
        yield from self._pooled(tasks)

    def _pooled(self, tasks: list[Task]) -> Iterator[Crop]:
        """By worker processes, never more than about two units ahead."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_leave_with_parent,
            )
        ahead = max(2 * self._workers, 2 * self.plan.unit_rows // _TOGETHER)
        waiting: deque[Future[list[Crop]]] = deque()
        for start in range(0, len(tasks), _TOGETHER):
            chunk = tasks[start : start + _TOGETHER]
            with ctrl_c_held_back():  # a process may be started by this
                waiting.append(self._pool.submit(_crop_all, chunk, self.work.settings))
            if len(waiting) > ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def packed(crops: Sequence[Crop]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """The pixels uint8 (k, size, size, 3) of a unit, and its note."""
    note = {
        "status": [int(crop.status) for crop in crops],
        "box": [list(crop.box) for crop in crops],
        "reason": [crop.reason for crop in crops],
    }
    return np.stack([crop.pixels for crop in crops]), note


def _crop_all(tasks: list[Task], settings: CropSettings) -> list[Crop]:
    return [crop_image(task, settings) for task in tasks]


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """What is started in here never sees Ctrl-C, which a terminal sends to all processes:
    the parent decides what it means."""
    resource_tracker.ensure_running()  # its start, with the first process, would let it through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_with_parent() -> None:
    """A killed parent cannot stop its workers; each waits for its end in a thread."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Kept:
    """What a finished cache holds already."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._status, self._box = cache.side("status"), cache.side("box")
        self._reasons = [str(row.get("reason", "")) for row in cache.lines()]
        if not np.isin(self._status, list(Status)).all():
            raise CacheDamagedError(f"{cache.path} has rows of a status that there is none of.")

    def failed(self, row: int) -> bool:
        return bool(self._status[row] == Status.FAILED)

    def crops(self, rows: range) -> dict[int, Crop]:
        pixels = self._cache.bulk_rows(rows.start, rows.stop)
        return {
            row: Crop(
                pixels[row - rows.start],
                Status(int(self._status[row])),
                tuple(self._box[row].tolist()),
                self._reasons[row],
            )
            for row in rows
        }
