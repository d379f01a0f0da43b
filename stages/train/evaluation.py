"""What a strategy answers to test rows, judged in its scenario and in the related one.

Task- and class-incremental answers come from the same logits: the first may
choose among the classes of the row's own task, the second among all classes
seen so far (van de Ven & Tolias 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cache.errors import Refused
from stages.train.losses import head_mask
from stages.train.scenario import Scenario
from stages.train.strategy import Strategy
from stages.train.view import Source

Kind = Literal["task", "class", "domain"]
ALSO: dict[str, Kind] = {"task": "class", "class": "task"}
"""The scenario that the same logits answer too."""


@dataclass(frozen=True)
class Judged:
    """Answers to all M test rows, task by task, when some tasks were met."""

    answers: NDArray[np.int64]
    """(M,) output answered in the scenario; -1 where the row cannot be answered yet."""
    also: NDArray[np.int64] | None
    """(M,) in the related scenario."""
    accuracy: NDArray[np.float64]
    """(T,) on each task's test rows, NaN where there is no answer."""
    also_accuracy: NDArray[np.float64] | None


@dataclass(frozen=True)
class Asked:
    """The test rows of all tasks, one after the other."""

    rows: NDArray[np.int64]
    """(M,) positions in the cache."""
    tasks: NDArray[np.int64]
    """(M,)."""
    targets: NDArray[np.int64]
    """(M,) the output that is right."""


def asked_rows(scenario: Scenario) -> Asked:
    rows = np.concatenate([task.test_rows for task in scenario.tasks])
    tasks = np.concatenate([np.full(len(t.test_rows), t.index) for t in scenario.tasks])
    return Asked(rows, tasks.astype(np.int64), scenario.targets[rows])


def judge(strategy: Strategy, data: Source, scenario: Scenario, learnt: int) -> Judged:
    """Ask about every test row when the first `learnt` tasks (at least 1) were met.

    Class-incrementally only classes met so far can be answered, so a task
    that was not met has no meaningful accuracy: NaN.

    Raises:
        Refused: the network answers NaN or infinity.
    """
    asked = asked_rows(scenario)
    device = data.targets.device
    tasks = torch.from_numpy(asked.tasks).to(device)
    heads = head_mask([task.columns for task in scenario.tasks], scenario.outputs, device)
    seen = heads[:learnt].any(0)
    kinds: list[Kind] = [scenario.name]
    if scenario.name in ALSO:
        kinds.append(ALSO[scenario.name])
    answers = [torch.empty_like(tasks) for _ in kinds]
    for positions, latents in data.once(torch.from_numpy(asked.rows)):
        logits = strategy.logits(latents)
        del latents  # before the next ones come
        if not torch.isfinite(logits).all():
            raise Refused("Training diverged: the network answers NaN or infinity. Lower --lr.")
        places = positions.to(device)
        of = tasks[places]
        for kind, found in zip(kinds, answers, strict=True):
            allowed = heads[of] if kind == "task" else seen
            answer = logits.masked_fill(~allowed, -torch.inf).argmax(1)
            found[places] = answer.where(of < learnt, -1) if kind == "class" else answer
    given = [found.cpu().numpy() for found in answers]
    accuracies = [_accuracy(asked, one, len(scenario.tasks)) for one in given]
    if len(given) == 1:
        return Judged(given[0], None, accuracies[0], None)
    return Judged(given[0], given[1], accuracies[0], accuracies[1])


def _accuracy(asked: Asked, answers: NDArray[np.int64], tasks: int) -> NDArray[np.float64]:
    """(T,) share of right answers; NaN where a task has no answer."""
    right = np.bincount(asked.tasks, weights=answers == asked.targets, minlength=tasks)
    counts = np.bincount(asked.tasks, minlength=tasks)
    unanswered = np.bincount(asked.tasks, weights=answers < 0, minlength=tasks) > 0
    return np.where(unanswered, np.nan, right / counts)
