"""Cut a labelled set into tasks: which outputs, which rows.

Task-incremental: the task is known at test time, and the answer is chosen
among its classes.  Class-incremental: it is chosen among all classes seen so
far.  Domain-incremental: every task has the same outputs, "the first class of
its task", "the second" and so on; which task it is need not be told.
(van de Ven & Tolias, "Three scenarios for continual learning", 2019, section 2.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused

Name = Literal["task", "class", "domain"]


@dataclass(frozen=True)
class Task:
    """A set of classes with its rows (positions in the cache, int64)."""

    index: int
    classes: tuple[str, ...]
    columns: range
    """The outputs ("head") that belong to these classes."""
    train_rows: NDArray[np.int64]
    test_rows: NDArray[np.int64]
    """What accuracies are of: the test split, or validation rows where those were asked for."""
    validation_rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Training rows put aside for choosing (hold_out); in neither of the others' learning."""


@dataclass(frozen=True)
class Scenario:
    """The tasks in the order in which they are learnt."""

    name: Name
    tasks: tuple[Task, ...]
    class_order: tuple[str, ...]
    """The classes in the order in which they are met; output k answers `class_order[k]`
    (domain-incrementally: the k-th class of the task)."""
    targets: NDArray[np.int64]
    """(N,) for each row of the cache the output that is right."""

    @property
    def outputs(self) -> int:
        """Of the network."""
        return max(task.columns.stop for task in self.tasks)

    @property
    def starts(self) -> list[int]:
        """Where each task's classes begin in `class_order`."""
        sizes = [len(task.classes) for task in self.tasks]
        return [sum(sizes[:k]) for k in range(len(sizes))]

    @property
    def single_class_tasks(self) -> list[int]:
        """Tasks in which there is nothing to choose (task-incremental: always right)."""
        return [task.index for task in self.tasks if len(task.classes) == 1]


def make_scenario(
    name: Name,
    classes: Sequence[str],
    labels: NDArray[Any],
    train_rows: NDArray[np.int64],
    test_rows: NDArray[np.int64],
    groups: Sequence[tuple[str, ...]],
    validation_rows: NDArray[np.int64] | None = None,
) -> Scenario:
    """Rows to tasks.  `labels` (N,) index `classes`; `groups` are the tasks' classes, and
    rows of classes in no group are in no task.

    Raises:
        Refused: a class without a training or test row.
    """
    order = tuple(name for group in groups for name in group)
    place = np.full(len(classes), -1, dtype=np.int64)  # label -> position in the order
    for position, called in enumerate(order):
        place[classes.index(called)] = position
    met = place[labels.astype(np.int64)]
    for rows, split in ((train_rows, "training"), (test_rows, "test")):
        empty = sorted(set(range(len(order))) - set(met[rows].tolist()))
        if empty:
            names = ", ".join(order[k] for k in empty)
            raise Refused(f"There is no {split} row of {names}: every class needs both.")
    aside = np.empty(0, np.int64) if validation_rows is None else validation_rows
    tasks, targets, start = [], met.copy(), 0
    for index, group in enumerate(groups):
        inside = (met >= start) & (met < start + len(group))
        first = 0 if name == "domain" else start
        targets[inside] += first - start
        columns = range(first, first + len(group))
        rows_of = [rows[inside[rows]] for rows in (train_rows, test_rows, aside)]
        tasks.append(Task(index, group, columns, *rows_of))
        start += len(group)
    return Scenario(name, tuple(tasks), order, targets)


def majority_floor(scenario: Scenario, task: Task) -> float:
    """Share of the most frequent class in the task's test rows, in (0, 1]: what the best
    constant answer within the task gets right."""
    counts = np.bincount(scenario.targets[task.test_rows])
    return float(counts.max() / counts.sum())


def average_floor(scenario: Scenario) -> float:
    """Average accuracy over tasks of the best constant answer.

    Task-incremental: one constant a task, the mean of the tasks' floors.
    Class- and domain-incremental: one constant for all.
    """
    if scenario.name == "task":
        return float(np.mean([majority_floor(scenario, task) for task in scenario.tasks]))
    shares = [
        np.bincount(scenario.targets[task.test_rows], minlength=scenario.outputs)
        / len(task.test_rows)
        for task in scenario.tasks
    ]
    return float(np.mean(shares, axis=0).max())
