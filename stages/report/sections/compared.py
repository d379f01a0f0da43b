"""A study on both sides: what differs, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from stages.report.figures import forest
from stages.report.figures.forest import Tree
from stages.report.figures.style import look
from stages.report.numbers.columns import ACCURACY, COSTS, Column
from stages.report.numbers.differences import Difference, holm
from stages.report.numbers.pairing import Both, Compared, Pair, compared, measures, scenario_differs
from stages.report.page.document import (
    Block,
    Data,
    Facts,
    Figure,
    Paragraph,
    Section,
    Table,
    Value,
    quoted,
)
from stages.report.reading.hosts import host, hosts
from stages.report.terminal.remarks import heading, short_heading
from stages.report.terminal.table import Spread

_HELD = "‡"
_MOST_DRAWN, _MOST_TOLD = 30, 12
_NOTE = (
    "Mean ± sample sd (n seeds); B − A with its 95 % interval, **bold** where that excludes 0, "
    f"{_HELD} where it does after Holm's correction for all strategies of a table too."
)


@dataclass(frozen=True)
class _Line:
    """A strategy in a table."""

    both: Both
    found: Compared
    held: bool
    """Its difference is not 0 after Holm's correction."""


def section(pair: Pair, prefix: str, number: str = "") -> Section:
    """`number`: before its title, where there are several."""
    by_column = {column.key: _lines(pair, column) for column in measures(pair)}
    blocks: list[Block] = [Paragraph(heading(pair.a.first))]
    blocks += [*_differing(pair), *_summary(by_column[ACCURACY.key])]
    blocks.append(_forest(by_column[ACCURACY.key], prefix))
    for column in measures(pair):
        if column in COSTS and (warning := _machines(pair)) and not _costs_begun(blocks):
            blocks.append(warning)
        blocks.append(_table(column, by_column[column.key], prefix))
    blocks.append(Paragraph(_how(pair, by_column), "note"))
    return Section(f"{prefix}compared", number + short_heading(pair.a.first), tuple(blocks))


def _lines(pair: Pair, column: Column) -> list[_Line]:
    found = [compared(pair, both, column.measure) for both in pair.both]
    known = [one.difference for one in found if one.difference is not None]
    held = iter(holm(known))
    return [
        _Line(both, one, one.difference is not None and next(held))
        for both, one in zip(pair.both, found, strict=True)
    ]


def _differing(pair: Pair) -> Iterator[Block]:
    if pair.differing:
        yield Paragraph("**Settings are not the same:**", "warning")
        yield Facts(tuple((name, f"A {quoted(a)}, B {quoted(b)}") for name, a, b in pair.differing))
    else:
        yield Paragraph("Both have the same data, tasks, training and version.")
    if scenario_differs(pair):
        yield Paragraph(
            "**Data or tasks differ**: a difference of accuracies is one of the questions asked, "
            "not of the answers.",
            "warning",
        )
    options = [
        f"{quoted(both.label)}: {quoted(', '.join(both.differing))}"
        for both in pair.both
        if both.differing
    ]
    if options:
        yield Paragraph(f"Options that differ (A / B): {'; '.join(options)}.", "warning")
    for side, labels in (("A", pair.only_a), ("B", pair.only_b)):
        if labels:
            yield Paragraph(f"Only in {side}: {quoted(', '.join(labels))}.")


def _summary(lines: Sequence[_Line]) -> Iterator[Paragraph]:
    known = [(one, d) for one in lines if (d := one.found.difference) and d.lower is not None]
    if not known:
        yield Paragraph(
            "Whether accuracies differ cannot be said: it takes two seeds of a strategy on both "
            "sides.",
            "warning",
        )
        return
    beyond = [
        f"{quoted(one.both.label)} {_signed(d, ACCURACY)}" for one, d in known if d.excludes_nought
    ]
    if not beyond:
        yield Paragraph(f"**No accuracy differs beyond its 95 % interval** ({_count(known)}).")
        return
    held = sum(one.held for one, _ in known)
    yield Paragraph(
        f"Accuracy differs beyond its 95 % interval in {len(beyond)} of {_count(known)}: "
        f"{', '.join(beyond)} points. After Holm's correction for {len(known)} comparisons: "
        f"{held or 'none'}."
    )


def _count(known: Sequence[object]) -> str:
    return f"{len(known)} strateg{'ies' if len(known) != 1 else 'y'}"


def _machines(pair: Pair) -> Paragraph | None:
    sides = [both.a for both in pair.both], [both.b for both in pair.both]
    if len(hosts([*sides[0], *sides[1]])) < 2:
        return None
    mine, theirs = (
        "; ".join(dict.fromkeys(quoted(host(run)) for run in runs if host(run))) for runs in sides
    )
    return Paragraph(
        "**Times and memory were not measured on equal machines**: "
        f"A {mine or 'not recorded'}; B {theirs or 'not recorded'}.",
        "warning",
    )


