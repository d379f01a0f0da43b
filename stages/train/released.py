"""The buffer of the LGR code as released (`--protocol released`), with what is wrong in it.

Its rule: every row of every batch is staged, so that a row drawn in three
passes is staged three times; once the stage is full each further row takes a
random place, so that late rows prevail.  When task t ends, S // t random rows
of the buffer give way to as many random rows of the stage.

Task-incrementally it forgets which task a row came from and teaches it, with
its label within its task, to the head of the first one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cache.errors import Refused
from stages.train.buffer import Form, Rows, last_in_each
from stages.train.strategy import Setup
from stages.train.view import Batch, TaskView


class Latest:
    """The buffer and its stage, each allocated once."""

    def __init__(self, size: int, form: Form, setup: Setup) -> None:
        self._form, self._setup = form, setup
        self._rows, self._stage = form.empty(size, setup.device), form.empty(size, setup.device)
        self._count = self._staged = 0
        first = setup.heads[0]
        if setup.scenario == "task" and max(map(len, setup.heads)) > len(first):
            raise Refused(
                "--protocol released teaches all stored rows to the first task's head, which has "
                f"{len(first)} outputs, but a later task has more classes. Put the largest task "
                "first (--class-order), or use --protocol corrected."
            )

    @property
    def stored(self) -> Rows:
        return self._rows[: self._count]

    @property
    def bytes(self) -> int:
        """Of what is stored; the stage is empty between tasks."""
        return self._count * self._form.bytes

    def saw(self, rows: Rows, stream: torch.Generator) -> None:
        rows = self._as_released(rows)
        size = len(self._stage)
        free = torch.arange(self._staged, min(size, self._staged + len(rows)))
        taken = torch.randint(size, (len(rows) - len(free),), generator=stream)
        self._staged += len(free)
        entering = last_in_each(torch.cat([free, taken]))
        self._stage.put(entering.slots, rows[entering.rows.to(rows.targets.device)])

    def _as_released(self, rows: Rows) -> Rows:
        if self._setup.scenario != "task":
            return rows
        starts = torch.tensor([head.start for head in self._setup.heads], device=rows.tasks.device)
        within = rows.targets - starts[rows.tasks]
        return Rows(rows.values, within + self._setup.heads[0].start, torch.zeros_like(rows.tasks))

    def close(
        self, task: TaskView, stored_as: Callable[[Batch], Rows], stream: torch.Generator
    ) -> None:
        del stored_as
        coming = min(len(self._rows) // (task.index + 1), self._staged)
        newest = torch.randperm(self._staged, generator=stream)[:coming]
        # Free places first, then those of random rows.
        free = torch.arange(self._count, min(self._count + coming, len(self._rows)))
        taken = torch.randperm(self._count, generator=stream)[: coming - len(free)]
        self._rows.put(torch.cat([free, taken]), self._stage[newest.to(self._stage.targets.device)])
        self._count += len(free)
        self._staged = 0

    def state(self) -> dict[str, Tensor]:
        return self.stored.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._count = self._rows.fill(state)
        self._staged = 0
