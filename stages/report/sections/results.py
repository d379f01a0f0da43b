"""What was reached: the result table in the form of the LGR paper's, and whether it is more than
no replay reaches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from stages.report.figures.accuracy import Row, accuracies, differences
from stages.report.numbers.columns import ACCURACY, BALANCED, COSTS, Column, results
from stages.report.numbers.paired import Paired, over_none, paired
from stages.report.page.document import (
    Block,
    Data,
    Figure,
    Fold,
    Paragraph,
    Section,
    Table,
    Value,
    quoted,
)
from stages.report.reading.runs import JOINT, NONE, Run, Study
from stages.report.sections.verdict import variants, verdict
from stages.report.terminal.remarks import FLOOR, MARK, of_study
from stages.report.terminal.table import MISSING, as_in_paper, cell, ranks, spread

_HEADINGS = {
    "train_seconds": "training s ▼",
    "rss_peak_bytes": "peak RAM MB ▼",
    "cpu_seconds": "CPU s ▼",
    "gpu_utilisation_percent": "GPU use %",
    "gpu_memory_peak_bytes": "GPU memory MB ▼",
}
"""The costs of the paper's tables, in its order."""
_BY_KEY = {column.key: column for column in COSTS}
COSTS_OF_PAPER = tuple(replace(_BY_KEY[key], heading=said) for key, said in _HEADINGS.items())


def section(study: Study, prefix: str) -> Section:
    compared = over_none(study)
    blocks: list[Block] = [
        *verdict(study, compared),
        *(Paragraph(line, "warning") for line in of_study(study, {})),
        _main(study, compared, prefix),
    ]
    if any(found.n > 0 for found in compared.values()):
        numbers = _differences(study, compared, prefix)
        blocks += [_figure(study, prefix, True), _forest(study, compared, prefix)]
        blocks.append(Fold("The differences in numbers", (numbers,)))
    else:
        blocks.append(_figure(study, prefix, False))
    blocks += _accuracies(study, prefix)
    return Section(f"{prefix}results", "Results", tuple(blocks))


# --- tables ------------------------------------------------------------------------------


def _main(study: Study, compared: Mapping[str, Paired], prefix: str) -> Table:
    """In the form of Tables II to V."""
    every = (ACCURACY, *COSTS_OF_PAPER)
    shown = tuple(column for column in every if column is ACCURACY or _measured(study, column))
    unseen = [c.heading.split(" %")[0].split(" MB")[0] for c in every if c not in shown]
    note = (
        "Mean ± sample standard deviation over n seeds. Best in **bold**, second in [braces]; "
        f"joint and cumulative see all tasks again and do not compete. ▲ higher is better, ▼ "
        f"lower. {FLOOR}: the best constant answer. "
    )
    if any(_marked(compared, name) for name in compared):
        note += f"{MARK} not better than none beyond the spread, seed by seed. "
    note += "RAM: resident memory of the whole process. 1 MB = 1e6 bytes."
    if unseen:
        note += f" Not measured: {', '.join(unseen)}."
    return Table(
        f"{prefix}results",
        "Accuracy and what it costs",
        ("strategy", "n", *(column.heading for column in shown)),
        tuple(_rows(study, compared, shown, every)),
        _data(study, compared, every),
        note,
    )


def _accuracies(study: Study, prefix: str) -> tuple[Table, ...]:
    """At most one: where any of them was recorded."""
    *others, last = (c for c in results(study.first.scenario) if c is not ACCURACY)
    every = (*others, BALANCED, last)
    shown = [column for column in every if _measured(study, column)]
    if not shown:
        return ()
    note = (
        "All after the last task, but avg. incr.: mean over steps of the accuracy on the tasks "
        "learnt so far. Balanced accuracy and macro-F1 weigh classes alike. "
        "– undefined; empty: not recorded. [Definitions](#measured)."
    )
    unseen = [column.heading[:-2].removesuffix(" %") for column in every if column not in shown]
    if unseen:
        note += f" Of no run: {', '.join(unseen)}."
    table = Table(
        f"{prefix}accuracies",
        "Other ways to look at accuracy",
        ("strategy", "n", *(column.heading for column in shown)),
        tuple(_rows(study, {}, shown, ())),
        _data(study, {}, every),
        note,
    )
    return (table,)


