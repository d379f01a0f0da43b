"""The result tables: strategies in rows, mean ± sample standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.report.columns import COSTS, Column, Measure, results
from stages.report.paired import Paired, over_none
from stages.report.remarks import FLOOR, KEEPS_ALL, MARK, apart, general, heading, of_study
from stages.report.runs import JOINT, NONE, Run, Study

_MISSING, _UNDEFINED = "not run", "–"


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
    between = [run.strategy for run in study.runs if run.strategy not in (NONE, JOINT)]
    return [(name, study.run_of(name)) for name in (NONE, *between, JOINT)]


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
    ranks = _ranks(study)
    for name, run in ordered(study):
        if run is None:
            rows.append([name, "0", _MISSING, *empty])
            continue
        cells = [_cell(run, column) for column in columns]
        cells[0] = ranks.get(name, "{}").format(cells[0])
        marked = name in compared and compared[name].n > 1 and not compared[name].better
        rows.append([f"{name} {MARK}" if marked else name, str(len(run.runs)), *cells])
    return rows


def _costs(study: Study) -> list[list[str]]:
    """Only of what was run.  A cell is empty where nothing was measured, never nought."""
    head = ["strategy", "n", *(column.heading for column in COSTS)]
    return [head] + [
        [name, str(len(run.runs)), *(_cell(run, column) for column in COSTS)]
        for name, run in ordered(study)
        if run is not None
    ]


def _ranks(study: Study) -> dict[str, str]:
    """Best accuracy in bold, second in braces, as in the LGR paper; joint does not compete."""
    rivals = {
        run.strategy: round(statistics.fmean(s.average_accuracy for s in run.runs), 9)
        for run in study.runs
        if run.strategy not in KEEPS_ALL
    }
    means = sorted(set(rivals.values()), reverse=True)
    marks = dict(zip(means, ("**{}**", "[{}]"), strict=False))
    return {name: marks[mean] for name, mean in rivals.items() if mean in marks}


def _cell(run: Run, column: Column) -> str:
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
