"""Learn the tasks in order, evaluate after each; knows no strategy by name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.errors import Refused
from stages.train import metrics
from stages.train.scenario import Scenario, Task, average_floor, majority_floor
from stages.train.strategy import Schedule, Strategy
from stages.train.view import Data, TaskView

_EVALUATION_ROWS = 4096


@dataclass(frozen=True)
class Outcome:
    """One seed's run."""

    accuracy_matrix: NDArray[np.float64]
    """R, (T, T), NaN where not evaluated."""
    untrained: NDArray[np.float64]
    """(T,) accuracy before any learning."""
    train_seconds: float
    """Wall seconds inside `learn`, evaluation excluded."""
    memory: dict[str, int]
    """Bytes by kind, after the last task."""


def run(strategy: Strategy, data: Data, scenario: Scenario) -> Outcome:
    """Learn and evaluate.  The R matrix of a joint strategy has its last row only."""
    tasks = scenario.tasks
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    untrained = _evaluate(strategy, data, scenario, len(tasks))
    steps: dict[Schedule, list[tuple[Task, ...]]] = {
        "sequential": [(task,) for task in tasks],
        "cumulative": [tasks[: k + 1] for k in range(len(tasks))],
        "joint": [tasks],
    }
    seconds = 0.0
    for step in steps[strategy.schedule]:
        started = time.perf_counter()
        strategy.learn(TaskView(data, step))
        if data.latents.is_cuda:
            torch.cuda.synchronize()
        seconds += time.perf_counter() - started
        learnt = step[-1].index + 1
        matrix[learnt - 1] = _evaluate(strategy, data, scenario, learnt)
    return Outcome(matrix, untrained, seconds, strategy.memory())


def _evaluate(
    strategy: Strategy, data: Data, scenario: Scenario, learnt: int
) -> NDArray[np.float64]:
    """Accuracy on each task's test rows when the first `learnt` tasks were met, (T,).

    Class-incrementally only classes met so far can be answered, so a task
    that was not met has no meaningful accuracy: NaN.
    """
    seen = range(max(task.columns.stop for task in scenario.tasks[:learnt]))
    return np.array(
        [
            _accuracy(strategy, data, task, task.columns if scenario.name == "task" else seen)
            if scenario.name != "class" or task.index < learnt
            else np.nan
            for task in scenario.tasks
        ]
    )


def _accuracy(strategy: Strategy, data: Data, task: Task, answers: range) -> float:
    rows = torch.from_numpy(task.test_rows).to(data.targets.device)
    right = 0
    for part in torch.split(rows, _EVALUATION_ROWS):
        logits = strategy.logits(data.latents[part])[:, answers.start : answers.stop]
        if not torch.isfinite(logits).all():
            raise Refused("Training diverged: the network answers NaN or infinity. Lower --lr.")
        right += int((logits.argmax(1) + answers.start == data.targets[part]).sum())
    return right / len(rows)


def figures(outcome: Outcome, scenario: Scenario) -> dict[str, Any]:
    """One entry of `runs` in metrics.json: fractions, seconds, bytes; None where undefined."""
    r = outcome.accuracy_matrix
    return {
        "accuracy_matrix": [[_number(v) for v in row] for row in r],
        "untrained_accuracy": [_number(v) for v in outcome.untrained],
        "average_accuracy": metrics.average_accuracy(r),
        "forgetting": _number(metrics.forgetting(r)),
        "bwt": _number(metrics.backward_transfer(r)),
        "fwt": _number(metrics.forward_transfer(r, outcome.untrained)),
        "majority_floor": average_floor(scenario),
        "majority_floor_by_task": [majority_floor(scenario, task) for task in scenario.tasks],
        "train_seconds": round(outcome.train_seconds, 3),
        "memory_bytes": outcome.memory,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
