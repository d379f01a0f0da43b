"""What each strategy costs, and what its accuracy is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from stages.report.figures import pareto
from stages.report.figures.pareto import Dot, Level
from stages.report.figures.scale import duration, logarithmic, megabytes
from stages.report.figures.style import look
from stages.report.numbers.columns import ACCURACY, COSTS, Column
from stages.report.numbers.paired import paired
from stages.report.page.document import (
    Block,
    Data,
    Figure,
    Paragraph,
    Section,
    Table,
    Value,
    quoted,
)
from stages.report.reading.hosts import host, hosts
from stages.report.reading.runs import JOINT, NONE, Run, Study
from stages.report.sections.cost_parts import few, over_time, parts_kept, parts_of_time
from stages.report.sections.once import extract_once
from stages.report.terminal.remarks import KEEPS_ALL
from stages.report.terminal.table import as_in_paper, cell, spread

_BY_KEY = {column.key: column for column in COSTS}
_TRAINING, _CPU, _KEPT = (_BY_KEY[k] for k in ("train_seconds", "cpu_seconds", "memory_bytes"))


@dataclass(frozen=True)
class _Against:
    """A cost that accuracy is shown against."""

    column: Column
    name: str
    title: str
    label: str
    """Of the axis."""
    scale: float
    note: str


_PLOTS = (
    _Against(
        _KEPT, "accuracy-memory", "Accuracy against memory kept", "kept between tasks (MB)", 1e-6,
        "Bytes that a strategy keeps from one task to the next: stored rows, generator, snapshots.",
    ),
    _Against(
        _TRAINING, "accuracy-seconds", "Accuracy against training time", "training (s per seed)",
        1, "Wall seconds of learning.",
    ),
    _Against(
        _CPU, "accuracy-cpu", "Accuracy against CPU time", "CPU (s per seed)", 1,
        "CPU seconds of all threads, evaluation included. They stand for energy, which is not "
        "measured.",
    ),
)  # fmt: skip


def section(study: Study, prefix: str) -> Section | None:
    """Tables and figures of what was measured; never None, for there is always the table."""
    runs = [run for _, run in as_in_paper(study) if run is not None]
    plots = [_pareto(study, runs, plot, prefix) for plot in _PLOTS]
    blocks: list[Block] = [*_summary(study), *_machines(runs), _table(runs, prefix)]
    blocks += [figure for figure in plots if figure is not None]
    blocks += [*parts_kept(runs, prefix), *parts_of_time(runs, prefix)]
    blocks += [*extract_once(study, prefix), *over_time(runs, prefix)]
    return Section(f"{prefix}cost", "Cost", tuple(blocks))


# --- in words ----------------------------------------------------------------------------


def _summary(study: Study) -> Iterator[Paragraph]:
    rivals = [run for run in study.runs if run.strategy not in KEEPS_ALL]
    if not rivals:
        return
    best = max(rivals, key=_accuracy)
    yield Paragraph(_of_the_best(best, rivals, study.run_of(NONE)))


def _of_the_best(best: Run, rivals: Sequence[Run], none: Run | None) -> str:
    name, reached = f"**{quoted(best.label)}**", f"{100 * _accuracy(best):.2f} %"
    if len(rivals) == 1:
        return f"{name} reaches {reached}. {_price(best, none)}".strip()
    equals = [run for run in rivals if run is best or _not_told_apart(best, run)]
    unknown = [run for run in rivals if _common(best, run) < 2]
    said = f"{name} is the highest of those that compete, {reached}. {_price(best, none)} "
    if unknown:
        names = few([quoted(run.label) for run in unknown if run is not best], 5)
        said += f"Fewer than two seeds in common with {names}: no spread to judge by. "
    others = [run for run in equals if run is not best]
    if not others:
        return said.strip()
    cheapest = min(equals, key=_seconds)
    names = few([quoted(run.label) for run in others], 5)
    said += (
        "Not told apart from it by these seeds (the 95 % interval of the difference, seed by "
        f"seed, includes 0): {names}. "
    )
    if cheapest is not best:
        said += (
            f"Of these **{quoted(cheapest.label)}** is the quickest, "
            f"{duration(_seconds(cheapest))} of training against {duration(_seconds(best))}, "
            f"and keeps {megabytes(_kept(cheapest))} against {megabytes(_kept(best))}."
        )
    else:
        said += f"None of these is quicker than {quoted(best.label)}."
    return said


def _price(run: Run, none: Run | None) -> str:
    """Beside none."""
    keeps = f"keeps {megabytes(_kept(run))}"
    if none is None or run is none or not _seconds(none):
        return f"It trains for {duration(_seconds(run))} a seed and {keeps}."
    times = f"{_seconds(run) / _seconds(none):.3g} times the training seconds"
    ours, theirs = spread(run, _CPU.measure), spread(none, _CPU.measure)
    if ours and theirs and theirs.mean:
        times += f" and {ours.mean / theirs.mean:.3g} times the CPU seconds"
    return f"It takes {times} of none and {keeps}."


def _not_told_apart(best: Run, run: Run) -> bool:
    """The best is not better beyond the spread."""
    mine = {seed.seed: seed.average_accuracy for seed in best.runs}
    both = [seed for seed in run.runs if seed.seed in mine]
    found = paired([mine[s.seed] for s in both], [s.average_accuracy for s in both])
    return found.n > 1 and not found.better


def _common(a: Run, b: Run) -> int:
    return len({seed.seed for seed in a.runs} & {seed.seed for seed in b.runs})


def _accuracy(run: Run) -> float:
    return sum(seed.average_accuracy for seed in run.runs) / len(run.runs)


def _seconds(run: Run) -> float:
    return sum(seed.train_seconds for seed in run.runs) / len(run.runs)


def _kept(run: Run) -> float:
    return sum(sum(seed.memory_bytes.values()) for seed in run.runs) / len(run.runs)


def _machines(runs: Sequence[Run]) -> Iterator[Paragraph]:
    groups = hosts(runs)
    if len(groups) > 1:
        said = "; ".join(
            f"{few([quoted(run.label) for run in group], 5)} on {quoted(host(group[0]))}"
            for group in groups
        )
        yield Paragraph(
            f"**Times and memory are not comparable, for they were measured on different "
            f"machines**: {said}. Accuracies, bytes kept and operations do not depend on that.",
            "warning",
        )


# --- the table ---------------------------------------------------------------------------


def _table(runs: Sequence[Run], prefix: str) -> Table:
    """Columns of which nothing was measured are left out for people."""
    shown = [c for c in COSTS if any(spread(run, c.measure) is not None for run in runs)]
    rows = [
        (quoted(run.label), str(len(run.runs)), *(_cell(run, c) for c in shown)) for run in runs
    ]
    missing = [c.heading.rstrip(" ▼%") for c in COSTS if c not in shown]
    several = any(len(run.runs) > 1 for run in runs)
    note = "Mean ± sample standard deviation over n seeds." if several else "One seed each."
    if several and any(c.key == "rss_growth_bytes" for c in shown):
        note += " Later seeds find memory that earlier ones of their process have left."
    note += f" Not measured: {', '.join(missing)}." if missing else ""
    head = ("strategy", "n", *(c.heading for c in shown))
    return Table(f"{prefix}cost-seed", "Cost per seed", head, tuple(rows), _data(runs), note)


def _cell(run: Run, column: Column) -> str:
    """joint keeps nothing because it needs everything."""
    return "all data" if column is _KEPT and run.strategy == JOINT else cell(run, column)


def _data(runs: Sequence[Run]) -> Data:
    head = ("strategy", "n", *(f"{c.key}_{part}" for c in COSTS for part in ("mean", "sd")))
    rows = []
    for run in runs:
        found = [spread(run, column.measure) for column in COSTS]
        values = [v for s in found for v in ((s.mean, s.sd) if s else (None, None))]
        rows.append((run.label, len(run.runs), *values))
    return Data(head, tuple(rows))


# --- accuracy against cost ---------------------------------------------------------------


def _pareto(study: Study, runs: Sequence[Run], plot: _Against, prefix: str) -> Figure | None:
    """None: this cost was measured of fewer than two strategies."""
    apart = [run for run in runs if run.strategy == JOINT] if plot.column is _KEPT else []
    dots = [_dot(run, plot) for run in runs if run not in apart]
    known = [dot for dot in dots if dot is not None]
    if len(known) < 2:
        return None
    most = sorted(apart, key=_accuracy)[-1:]
    levels = [Level(r.label, look(r.strategy, r.variant), 100 * _accuracy(r)) for r in most]
    missing = [run.label for run in runs if spread(run, plot.column.measure) is None]
    return Figure(
        f"{prefix}{plot.name}",
        plot.title,
        _alt(known, levels, plot, 100 * study.floor),
        partial(pareto.draw, known, levels, 100 * study.floor, plot.label),
        _caption(runs, known, plot, missing),
        _points(runs, pareto.front(known), plot),
    )


def _dot(run: Run, plot: _Against) -> Dot | None:
    cost, accuracy = spread(run, plot.column.measure), spread(run, ACCURACY.measure)
    if cost is None or accuracy is None:
        return None
    return Dot(
        run.label,
        run.strategy,
        look(run.strategy, run.variant),
        cost.mean * plot.scale,
        None if cost.sd is None else cost.sd * plot.scale,
        100 * accuracy.mean,
        None if accuracy.sd is None else 100 * accuracy.sd,
        run.strategy not in KEEPS_ALL,
    )


def _caption(
    runs: Sequence[Run], dots: Sequence[Dot], plot: _Against, missing: Sequence[str]
) -> str:
    counts = sorted({len(run.runs) for run in runs})
    n = "-".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))
    spread_ = "one seed, no spread" if counts == [1] else f"mean ± sample sd over n = {n} seeds"
    parts = [plot.note, f"Up and to the left is better; {spread_}."]
    parts.append("Dashed: the Pareto front of means of what competes; hollow: sees all data again.")
    if any(not dot.cost for dot in dots) and logarithmic(pareto.costs(dots)):
        parts.append("Left of the first mark above 0 the axis runs evenly to 0.")
    if len(dots) > pareto.MOST_LABELS:
        parts.append(
            "Named: the front, and the most accurate of none and of what sees all data; variants "
            "of a strategy share its colour, and all are in the data."
        )
    if missing:
        parts.append(f"Not measured: {quoted(', '.join(missing))}.")
    return " ".join(parts)


def _alt(dots: Sequence[Dot], levels: Sequence[Level], plot: _Against, floor: float) -> str:
    best = pareto.front(dots)
    unit = "MB" if plot.column is _KEPT else "s"
    told = [f"{d.label} {d.accuracy:.1f} % at {d.cost:.3g} {unit}" for d in best]
    others = [f"{d.label} {d.accuracy:.1f} % at {d.cost:.3g} {unit}" for d in dots if d not in best]
    text = f"Accuracy against {plot.label}. On the Pareto front: {few(told)}."
    text += f" Beside it: {few(others)}." if others else ""
    text += "".join(f" {one.label}: {one.accuracy:.1f} %." for one in levels)
    return f"{text} Majority floor: {floor:.1f} %."


def _points(runs: Sequence[Run], best: Sequence[Dot], plot: _Against) -> Data:
    """Nothing is rounded on the way: not what is drawn, but what it is drawn from."""
    key, names = plot.column.key, {dot.label for dot in best}
    head = ("strategy", "accuracy_mean", "accuracy_sd", f"{key}_mean", f"{key}_sd", "on_front")
    rows: list[tuple[Value, ...]] = []
    for run in runs:
        found = [spread(run, ACCURACY.measure), spread(run, plot.column.measure)]
        values = [v for s in found for v in ((s.mean, s.sd) if s else (None, None))]
        rows.append((run.label, *values, int(run.label in names)))
    return Data(head, tuple(rows))
