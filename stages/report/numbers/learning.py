"""What R and the last answers of a run say over its seeds: curves, means, drops, confusions.

Fractions.  A mean is None where a seed does not have the value: nothing is averaged over the
seeds that happen to have it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stages.report.reading.runs import Run, SeedRun
from stages.report.terminal.table import Spread

Row = list[float | None]
Matrix = list[Row]


@dataclass(frozen=True)
class Block:
    """Outputs of a task: from `start` on, up to but not including `stop`."""

    task: int
    """Counted from 1."""
    start: int
    stop: int


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """None where one of them is None, or there is none."""
    known = list(values)
    there = [value for value in known if value is not None]
    if not there or len(there) < len(known):
        return None
    sd = statistics.stdev(there) if len(there) > 1 else None
    return Spread(statistics.fmean(there), sd, len(there))


def curve(seed: SeedRun) -> Row:
    """(T,): after learning task i, mean accuracy on the tasks learnt so far; None where one of
    them was not evaluated."""
    return [_whole_mean(row[:learnt]) for learnt, row in enumerate(seed.accuracy_matrix, 1)]


def _whole_mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there and len(there) == len(values) else None


def curve_spread(run: Run) -> list[Spread | None]:
    """(T,): over its seeds."""
    return [spread_of(values) for values in zip(*map(curve, run.runs), strict=True)]


def mean_matrix(run: Run) -> Matrix:
    """(T, T): R, the mean over seeds."""
    return [
        [_whole_mean(values) for values in zip(*rows, strict=True)]
        for rows in zip(*(seed.accuracy_matrix for seed in run.runs), strict=True)
    ]


def drop(seed: SeedRun, task: int) -> float | None:
    """By how much a task (counted from 0) is answered worse after the last one than at its best
    since it was met: its part of forgetting.  None of the last task, or where R has gaps."""
    column = [row[task] for row in seed.accuracy_matrix[task:]]
    known = [value for value in column if value is not None]
    if len(column) < 2 or len(known) < len(column):
        return None
    return max(known[:-1]) - known[-1]


def drops(run: Run) -> list[Spread | None]:
    """(T,): of each task, over seeds."""
    return [spread_of(drop(seed, task) for seed in run.runs) for task in range(run.tasks)]


def recall_spread(run: Run) -> list[Spread | None] | None:
    """Of each output, over seeds; None: not recorded."""
    recalls = [seed.recall for seed in run.runs if seed.recall]
    if len(recalls) < len(run.runs) or len({len(recall) for recall in recalls}) > 1:
        return None
    return [spread_of(values) for values in zip(*recalls, strict=True)]


def summed_confusion(run: Run) -> list[list[int]] | None:
    """Counts of all seeds together; rows: true, columns: answered.  None: not recorded."""
    tables = [seed.confusion for seed in run.runs if seed.confusion]
    if len(tables) < len(run.runs) or len({len(table) for table in tables}) > 1:
        return None
    return [
        [sum(counts) for counts in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)
    ]


def shares(counts: Sequence[Sequence[int]]) -> Matrix:
    """Each row as shares of its sum; None in a row without any."""
    return [[n / sum(row) if sum(row) else None for n in row] for row in counts]


def outputs(run: Run, count: int) -> list[str]:
    """What the outputs of a recall or a confusion matrix stand for: classes; domain-incrementally
    the same output for another class in each task."""
    if run.scenario != "domain" and count == len(run.class_order):
        return list(run.class_order)
    groups = run.task_classes or []
    named = []
    for k in range(count):
        classes = [group[k] for group in groups if k < len(group)]
        named.append(f"{k + 1}: {', '.join(classes)}" if classes else f"output {k + 1}")
    return named


def blocks(run: Run, count: int) -> list[Block]:
    """The tasks among `count` outputs in a row; none where that is not recorded, or they are
    shared."""
    groups = run.task_classes or []
    if run.scenario == "domain" or [name for group in groups for name in group] != run.class_order:
        return []
    found, start = [], 0
    for task, group in enumerate(groups, 1):
        found.append(Block(task, start, start + len(group)))
        start += len(group)
    return found if start == count else []


def floors(run: Run) -> list[float]:
    """(T,): accuracy of the best constant answer on the tasks learnt so far.

    Task-incrementally one constant for each task; class-incrementally one for all, which is
    right in one task only; otherwise, and in older runs, only that of the last step is known.
    """
    seed = run.runs[0]
    each = seed.majority_floor_by_task
    if each is None or len(each) != run.tasks or run.scenario == "domain":
        return [seed.majority_floor] * run.tasks
    if run.scenario == "class":
        return [max(each[:learnt]) / learnt for learnt in range(1, run.tasks + 1)]
    return [statistics.fmean(each[:learnt]) for learnt in range(1, run.tasks + 1)]
