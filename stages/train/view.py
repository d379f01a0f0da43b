"""What a strategy may see: the training rows of what it is learning now, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
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


@dataclass(frozen=True)
class Data:
    """The resident cache: all rows, on the training device."""

    latents: Tensor
    """float32 (N, D)."""
    targets: Tensor
    """int64 (N,)."""


class TaskView:
    """The training rows of one step of learning: one task, or several at once (joint).

    Positions 0 .. len-1 are all there is; nothing of another task can be
    reached from here.
    """

    def __init__(self, data: Data, tasks: tuple[Task, ...]) -> None:
        self.tasks = tasks
        device = data.targets.device
        rows = [torch.from_numpy(task.train_rows) for task in tasks]
        self.__data = data
        self.__rows = torch.cat(rows).to(device)
        self.__task_of = torch.cat(
            [torch.full((len(r),), t.index) for r, t in zip(rows, tasks, strict=True)]
        ).to(device)
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
        rows = self.__rows[positions]
        data = self.__data
        return Batch(data.latents[rows], data.targets[rows], self.__task_of[positions])

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