def _rows(
    study: Study,
    compared: Mapping[str, Paired],
    columns: Sequence[Column],
    ranked: Sequence[Column],
) -> Iterator[tuple[str, ...]]:
    if ACCURACY in columns:
        yield FLOOR, "", f"{100 * study.floor:.2f}", *[""] * (len(columns) - 1)
    forms = {c.key: ranks(study, c) for c in ranked if "▲" in c.heading or "▼" in c.heading}
    for name, run in _entries(study):
        if run is None:
            yield quoted(name), "0", MISSING, *[""] * (len(columns) - 1)
            continue
        cells = [forms.get(c.key, {}).get(name, "{}").format(cell(run, c)) for c in columns]
        yield _said(compared, name), str(len(run.runs)), *cells


def _entries(study: Study) -> list[tuple[str, Run | None]]:
    """A baseline of which there are only variants was run."""
    return [(name, r) for name, r in as_in_paper(study) if r or not variants(study, name)]


def _measured(study: Study, column: Column) -> bool:
    return any(spread(run, column.measure) is not None for run in study.runs)


def _marked(compared: Mapping[str, Paired], name: str) -> bool:
    return name in compared and compared[name].n > 1 and not compared[name].better


def _said(compared: Mapping[str, Paired], name: str) -> str:
    return f"{quoted(name)} {MARK}" if _marked(compared, name) else quoted(name)


def _data(study: Study, compared: Mapping[str, Paired], columns: Sequence[Column]) -> Data:
    """Mean and sd of each column; where they are compared, the difference from none too."""
    over = ("over_none_mean", "over_none_lower", "over_none_upper", "over_none_n")
    head = ["strategy", "n", *(f"{c.key}_{part}" for c in columns for part in ("mean", "sd"))]
    rows: list[tuple[Value, ...]] = []
    if ACCURACY in columns:
        head += over
        empty: list[Value] = [None] * (len(head) - 3)
        rows.append((FLOOR, None, study.floor, *empty))
    for name, run in _entries(study):
        line: list[Value] = [name, len(run.runs) if run else 0]
        for column in columns:
            found = spread(run, column.measure) if run else None
            line += [found.mean, found.sd] if found else [None, None]
        if ACCURACY in columns:
            line += _exact(compared.get(name))
        rows.append(tuple(line))
    return Data(tuple(head), tuple(rows))


def _exact(found: Paired | None) -> list[Value]:
    if found is None:
        return [None] * 4
    return [*(_known(v) for v in (found.mean, found.lower, found.upper)), found.n]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _differences(study: Study, compared: Mapping[str, Paired], prefix: str) -> Table:
    """Of each strategy from none."""
    rows, exact = [], []
    for name, _ in as_in_paper(study):
        found = compared.get(name)
        if found is None:
            continue
        mean = "–" if math.isnan(found.mean) else f"{100 * found.mean:+.2f}"
        interval = "–"
        if found.n > 1:
            interval = f"{100 * found.lower:+.2f} to {100 * found.upper:+.2f}"
        rows.append((_said(compared, name), str(found.n), mean, interval))
        exact.append((name, found.n, *(_exact(found)[:3])))
    return Table(
        f"{prefix}over-none",
        "Difference from none",
        ("strategy", "n", "points of accuracy", "95 % interval"),
        tuple(rows),
        Data(("strategy", "n", "mean", "lower", "upper"), tuple(exact)),
        "n: seeds that both were run with. Student's t interval of the mean of n differences.",
        printed=False,
    )


# --- figures -----------------------------------------------------------------------------