def _costs_begun(blocks: Sequence[Block]) -> bool:
    keys = [column.key.replace("_", "-") for column in COSTS]
    return any(isinstance(b, Table) and b.name.endswith(tuple(keys)) for b in blocks)


def _how(pair: Pair, by_column: dict[str, list[_Line]]) -> str:
    intervals = [
        difference
        for lines in by_column.values()
        for one in lines
        if (difference := one.found.difference) and difference.lower is not None
    ]
    how = {difference.how for difference in intervals}
    parts = ["In all tables: " + _NOTE]
    if "paired" in how:
        parts.append(
            "Paired: B − A of each seed that both have, Student's t interval of the mean; means "
            "and sd are of all seeds of a side."
        )
    if "independent" in how:
        parts.append(
            "Independent: Welch's t interval, for "
            + ("fewer than two seeds are common." if pair.by_seed else "data or tasks differ.")
        )
    if intervals:
        parts.append(
            f"{len(intervals)} intervals: were nothing different, about {0.05 * len(intervals):.2g}"
            " would exclude 0 by chance."
        )
    parts.append("1 MB = 1e6 bytes. – : not recorded or not defined on a side.")
    return " ".join(parts)


# --- tables and the figure ---------------------------------------------------------------


def _table(column: Column, lines: Sequence[_Line], prefix: str) -> Table:
    ratio = column in COSTS
    head = ("strategy", "A", "B", "B − A (95 % interval)", *(["B / A"] if ratio else []), "seeds")
    return Table(
        f"{prefix}compare-{column.key.replace('_', '-')}",
        column.heading,
        head,
        tuple(_row(column, line, ratio=ratio) for line in lines),
        _data(lines),
        _NOTE if column is ACCURACY else "",
    )


def _row(column: Column, line: _Line, *, ratio: bool) -> tuple[str, ...]:
    a, b, difference = line.found.a, line.found.b, line.found.difference
    said = "–"
    if difference is not None:
        said = _signed(difference, column)
        said = f"**{said}**" if difference.excludes_nought else said
        said += f" {_HELD}" if line.held else ""
    times = [f"{b.mean / a.mean:.2f}" if a and b and a.mean else "–"] if ratio else []
    how = "–" if difference is None else f"{difference.n}, {difference.how}"
    return (quoted(line.both.label), _mean(a, column), _mean(b, column), said, *times, how)


def _mean(value: Spread | None, column: Column) -> str:
    if value is None:
        return "–"
    rounded = round(value.mean * column.scale, column.digits) + 0.0  # no "-0.00"
    text = f"{rounded:.{column.digits}f}"
    if value.sd is not None and not (column.exact and value.sd == 0):
        text += f" ± {value.sd * column.scale:.{column.digits}f}"
    return f"{text} ({value.n})"


def _signed(difference: Difference, column: Column) -> str:
    def shown(value: float) -> str:
        rounded = round(value * column.scale, column.digits) + 0.0  # no "-0.00"
        return f"{rounded:+.{column.digits}f}"

    text = shown(difference.mean)
    if difference.lower is None or difference.upper is None:
        return text
    if column.exact and difference.lower == difference.upper:
        return text
    return f"{text} ({shown(difference.lower)} to {shown(difference.upper)})"


def _data(lines: Sequence[_Line]) -> Data:
    sides = [f"{side}_{part}" for side in ("a", "b") for part in ("mean", "sd", "n")]
    head = ("strategy", *sides, "difference", "lower", "upper", "p", "holm", "how", "seeds")
    return Data(head, tuple(_exact(line) for line in lines))


def _exact(line: _Line) -> tuple[Value, ...]:
    sides: list[Value] = []
    for side in (line.found.a, line.found.b):
        sides += [side.mean, side.sd, side.n] if side else [None] * 3
    d = line.found.difference
    rest: tuple[Value, ...] = (None,) * 7
    if d is not None:
        held = None if d.p is None else int(line.held)
        rest = (d.mean, d.lower, d.upper, d.p, held, d.how, d.n)
    return (line.both.label, *sides, *rest)


def _forest(lines: Sequence[_Line], prefix: str) -> Figure:
    known = [(one.both, d) for one in lines if (d := one.found.difference) is not None]
    trees = [
        Tree(
            both.label,
            look(both.a.strategy, both.a.variant),
            100 * d.mean,
            None if d.lower is None else 100 * d.lower,
            None if d.upper is None else 100 * d.upper,
            d.excludes_nought,
        )
        for both, d in known
    ]
    told = ", ".join(f"{t.label} {t.mean:+.2f}" for t in trees[:_MOST_TOLD])
    return Figure(
        f"{prefix}compare-accuracy",
        "Difference of accuracy",
        f"B less A in points of accuracy: {told}.",
        partial(forest.draw, trees[:_MOST_DRAWN], "accuracy of B less that of A (points)"),
        "Mean and 95 % interval; full mark: the interval excludes 0; hollow: it does not, or there "
        "are fewer than two seeds."
        + (f" The first {_MOST_DRAWN} of {len(trees)}." if len(trees) > _MOST_DRAWN else ""),
        _data(lines),
    )
