"""Cut a labelled set into tasks: which classes, which rows.

Task-incremental: the task is known at test time, and the answer is chosen
among its classes.  Class-incremental: it is chosen among all classes seen so
far.  (van de Ven & Tolias, "Three scenarios for continual learning".)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused

Name = Literal["task", "class"]


@dataclass(frozen=True)
class Task:
    """A set of classes with its rows (positions in the cache, int64)."""

    index: int
    classes: tuple[str, ...]
    columns: range
    """The outputs ("head") that belong to these classes."""
    train_rows: NDArray[np.int64]
    test_rows: NDArray[np.int64]


@dataclass(frozen=True)
class Scenario:
    """The tasks in the order in which they are learnt."""

    name: Name
    tasks: tuple[Task, ...]
    class_order: tuple[str, ...]
    """Output k answers `class_order[k]`."""
    targets: NDArray[np.int64]
    """(N,) for each row of the cache the output that is right."""

    @property
    def single_class_tasks(self) -> list[int]:
        """Tasks in which there is nothing to choose (task-incremental: always right)."""
        return [task.index for task in self.tasks if len(task.classes) == 1]


def cut_classes(classes: Sequence[str], tasks: int, *, uneven: bool) -> list[tuple[str, ...]]:
    """Groups of consecutive classes, one a task; earlier tasks take the remainder.

    >>> cut_classes("abcd", 2, uneven=False)
    [('a', 'b'), ('c', 'd')]

    Raises:
        Refused: more tasks than classes; or groups of unequal size without `uneven`.
    """
    if not 1 <= tasks <= len(classes):
        raise Refused(
            f"{tasks} tasks cannot be made of {len(classes)} classes ({', '.join(classes)}): "
            f"--tasks must lie between 1 and {len(classes)}."
        )
    base, rest = divmod(len(classes), tasks)
    groups, start = [], 0
    for index in range(tasks):
        stop = start + base + (index < rest)
        groups.append(tuple(classes[start:stop]))
        start = stop
    if rest and not uneven:
        each = "; ".join(f"task {k + 1}: {', '.join(group)}" for k, group in enumerate(groups))
        even = [n for n in range(1, len(classes) + 1) if len(classes) % n == 0]
        alone = " A task of one class is always answered right." if base == 1 else ""
        raise Refused(
            f"{len(classes)} classes do not divide into {tasks} tasks. Each would get: {each}."
            f"{alone} Add --uneven to accept that, or choose --tasks "
            f"{' or '.join(str(n) for n in even)}."
        )
    return groups


def make_scenario(
    name: Name,
    classes: Sequence[str],
    labels: NDArray[Any],
    train_rows: NDArray[np.int64],
    test_rows: NDArray[np.int64],
    groups: Sequence[tuple[str, ...]],
) -> Scenario:
    """Rows to tasks.  `labels` (N,) index `classes`; `groups` are the tasks' classes.

    Raises:
        Refused: a class without a training or test row.
    """
    order = tuple(name for group in groups for name in group)
    position = {label: order.index(name) for label, name in enumerate(classes) if name in order}
    targets = np.array([position.get(int(label), -1) for label in labels], dtype=np.int64)
    for rows, split in ((train_rows, "training"), (test_rows, "test")):
        empty = sorted(set(range(len(order))) - set(targets[rows].tolist()))
        if empty:
            names = ", ".join(order[k] for k in empty)
            raise Refused(f"There is no {split} row of {names}: every class needs both.")
    tasks, start = [], 0
    for index, group in enumerate(groups):
        columns = range(start, start + len(group))
        start += len(group)
        inside = (targets >= columns.start) & (targets < columns.stop)
        tasks.append(
            Task(
                index, group, columns, train_rows[inside[train_rows]], test_rows[inside[test_rows]]
            )
        )
    return Scenario(name, tuple(tasks), order, targets)


def majority_floor(scenario: Scenario, task: Task) -> float:
    """Share of the most frequent class in the task's test rows, in (0, 1]: what the best
    constant answer within the task gets right."""
    counts = np.bincount(scenario.targets[task.test_rows])
    return float(counts.max() / counts.sum())


def average_floor(scenario: Scenario) -> float:
    """Average accuracy over tasks of the best constant answer.

    Task-incremental: one constant a task, the mean of the tasks' floors.
    Class-incremental: one constant for all, right in a single task.
    """
    floors = [majority_floor(scenario, task) for task in scenario.tasks]
    if scenario.name == "task":
        return float(np.mean(floors))
    return max(floors) / len(floors)
