"""Learn the tasks in order, evaluate after each; knows no strategy by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.train.evaluation import Judged, judge
from stages.train.nearest import Arrays
from stages.train.recorder import Looked
from stages.train.scenario import Scenario, Task
from stages.train.strategy import Schedule, Strategy
from stages.train.view import Source, TaskView
from stages.train.watch import Watch

Accuracies = list[list[float]]
"""A row for each step of learning, a value for each task, NaN where not evaluated."""


@dataclass
class Progress:
    """How far a run has come: enough, with the strategy's state, to go on from there."""

    untrained: list[float] = field(default_factory=list)
    """Accuracy on each task before any learning; empty before that was asked."""
    rows: Accuracies = field(default_factory=list)
    also_rows: Accuracies = field(default_factory=list)
    """The same logits judged in the related scenario (evaluation.ALSO)."""
    seconds: list[float] = field(default_factory=list)
    """Wall seconds inside `learn`, evaluation excluded, of each step."""
    replay: list[dict[str, Any]] = field(default_factory=list)
    """What was replayed after each task but the last (recorder.Looked)."""
    shown: Arrays = field(default_factory=dict)
    """Of the last of these."""

    @property
    def steps(self) -> int:
        """Done."""
        return len(self.rows)


@dataclass(frozen=True)
class Outcome:
    """One seed's run."""

    accuracy_matrix: NDArray[np.float64]
    """R, (T, T), NaN where not evaluated."""
    also_matrix: NDArray[np.float64] | None
    """R in the related scenario."""
    untrained: NDArray[np.float64]
    """(T,) accuracy before any learning."""
    last: Judged
    """The answers at the end."""
    train_seconds: float
    """Wall seconds inside `learn`, evaluation excluded."""
    memory: dict[str, int]
    """Bytes by kind, after the last task."""
    macs: dict[str, int]
    """Multiply-accumulates of an iteration, by network."""
    replay: list[dict[str, Any]]
    """As Progress has it."""
    shown: Arrays


def learning_steps(schedule: Schedule, scenario: Scenario) -> list[tuple[Task, ...]]:
    """What is learnt at once, step by step."""
    tasks = scenario.tasks
    if schedule == "joint":
        return [tasks]
    if schedule == "cumulative":
        return [tasks[: k + 1] for k in range(len(tasks))]
    return [(task,) for task in tasks]


def run(
    strategy: Strategy,
    data: Source,
    scenario: Scenario,
    *,
    watch: Watch | None = None,
    progress: Progress | None = None,
    look: Callable[[Strategy, int], Looked | None] = lambda *_: None,
    after_step: Callable[[Progress, Task], None] = lambda *_: None,
) -> Outcome:
    """Learn and evaluate.  The R matrix of a joint strategy has its last row only.

    `progress`: steps that an earlier run has done, whose end `strategy` is in.  `look`: at what is
    replayed after so many tasks (recorder.Recorder), which changes nothing that is learnt.
    """
    watch = watch or Watch()
    progress = progress or Progress()
    steps = learning_steps(strategy.schedule, scenario)

    def ask(learnt: int) -> Judged:
        with watch.phase("evaluation"):
            return judge(strategy, data, scenario, learnt)

    if not progress.untrained:
        progress.untrained = ask(len(scenario.tasks)).accuracy.tolist()
    last = ask(len(scenario.tasks)) if progress.steps == len(steps) else None
    for step in steps[progress.steps :]:
        progress.seconds.append(_learn(strategy, data, step, watch))
        last = ask(step[-1].index + 1)
        progress.rows.append(last.accuracy.tolist())
        if last.also_accuracy is not None:
            progress.also_rows.append(last.also_accuracy.tolist())
        _tell(watch, step[-1], progress)
        with watch.phase("record"):
            looked = look(strategy, step[-1].index + 1)
        if looked is not None:
            progress.replay.append(looked.figures)
            progress.shown = looked.shown or {}
        after_step(progress, step[-1])
    if last is None:
        raise ValueError("there is no task to learn")
    return Outcome(
        _matrix(progress.rows, scenario),
        _matrix(progress.also_rows, scenario) if progress.also_rows else None,
        np.array(progress.untrained),
        last,
        sum(progress.seconds),
        strategy.memory(),
        strategy.macs(),
        progress.replay,
        progress.shown,
    )


def _learn(strategy: Strategy, data: Source, step: tuple[Task, ...], watch: Watch) -> float:
    """Wall seconds."""
    classes = [list(task.classes) for task in step]
    watch.event("learning", task=step[-1].index + 1, classes=classes)
    started = time.perf_counter()
    strategy.learn(TaskView(data, step))
    if data.targets.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _tell(watch: Watch, task: Task, progress: Progress) -> None:
    known = [value for value in progress.rows[-1][: task.index + 1] if not np.isnan(value)]
    watch.event(
        "learnt",
        task=task.index + 1,
        wall_seconds=round(progress.seconds[-1], 3),
        accuracy=float(np.mean(known)),
        accuracies=progress.rows[-1],
    )


def _matrix(rows: Accuracies, scenario: Scenario) -> NDArray[np.float64]:
    """(T, T): the rows that there are, the last one last."""
    tasks = len(scenario.tasks)
    matrix = np.full((tasks, tasks), np.nan)
    matrix[tasks - len(rows) :] = rows
    return matrix
