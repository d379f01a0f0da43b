"""The result tables: strategies in rows, mean ± sample standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.report.numbers.columns import ACCURACY, COSTS, Column, Measure, results
from stages.report.numbers.paired import Paired, over_none
from stages.report.reading.runs import JOINT, NONE, Run, Study
from stages.report.terminal.remarks import FLOOR, KEEPS_ALL, MARK, apart, general, heading, of_study

MISSING = "not run"
_UNDEFINED = "–"
_PAPER = (NONE, "nr", "lr", "dgr", "lgr", "dgr+d", "lgr+d")


@dataclass(frozen=True)
class Spread:
    """n values; sd is None for n = 1."""

    mean: float
    sd: float | None
    n: int


def spread(run: Run, measure: Measure) -> Spread | None:
    """None where a seed has no such value."""
    values = [v for v in (measure(seed) for seed in run.runs) if v is not None]
    if len(values) < len(run.runs):
        return None
    return Spread(
        statistics.fmean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        len(values),
    )


def ordered(study: Study) -> list[tuple[str, Run | None]]:
    """By name, as the study has them; none first and joint last even where they were not run."""
    between = [run.label for run in study.runs if run.label not in (NONE, JOINT)]
    return [(name, study.run_of(name)) for name in (NONE, *between, JOINT)]


def as_in_paper(study: Study) -> list[tuple[str, Run | None]]:
    """The same in the order of the LGR paper's tables, each latent strategy beside its partner on
    images; then others by name, cumulative, joint."""
    order = (*_PAPER, "", *KEEPS_ALL)

    def place(entry: tuple[str, Run | None]) -> int:
        strategy = entry[1].strategy if entry[1] else entry[0]
        return order.index(strategy if strategy in order else "")

    return sorted(ordered(study), key=place)


def markdown(studies: Sequence[Study]) -> str:
    """For each study a heading that says what was run, results, the remarks that they need, and
    costs; at the end what holds for all."""
    blocks = []
    if len(studies) > 1:
        blocks.append(f"{len(studies)} studies: figures of one are not comparable with another's.")
    for study in studies:
        compared = over_none(study)
        blocks += [
            heading(study.first),
            *apart(study, studies),
            "*Results*",
            _aligned(_results(study, compared)),
            *of_study(study, compared),
            "*Cost per seed*",
            _aligned(_costs(study)),
        ]
    return "\n\n".join([*blocks, *general(studies)]) + "\n"


def _results(study: Study, compared: Mapping[str, Paired]) -> list[list[str]]:
    columns = results(study.first.scenario)
    empty = [""] * (len(columns) - 1)
    rows = [
        ["strategy", "n", *(column.heading for column in columns)],
        [FLOOR, "", f"{100 * study.floor:.2f}", *empty],
    ]
    ranked = ranks(study)
    for name, run in ordered(study):
        if run is None:
            rows.append([name, "0", MISSING, *empty])
            continue
        cells = [cell(run, column) for column in columns]
        cells[0] = ranked.get(name, "{}").format(cells[0])
        marked = name in compared and compared[name].n > 1 and not compared[name].better
        rows.append([f"{name} {MARK}" if marked else name, str(len(run.runs)), *cells])
    return rows


def _costs(study: Study) -> list[list[str]]:
    """Only of what was run.  A cell is empty where nothing was measured, never nought."""
    head = ["strategy", "n", *(column.heading for column in COSTS)]
    return [head] + [
        [name, str(len(run.runs)), *(cell(run, column) for column in COSTS)]
        for name, run in ordered(study)
        if run is not None
    ]


def ranks(study: Study, column: Column = ACCURACY) -> dict[str, str]:
    """By label, a form for the cell: best in bold, second in braces, as in the LGR paper.  What
    looks equal ranks equal; joint and cumulative do not compete."""
    rivals = {
        run.label: round(found.mean * column.scale, column.digits)
        for run in study.runs
        if run.strategy not in KEEPS_ALL and (found := spread(run, column.measure)) is not None
    }
    means = sorted(set(rivals.values()), reverse="▼" not in column.heading)
    if len(means) == 1 < len(rivals):
        return {}  # nobody is better than anybody
    marks = dict(zip(means, ("**{}**", "[{}]"), strict=False))
    return {name: marks[mean] for name, mean in rivals.items() if mean in marks}


def cell(run: Run, column: Column) -> str:
    """Mean ± sd, scaled; a dash where it is undefined, empty where it was not measured."""
    value = spread(run, column.measure)
    if value is None:
        told = all(column.key in seed.model_fields_set for seed in run.runs)
        return _UNDEFINED if told and column not in COSTS else ""
    rounded = round(value.mean * column.scale, column.digits) + 0.0  # no "-0.00"
    text = f"{rounded:.{column.digits}f}"
    if value.sd is None or (column.exact and value.sd == 0):
        return text
    return f"{text} ± {value.sd * column.scale:.{column.digits}f}"


def _aligned(rows: list[list[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]

    def line(cells: list[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([line(rows[0]), rule, *(line(row) for row in rows[1:])])
