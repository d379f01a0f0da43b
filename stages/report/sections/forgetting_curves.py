"""Figures of what happens while tasks are learnt: curves, R matrices, forgetting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from stages.report.figures import bars, curves, matrices
from stages.report.figures.style import look
from stages.report.numbers.learning import (
    curve_spread,
    drop,
    floors,
    mean_matrix,
    spread_of,
)
from stages.report.numbers.replays import file_names
from stages.report.page.document import Data, Figure, Value, quoted
from stages.report.reading.runs import JOINT, Run, Study
from stages.report.terminal.table import Spread, spread

_LEVEL = "Joint learns all tasks at once and is a level at the end. "
LINES = 8
"""Strategies up to which one figure holds all lines."""
PANELS = 12
"""Strategies that get figures of their own."""
_NUMBERS = 10
"""Rows of a matrix up to which its cells hold numbers."""


def percent(value: Spread | None, digits: int = 1) -> str:
    """
    >>> percent(Spread(0.25, 0.04, 3))
    '25.0 ± 4.0 %'
    """
    if value is None:
        return "undefined"
    mean = f"{round(100 * value.mean, digits) + 0.0:.{digits}f}"
    sd = "" if value.sd is None else f" ± {100 * value.sd:.{digits}f}"
    return f"{mean}{sd} %"


def over_seeds(runs: Sequence[Run]) -> str:
    """What a mean is of.

    >>> over_seeds([])
    'one seed'
    """
    counts = sorted({len(run.runs) for run in runs})
    if counts in ([], [1]):
        return "one seed"
    each = "-".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]]))
    return f"{each} seeds"


def spread_said(runs: Sequence[Run]) -> str:
    seeds = over_seeds(runs)
    return "One seed, no spread." if seeds == "one seed" else f"Mean ± sample sd over {seeds}."


def some(told: Sequence[str], most: int = PANELS) -> str:
    """Of what is said of each run: nobody listens to sixty.

    >>> some(["a", "b"])
    'a, b'
    """
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return ", ".join(told[:most]) + more


def chosen(runs: Sequence[Run], most: int) -> list[Run]:
    """All, or the best of each strategy and the most accurate others, in their order."""
    if len(runs) <= most:
        return list(runs)

    def accuracy(run: Run) -> float:
        found = spread(run, lambda seed: seed.average_accuracy)
        return found.mean if found else 0.0

    by_accuracy = sorted(runs, key=accuracy, reverse=True)
    best = {run.strategy: run.label for run in reversed(by_accuracy)}
    first = sorted(by_accuracy, key=lambda run: best[run.strategy] != run.label)
    kept = {run.label for run in first[:most]}
    return [run for run in runs if run.label in kept]


def name_of(prefix: str, what: str, run: Run, study: Study) -> str:
    """Of the figure of one run."""
    return f"{prefix}{what}-{file_names(study.runs)[run.label]}"


# --- over tasks --------------------------------------------------------------------------


def over_tasks(study: Study, prefix: str) -> Figure:
    """Mean accuracy on the tasks learnt so far, all strategies."""
    floor = floors(study.first)
    found = {run.label: curve_spread(run) for run in study.runs}
    lines = [
        curves.Line(run.label, look(run.strategy, run.variant), found[run.label])
        for run in study.runs
    ]
    ends = some([f"{run.label} {percent(found[run.label][-1])}" for run in study.runs])
    last = study.first.tasks
    several = len(lines) > LINES
    draw = (
        partial(curves.small_multiples, _panels(study, lines), floor)
        if several
        else partial(curves.over_tasks, lines, floor)
    )
    thick = (
        "One panel for each strategy, the others faint behind it; of many variants only the best "
        "is named. "
    )
    spread = "bars" if last <= curves.BARS else "bands"
    return Figure(
        f"{prefix}over-tasks",
        "Accuracy on the tasks learnt so far",
        f"Accuracy against the number of tasks learnt. After all {last} tasks: {ends}; majority "
        f"floor {100 * floor[-1]:.1f} %.",
        draw,
        f"{thick if several else ''}After learning task i, the mean of R[i, 1] to R[i, i]. "
        f"{'' if study.run_of(JOINT) is None else _LEVEL}Dotted: majority floor. "
        f"{spread_said(study.runs).replace('Mean ±', f'Mean, {spread}: ±')}",
        Data(
            ("strategy", "learnt", "accuracy_mean", "accuracy_sd", "n"),
            tuple(
                (label, learnt, value.mean, value.sd, value.n)
                for label, values in [*found.items(), ("majority floor", _level(floor))]
                for learnt, value in enumerate(values, 1)
                if value is not None
            ),
        ),
    )


def _level(floor: Sequence[float]) -> list[Spread | None]:
    return [Spread(value, None, 1) for value in floor]


def _panels(study: Study, lines: Sequence[curves.Line]) -> list[curves.Panel]:
    """Variants of a strategy in one, the best one named, or all if they are few."""
    found = []
    for strategy in dict.fromkeys(run.strategy for run in study.runs):
        mine = [
            line for line, run in zip(lines, study.runs, strict=True) if run.strategy == strategy
        ]
        if len(mine) == 1:
            found.append(curves.Panel(mine[0].name, mine))
            continue
        few = len(mine) <= curves.NAMED
        best = max(mine, key=lambda line: line.last)
        named = {k: _without(line.name, strategy) for k, line in enumerate(mine)
                 if few or line is best}  # fmt: skip
        title = strategy if few else f"{strategy}, {len(mine)} variants"
        found.append(curves.Panel(title, mine, named))
    return found


def _without(label: str, strategy: str) -> str:
    """What a variant is called beside the others of its strategy."""
    return label.removeprefix(strategy).strip().removeprefix("(").removesuffix(")") or label


# --- one strategy ------------------------------------------------------------------------


def by_task(study: Study, run: Run, prefix: str, within: tuple[float, float]) -> Figure:
    """Each task over time."""
    matrix = mean_matrix(run)
    tasks = [list(column) for column in zip(*matrix, strict=True)]
    ends = ", ".join(
        f"task {j} {_number(column[j - 1])} % when learnt and {_number(column[-1])} % at the end"
        for j, column in enumerate(tasks[:_NUMBERS], 1)
    )
    return Figure(
        name_of(prefix, "by-task", run, study),
        quoted(run.label),
        f"Accuracy of each task while {run.label} learns: {ends}.",
        partial(curves.by_task, tasks, study.floor, within),
        "",
        _matrix_data(run),
    )


def limits_of(runs: Sequence[Run], floor: float) -> tuple[float, float]:
    """Of the axes of all figures by task: what is drawn in any of them."""
    values = [
        value
        for run in runs
        for learnt, row in enumerate(mean_matrix(run), 1)
        for value in row[:learnt]
        if value is not None
    ]
    return curves.limits([*values, floor])


def r_matrix(study: Study, run: Run, prefix: str, numbers: bool) -> Figure:
    matrix = mean_matrix(run)
    count = run.tasks
    numbers = numbers and count <= _NUMBERS
    side = 0.4 if numbers else min(0.3, 2.0 / count)
    step = math.ceil(0.2 / side)  # as near as numbers can stand
    names = [str(k) if (k - 1) % step == 0 else "" for k in range(1, count + 1)]
    told = "; ".join(
        f"after task {i}: {', '.join(_number(v) for v in row)}"
        for i, row in enumerate(matrix[:_NUMBERS], 1)
        if any(v is not None for v in row)
    )
    heat = matrices.Heat(
        matrix, names, names, (side, 0.75 * side if numbers else side),
        "accuracy on task", "after learning task",
        digits=(1 if count <= 5 else 0) if numbers else None, steps=True,
    )  # fmt: skip
    return Figure(
        name_of(prefix, "r-matrix", run, study),
        quoted(run.label),
        f"Accuracy of {run.label} in per cent on tasks 1 to {count}, {told}.",
        partial(matrices.draw, heat),
        "",
        _matrix_data(run),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _matrix_data(run: Run) -> Data:
    """R of all seeds, and what is drawn."""
    rows: list[tuple[Value, ...]] = []
    for learnt, lines in enumerate(zip(*(s.accuracy_matrix for s in run.runs), strict=True), 1):
        for task, values in enumerate(zip(*lines, strict=True), 1):
            value = spread_of(values)
            if value is not None:
                rows.append((run.label, learnt, task, value.mean, value.sd, value.n))
    return Data(("strategy", "learnt", "task", "accuracy_mean", "accuracy_sd", "n"), tuple(rows))


# --- forgetting --------------------------------------------------------------------------


def forgetting_bars(study: Study, runs: Sequence[Run], prefix: str) -> Figure | None:
    """None where it is undefined for all."""
    rows, without = [], []
    for run in runs:
        measures = [[s.forgetting for s in run.runs], [s.bwt for s in run.runs]]
        known = [[v for v in values if v is not None] for values in measures]
        values = [k if len(k) == len(run.runs) else None for k in known]
        if any(values):
            rows.append(bars.Bar(run.label, look(run.strategy, run.variant), values))
        else:
            without.append(quoted(run.label))
    if not rows:
        return None
    told = some(
        [
            f"{run.label} {percent(spread_of(s.forgetting for s in run.runs))} and "
            f"{percent(spread_of(s.bwt for s in run.runs))}"
            for run in runs
        ]
    )
    dots = " Each dot is a seed." if over_seeds(runs) != "one seed" else ""
    dots += f" Undefined of {some(without, 3)}." if without else ""
    return Figure(
        f"{prefix}forgetting-bars",
        "Forgetting and backward transfer",
        f"Forgetting and backward transfer: {told}.",
        partial(bars.draw, rows, ("forgetting (% of rows) ▼", "BWT (% of rows) ▲")),
        "Forgetting: how far the tasks before the last one fall from their best accuracy, on "
        "average; below 0 they have become better. BWT: how far they move from when they were "
        f"learnt. {spread_said(runs)}{dots}",
        Data(
            ("strategy", "seed", "forgetting", "bwt", *(_drop_heads(study.first))),
            tuple(
                (run.label, seed.seed, seed.forgetting, seed.bwt,
                 *(drop(seed, task) for task in range(run.tasks - 1)))
                for run in study.runs
                for seed in run.runs
            ),
        ),
    )  # fmt: skip


def _drop_heads(run: Run) -> list[str]:
    return [f"forgetting_task_{task}" for task in range(1, run.tasks)]
