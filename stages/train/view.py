"""What a strategy may see: the training rows of what it is learning now, and no other."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.train.scenario import Task

PART = 1024
"""Rows that are read from disk together where all are to be seen once."""
_AT_A_TIME = 256
"""Rows that are copied out of memory for that: they stay in the processor's cache, which makes an
answer to 8192 rows of 4096 values take 77 ms instead of 136, and 4 MB instead of 67."""


@dataclass(frozen=True)
class Batch:
    """B rows."""

    latents: Tensor
    """float32 (B, D)."""
    targets: Tensor
    """int64 (B,), the output that is right."""
    tasks: Tensor
    """int64 (B,), the task that each row belongs to."""
    crops: Tensor | None = None
    """uint8 (B, S, S, 3) RGB; only for strategies that ask for them."""

    def pictures(self) -> Tensor:
        """The crops.

        Raises:
            ValueError: there are none: the strategy does not name the column.
        """
        if self.crops is None:
            raise ValueError('this strategy reads crops without "crops" in its columns')
        return self.crops


@dataclass(frozen=True)
class Stretch:
    """What comes next of passes over some rows, in the order of its visits."""

    positions: Tensor
    """int64 (n,), in main memory: which of those rows."""
    places: Tensor
    """int64 (n,), beside `latents`: where in it the latent of each is."""
    latents: Tensor
    """float32 (m, D), at hand."""


class Source(Protocol):
    """All rows of a cache: in memory (`Data`), or left on disk (disk.OnDisk)."""

    @property
    def targets(self) -> Tensor:
        """int64 (N,), on the training device."""

    @property
    def crops(self) -> Tensor | None:
        """uint8 (N, S, S, 3), in main memory whatever the device."""

    @property
    def dim(self) -> int:
        """D, the length of a latent."""

    def read(self, rows: Tensor) -> Tensor:
        """Latents float32 (n, D), on the training device, of rows int64 (n,), in main memory."""

    def once(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Each of the rows once, part by part: (positions in `rows`, latents as `read`, which hold
        until the next part is asked for)."""

    def passes(
        self, rows: Tensor, visits: int, generator: torch.Generator
    ) -> Generator[Stretch, None, None]:
        """Passes over the rows, one after the other, each in an order of its own; at least so
        many visits in all."""


