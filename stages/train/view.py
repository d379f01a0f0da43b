"""What a strategy may see: the training rows of what it is learning now, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.train.scenario import Task


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
class Data:
    """The resident cache: all rows, on the training device."""

    latents: Tensor
    """float32 (N, D)."""
    targets: Tensor
    """int64 (N,)."""
    crops: Tensor | None = None
    """uint8 (N, S, S, 3), in main memory whatever the device."""


class TaskView:
    """The training rows of one step of learning: one task, or several at once (joint).

    Positions 0 .. len-1 are all there is; nothing of another task can be
    reached from here.
    """

    def __init__(self, data: Data, tasks: tuple[Task, ...]) -> None:
        self.tasks = tasks
        self.__data = data
        self.__rows, self.__task_of = _rows_of(data, tasks, [t.train_rows for t in tasks])
        self.__held_out = _rows_of(data, tasks, [t.validation_rows for t in tasks])
        self.seen = range(max(task.columns.stop for task in tasks))
        """Outputs of all classes met so far, this step included."""

    def __len__(self) -> int:
        return len(self.__rows)

    @property
    def index(self) -> int:
        """0-based number of the (last) task being learnt."""
        return self.tasks[-1].index

    def take(self, positions: Tensor) -> Batch:
        """The rows at these positions (int64 in [0, len), on the CPU; any order, repeats allowed).

        Raises:
            IndexError: a position outside.
        """
        if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < len(self):
            raise IndexError(f"positions must lie in [0, {len(self)})")
        positions = positions.to(self.__rows.device)
        return _take(self.__data, self.__rows[positions], self.__task_of[positions])

    def held_out(self) -> Batch:
        """The validation rows of what is being learnt; none unless --validation put some aside."""
        return _take(self.__data, *self.__held_out)

    def batches(self, count: int, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """`count` batches of exactly `size` rows.

        The rows are shuffled anew for each pass, and a pass visits each row
        once; passes follow one another without a gap, so a batch may hold the
        end of one and the beginning of the next.  A task smaller than a batch
        is therefore no special case: its rows appear more than once in one.
        """
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(count):
            while len(order) < size:
                order = torch.cat([order, torch.randperm(len(self), generator=generator)])
            yield self.take(order[:size])
            order = order[size:]


def _rows_of(
    data: Data, tasks: tuple[Task, ...], rows: list[NDArray[np.int64]]
) -> tuple[Tensor, Tensor]:
    """(rows in the cache, the task of each), int64, on the training device."""
    device = data.targets.device
    tasks_of = [torch.full((len(r),), t.index) for r, t in zip(rows, tasks, strict=True)]
    return torch.from_numpy(np.concatenate(rows)).to(device), torch.cat(tasks_of).to(device)


def _take(data: Data, rows: Tensor, tasks: Tensor) -> Batch:
    crops = None
    if data.crops is not None:
        crops = data.crops[rows.to(data.crops.device)].to(rows.device)
    return Batch(data.latents[rows], data.targets[rows], tasks, crops)
