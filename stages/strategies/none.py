"""No replay: learn each task, do nothing about forgetting.

Idea: the lower baseline.  With a frozen root and a head for each task there is
little to forget, and in the LGR authors' own unpublished runs it is as good as
most of their methods; no table is complete without it.
Cost: one step of the top an iteration; no memory.
Bias: none known.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.train.strategy import Setup, TopLearner
from stages.train.view import TaskView


@dataclass(frozen=True)
class Options:
    """No options."""


class Method(TopLearner):
    def __init__(self, setup: Setup, options: Options) -> None:
        del options
        super().__init__(setup)

    def learn(self, task: TaskView) -> None:
        step = self.real_step(task)
        for batch in self.iterate(task):
            with self.setup.watch.phase("solver"):
                self.tell(step(batch.latents, batch.targets, batch.tasks))