def _figure(study: Study, prefix: str, beside: bool) -> Figure:
    """`beside`: their differences stand beside it."""
    runs = _runs(study)
    rows = [_row(run) for run in runs]
    floor = 100 * study.floor
    told = ", ".join(f"{row.label} {row.found.mean:.1f} %" for row in rows)
    single = any(len(row.values) < 2 for row in rows)
    lines = [f"{name} ({how})" for name, how in _LINES.items() if _single(runs, name)]
    return Figure(
        f"{prefix}accuracy",
        "Accuracy of each strategy",
        f"Accuracy after the last task, mean over seeds: {told}; majority floor {floor:.1f} %.",
        lambda: accuracies(rows, floor),
        "Small dots: seeds. Mark and bar: their mean and its 95 % interval (Student's t)"
        + ("; no bar for a single seed" if single else "")
        + ("; bars end at 100 %. " if any(row.found.upper > 101 for row in rows) else ". ")
        + f"Vertical lines: {', '.join(['majority floor (grey)', *lines])}."
        + (_HOW_TO_COMPARE if beside else ""),
        Data(
            ("strategy", "seed", "average_accuracy", "mean", "lower", "upper"),
            (
                (FLOOR, None, study.floor, None, None, None),
                *(
                    (run.label, seed.seed, seed.average_accuracy, *_ends(row, 100))
                    for run, row in zip(runs, rows, strict=True)
                    for seed in run.runs
                ),
            ),
        ),
    )


_LINES = {NONE: "dashed", JOINT: "dotted"}
_HOW_TO_COMPARE = (
    " What seeds have in common widens these intervals: compare strategies by their differences "
    "from none."
)


def _single(runs: Sequence[Run], strategy: str) -> bool:
    return sum(run.strategy == strategy for run in runs) == 1


def _forest(study: Study, compared: Mapping[str, Paired], prefix: str) -> Figure:
    none = study.run_of(NONE)
    base = {seed.seed: seed.average_accuracy for seed in none.runs} if none else {}
    runs = [run for run in _runs(study) if run.label in compared and compared[run.label].n > 0]
    rows = []
    for run in runs:
        both = [seed for seed in run.runs if seed.seed in base]
        values = tuple(100 * (seed.average_accuracy - base[seed.seed]) for seed in both)
        found = _percent(compared[run.label])
        rows.append(Row(run.label, run.strategy, run.variant, values, found, found.better))
    told = ", ".join(
        f"{r.label} {r.found.mean:+.1f}"
        + ("" if math.isnan(r.found.lower) else f" ({r.found.lower:+.1f} to {r.found.upper:+.1f})")
        for r in rows
    )
    return Figure(
        f"{prefix}over-none",
        "Better than no replay?",
        f"Points of accuracy over none, with the 95 % interval: {told}.",
        lambda: differences(rows),
        "Each seed's accuracy less that of none with the same seed (small dots), the mean and its "
        "95 % interval. Full mark: better than none beyond the spread; hollow: not. "
        "Each interval stands for itself: of many strategies one in twenty would miss by chance.",
        Data(
            ("strategy", "seed", "difference", "mean", "lower", "upper"),
            tuple(
                (row.label, seed, value / 100, *_ends(row, 100))
                for row, run in zip(rows, runs, strict=True)
                for seed, value in zip(
                    (s.seed for s in run.runs if s.seed in base), row.values, strict=True
                )
            ),
        ),
    )


def _runs(study: Study) -> list[Run]:
    return [run for _, run in as_in_paper(study) if run is not None]


def _row(run: Run) -> Row:
    values = tuple(100 * seed.average_accuracy for seed in run.runs)
    found = paired(values, [0.0] * len(values))
    return Row(run.label, run.strategy, run.variant, values, found)


def _percent(found: Paired) -> Paired:
    mean, sd, lower, upper = (100 * v for v in (found.mean, found.sd, found.lower, found.upper))
    return Paired(mean, sd, found.n, lower, upper)


def _ends(row: Row, scale: float) -> tuple[Value, ...]:
    return tuple(_known(v / scale) for v in (row.found.mean, row.found.lower, row.found.upper))
