"""Cumulative training: each task together with all tasks before it.

Idea: what an unlimited buffer would allow, step by step: at task t the rows
of tasks 1..t are learnt, starting from the network of task t-1.  Unlike
`joint` it has an accuracy after every task, so its R matrix shows how much of
a drop is forgetting and how much is a harder problem.
Cost: all rows seen so far are kept; as many iterations a task as `none`.
Bias: batches are drawn from all rows, so with a fixed number of iterations
each task is seen less often than by `joint`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from stages.strategies import none
from stages.train.buffer import latent_form
from stages.train.strategy import Schedule, Setup
from stages.train.view import TaskView

Options = none.Options


class Method(none.Method):
    schedule: ClassVar[Schedule] = "cumulative"

    def __init__(self, setup: Setup, options: none.Options) -> None:
        super().__init__(setup, options)
        self._rows = 0

    def learn(self, task: TaskView) -> None:
        super().learn(task)
        self._rows = len(task)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"rows": torch.tensor(self._rows)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self._rows = int(state["rows"])

    def memory(self) -> dict[str, int]:
        return {"buffer": self._rows * latent_form(self.setup.dim).bytes}
