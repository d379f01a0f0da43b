"""Figures of which classes suffer: recall of each, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from stages.report.figures import matrices
from stages.report.numbers.learning import blocks, outputs, recall_spread, shares, summed_confusion
from stages.report.page.document import Data, Figure, quoted
from stages.report.reading.runs import Run, Study
from stages.report.sections.forgetting_curves import name_of, over_seeds, some
from stages.report.terminal.table import Spread

Recalls = list[Spread | None]
_NAMED = 24
"""Classes up to which each has its name beside it."""
_NUMBERS = 10
"""Classes, or strategies, up to which cells hold numbers."""


def recall(study: Study, runs: Sequence[Run], prefix: str) -> Figure | None:
    """Classes in rows, strategies in columns; None where nothing is recorded."""
    found = {run.label: recall_spread(run) for run in runs}
    counts = {len(values) for values in found.values() if values}
    if len(counts) != 1:  # nothing, or of other outputs, which a study does not have
        return None
    count = counts.pop()
    known = {label: values for label, values in found.items() if values}
    names = outputs(study.first, count)
    numbers = len(known) <= _NUMBERS and count <= _NAMED
    tasks = blocks(study.first, count)
    heat = matrices.Heat(
        [[None if (v := values[k]) is None else v.mean for values in known.values()]
         for k in range(count)],
        names if count <= _NAMED else [],
        list(known),
        (0.42 if numbers else min(0.36, 4.0 / len(known)), _row_height(count)),
        digits=0 if numbers else None,
        outlines=[(0, block.start, len(known), block.stop) for block in tasks],
        parts=[(f"task {block.task}", block.start, block.stop) for block in tasks][:_NAMED],
        columns_above=True,
    )  # fmt: skip
    return Figure(
        f"{prefix}recall",
        "Recall of each class after the last task",
        f"Recall of {count} {_what(study.first)} by strategy. {_worst(known, names)}",
        partial(matrices.draw, heat),
        f"Share of a class's rows that are answered right, per cent; mean over {over_seeds(runs)}; "
        f"{matrices.SCALE}. Framed: tasks.{_missing(found)}",
        Data(
            ("strategy", "output", "class", "recall_mean", "recall_sd", "n"),
            tuple(
                (label, k + 1, names[k], value.mean, value.sd, value.n)
                for label, values in known.items()
                for k, value in enumerate(values)
                if value is not None
            ),
        ),
    )


def _what(run: Run) -> str:
    return "shared outputs" if run.scenario == "domain" else "classes"


def _row_height(count: int) -> float:
    return 0.26 if count <= _NUMBERS else max(0.18, 3.6 / count) if count <= _NAMED else 4.0 / count


def _worst(known: Mapping[str, Recalls], names: Sequence[str]) -> str:
    """For each strategy the class that it knows least."""
    told = []
    for label, values in known.items():
        there = [(value.mean, names[k]) for k, value in enumerate(values) if value is not None]
        if there:
            share, name = min(there)
            told.append(f"{label} {name} with {100 * share:.1f} %")
    return f"Least known: {some(told)}."


def _missing(found: Mapping[str, Recalls | None]) -> str:
    """Whose runs are from before it was written down."""
    without = [quoted(label) for label, values in found.items() if not values]
    return f" Not recorded of {', '.join(without)}." if without else ""


def confusion(study: Study, run: Run, prefix: str, numbers: bool) -> Figure | None:
    """Rows: true class; columns: answered.  None where it is not recorded."""
    counts = summed_confusion(run)
    if counts is None:
        return None
    size, cells = len(counts), shares(counts)
    names = outputs(run, size)
    numbers = numbers and size <= _NUMBERS
    side = 0.34 if numbers else min(0.25, 3.4 / size)
    named = size <= _NAMED and side >= 0.13
    tasks = blocks(run, size)
    heat = matrices.Heat(
        cells,
        [f"{name} {k}" for k, name in enumerate(names, 1)] if named else [],
        [str(k) for k in range(1, size + 1)] if named else [],
        (side, 0.28 if numbers else side),
        "answered",
        "true",
        digits=0 if numbers else None,
        zeros=False,
        outlines=[(b.start, b.start, b.stop, b.stop) for b in tasks if len(tasks) <= _NAMED],
        parts=[] if named else [(f"task {b.task}", b.start, b.stop) for b in tasks][:_NAMED],
    )
    right = sum(counts[k][k] for k in range(size))
    total = sum(map(sum, counts))
    return Figure(
        name_of(prefix, "confusion", run, study),
        quoted(run.label),
        f"Confusion of {run.label}: {right} of {total} rows are answered right. "
        f"{_mistaken(cells, names)}",
        partial(matrices.draw, heat),
        "",
        Data(
            ("strategy", "true", "answered", "rows", "share_of_true"),
            tuple(
                (run.label, names[i], names[j], counts[i][j], cells[i][j])
                for i in range(size)
                for j in range(size)
                if counts[i][j]
            ),
        ),
    )


def _mistaken(cells: Sequence[Sequence[float | None]], names: Sequence[str]) -> str:
    """The three most frequent."""
    wrong = sorted(
        ((share, names[i], names[j])
         for i, row in enumerate(cells) for j, share in enumerate(row) if i != j and share),
        key=lambda found: -found[0],
    )[:3]  # fmt: skip
    told = ", ".join(f"{100 * share:.1f} % of {true} as {said}" for share, true, said in wrong)
    return f"Most often mistaken: {told}." if told else ""