@dataclass(frozen=True)
class Data:
    """The resident cache: all rows in memory."""

    latents: Tensor
    """float32 (N, D), on the training device or in main memory."""
    targets: Tensor
    """int64 (N,), on the training device."""
    crops: Tensor | None = None
    """uint8 (N, S, S, 3), in main memory whatever the device."""

    @property
    def dim(self) -> int:
        return self.latents.shape[1]

    def read(self, rows: Tensor) -> Tensor:
        return gathered(self.latents, sent(rows, self.latents.device), self.targets.device)

    def once(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        near = self.latents.device == self.targets.device
        # One room for all parts: the allocator would seek another for each.
        room = self.latents.new_empty(min(_AT_A_TIME, len(rows)) if near else 0, self.dim)
        for positions in torch.split(torch.arange(len(rows)), _AT_A_TIME):
            if near:
                part, places = room[: len(positions)], sent(rows[positions], room.device)
                yield positions, torch.index_select(self.latents, 0, places, out=part)
            else:
                yield positions, self.read(rows[positions])

    def passes(
        self, rows: Tensor, visits: int, generator: torch.Generator
    ) -> Generator[Stretch, None, None]:
        """Each pass is one stretch, and one permutation, moved to the device at once."""
        del visits
        while True:
            order = torch.randperm(len(rows), generator=generator)
            yield Stretch(order, sent(rows[order], self.latents.device), self.latents)


class TaskView:
    """The training rows of one step of learning: one task, or several at once (joint).

    Positions 0 .. len-1 are all there is; nothing of another task can be
    reached from here.
    """

    def __init__(self, data: Source, tasks: tuple[Task, ...]) -> None:
        self.tasks = tasks
        self.__data = data
        self.__rows, self.__task_of = _rows_of(tasks, [t.train_rows for t in tasks])
        self.__held_out = _rows_of(tasks, [t.validation_rows for t in tasks])
        self.seen = range(max(task.columns.stop for task in tasks))
        """Outputs of all classes met so far, this step included."""

    def __len__(self) -> int:
        return len(self.__rows)

    @property
    def index(self) -> int:
        """0-based number of the (last) task being learnt."""
        return self.tasks[-1].index

    def answers(self) -> tuple[Tensor, Tensor]:
        """(targets, tasks) of all rows, int64 (len,) each, in main memory."""
        targets = self.__data.targets
        return targets[sent(self.__rows, targets.device)].cpu(), self.__task_of

    def take(self, positions: Tensor) -> Batch:
        """The rows at these positions (int64 in [0, len), on the CPU; any order, repeats allowed).

        Raises:
            IndexError: a position outside.
        """
        if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < len(self):
            raise IndexError(f"positions must lie in [0, {len(self)})")
        rows = self.__rows[positions]
        return _batch(self.__data, self.__data.read(rows), rows, self.__task_of[positions])

    def held_out(self) -> Iterator[Batch]:
        """The validation rows of what is being learnt, part by part, in any order; none unless
        --validation put some aside."""
        rows, task_of = self.__held_out
        for positions, latents in self.__data.once(rows):
            yield _batch(self.__data, latents, rows[positions], task_of[positions])

    def batches(self, count: int, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """`count` batches of exactly `size` rows.

        The rows are shuffled anew for each pass, and a pass visits each row
        once; passes follow one another without a gap, so a batch may hold the
        end of one and the beginning of the next.  A task smaller than a batch
        is therefore no special case: its rows appear more than once in one.
        """
        stretches = self.__data.passes(self.__rows, count * size, generator)
        try:
            visits = None
            for _ in range(count):
                parts: list[Batch] = []
                need = size
                while need:
                    if not visits:
                        visits = None  # its latents go before the next ones come
                        visits = _Visits(self.__data, next(stretches), self.__rows, self.__task_of)
                    parts.append(visits.take(need))
                    need -= len(parts[-1].targets)
                yield parts[0] if len(parts) == 1 else _joined(parts)
        finally:
            stretches.close()


class _Visits:
    """A stretch with all that goes with its rows; on a GPU nothing in `take` waits for it."""

    def __init__(self, data: Source, stretch: Stretch, rows: Tensor, task_of: Tensor) -> None:
        device = data.targets.device
        self._data, self._stretch = data, stretch
        self._rows = rows[stretch.positions]
        self._targets = data.targets[sent(self._rows, device)]
        self._tasks = sent(task_of[stretch.positions], device)
        self._taken = 0

    def __len__(self) -> int:
        """Still to come."""
        return len(self._rows) - self._taken

    def take(self, most: int) -> Batch:
        """The next ones."""
        span = slice(self._taken, self._taken + min(most, len(self)))
        self._taken = span.stop
        device = self._targets.device
        latents = gathered(self._stretch.latents, self._stretch.places[span], device)
        crops = _crops(self._data, self._rows[span])
        return Batch(latents, self._targets[span], self._tasks[span], crops)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """On the device; to a GPU from pinned memory, so that nobody waits for the copy."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def gathered(latents: Tensor, places: Tensor, device: torch.device) -> Tensor:
    """latents[places] on the device; `places` int64 (n,) are where `latents` is."""
    if device.type != "cuda" or latents.is_cuda:
        return latents.index_select(0, places).to(device)
    out = torch.empty(len(places), latents.shape[1], dtype=latents.dtype, pin_memory=True)
    torch.index_select(latents, 0, places, out=out)
    return out.to(device, non_blocking=True)


def _rows_of(tasks: tuple[Task, ...], rows: list[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """(rows in the cache, the task of each), int64, in main memory."""
    tasks_of = [torch.full((len(r),), t.index) for r, t in zip(rows, tasks, strict=True)]
    return torch.from_numpy(np.concatenate(rows)), torch.cat(tasks_of)


def _batch(data: Source, latents: Tensor, rows: Tensor, tasks: Tensor) -> Batch:
    device = data.targets.device
    targets = data.targets[sent(rows, device)]
    return Batch(latents, targets, sent(tasks, device), _crops(data, rows))


def _crops(data: Source, rows: Tensor) -> Tensor | None:
    return None if data.crops is None else sent(data.crops[rows], data.targets.device)


def _joined(parts: list[Batch]) -> Batch:
    def column(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    crops = None if parts[0].crops is None else column("crops")
    return Batch(column("latents"), column("targets"), column("tasks"), crops)
