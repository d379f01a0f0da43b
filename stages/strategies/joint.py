"""Joint training: all tasks at once, as if nothing had to be forgotten.

Idea: the upper baseline, not continual learning.  As many iterations as all
tasks together would get one by one, so compute is equal.
Cost: all data at once.
Bias: batches are drawn from all rows, so a large task weighs more.
"""

from __future__ import annotations

from typing import ClassVar

from stages.strategies import none
from stages.train.strategy import Schedule
from stages.train.view import TaskView

Options = none.Options


class Method(none.Method):
    schedule: ClassVar[Schedule] = "joint"

    def iterations(self, task: TaskView) -> int:
        return self.setup.iters * len(task.tasks)
