"""What costs are made up of: bytes by kind, seconds by phase, use over time."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from cache.errors import Refused
from stages.report.figures import over_time as courses_figure
from stages.report.figures import stacks
from stages.report.figures.over_time import Course
from stages.report.figures.scale import duration, megabytes
from stages.report.figures.stacks import Bar
from stages.report.figures.style import look
from stages.report.page.document import Block, Data, Figure, Paragraph, Value, quoted
from stages.report.reading.runs import JOINT, Run
from stages.report.reading.series import RESOURCES, Sample, series_of
from stages.report.sections.forgetting_curves import chosen
from stages.report.terminal.remarks import KEEPS_ALL

KINDS = ("buffer", "generator", "snapshots")
PHASES = ("load", "replay", "solver", "generator", "evaluation", "other", "record")
"""As train names them; a strategy that is not ours may have others."""
_MOST_BARS, _MOST_ROWS = 24, 12


def _in_order(found: Iterable[str], usual: Sequence[str]) -> list[str]:
    names = set(found)
    return [n for n in usual if n in names] + sorted(names - set(usual))


def few(texts: Sequence[str], most: int = _MOST_ROWS) -> str:
    """
    >>> few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _but(count: int, most: int) -> str:
    best = f" Shown: the best of each strategy, then the most accurate, {most} of {count}; all are"
    return f"{best} in the data." if count > most else ""


def _few_bars(bars: Sequence[Bar], runs: Sequence[Run]) -> list[Bar]:
    """Those of a figure, of all runs."""
    shown = {run.label for run in chosen(runs, _MOST_BARS)}
    return [bar for bar in bars if bar.label in shown]


# --- bytes -------------------------------------------------------------------------------


def parts_kept(runs: Sequence[Run], prefix: str) -> Iterator[Block]:
    kinds = _in_order((kind for run in runs for s in run.runs for kind in s.memory_bytes), KINDS)
    if not kinds:
        return
    bars = [_kept(run) for run in runs]
    several = any(run.runs[1:] for run in runs)
    beside = any(bar.beside is not None for bar in bars)
    caption = (
        "Bytes kept from one task to the next"
        f"{', mean over seeds' if several else ''}; 1 MB = 1e6 bytes."
    )
    if any(run.strategy == JOINT for run in runs):
        caption += " joint keeps nothing, for it sees all data at once."
    if beside:
        caption += (
            " Beside it: how far resident memory grew at its peak while training, of the seed "
            "for which it grew most (later seeds find memory that earlier ones have left)."
        )
    yield Figure(
        f"{prefix}kept-parts",
        "Memory kept, by kind",
        "Kept between tasks: " + few([f"{b.label} {b.total}" for b in bars]) + ".",
        partial(
            stacks.draw,
            _few_bars(bars, runs),
            kinds,
            "kept between tasks (MB)",
            "RSS growth (MB)" if beside else "",
        ),
        caption + _but(len(bars), _MOST_BARS),
        Data(
            ("strategy", *(f"{kind}_bytes" for kind in kinds), "rss_growth_bytes_most"),
            tuple(
                (run.label, *(_mean_kept(run, kind) for kind in kinds), _growth(run))
                for run in runs
            ),
        ),
    )  # fmt: skip


def _kept(run: Run) -> Bar:
    kinds = {kind for seed in run.runs for kind in seed.memory_bytes}
    parts = {kind: _mean_kept(run, kind) / 1e6 for kind in kinds}
    total, growth = 1e6 * sum(parts.values()), _growth(run)
    words = megabytes(total) if total else "keeps nothing"
    if run.strategy in KEEPS_ALL:
        words = "all data" if run.strategy == JOINT else f"{words}: all data"
    return Bar(run.label, parts, words, None if growth is None else growth / 1e6)


def _mean_kept(run: Run, kind: str) -> float:
    return statistics.fmean(seed.memory_bytes.get(kind, 0) for seed in run.runs)


def _growth(run: Run) -> int | None:
    found = [seed.resources.total.rss_growth_bytes for seed in run.runs if seed.resources]
    return max((value for value in found if value is not None), default=None)


# --- seconds -----------------------------------------------------------------------------


def parts_of_time(runs: Sequence[Run], prefix: str) -> Iterator[Block]:
    told = [run for run in runs if all(s.resources and s.resources.phases for s in run.runs)]
    if not told:
        yield Paragraph("Seconds by phase: not recorded.", "note")
        return
    seconds = {run.label: _phases(run) for run in told}
    order = _in_order((phase for parts in seconds.values() for phase in parts), PHASES)
    bars = [
        Bar(label, parts, duration(sum(parts.values()))) for label, parts in seconds.items()
    ]  # fmt: skip
    missing = [run.label for run in runs if run not in told]
    yield Figure(
        f"{prefix}time-parts",
        "Time, by phase",
        "Seconds of a seed, and of its longest phase: "
        + few([f"{label} {_told(parts)}" for label, parts in seconds.items()])
        + ".",
        partial(stacks.draw, _few_bars(bars, told), order, "seconds per seed (wall time)"),
        "Wall seconds of a seed"
        f"{', mean over seeds' if any(run.runs[1:] for run in told) else ', one seed'}. load: "
        "the cache and batches of it; replay: drawing, labelling or reading what is replayed; "
        "solver and generator: their steps; evaluation: all answers to held-out rows."
        + (f" Not recorded: {quoted(', '.join(missing))}." if missing else "")
        + _but(len(bars), _MOST_BARS),
        Data(
            ("strategy", *(f"{phase}_seconds" for phase in order)),
            tuple((run.label, *(seconds[run.label].get(p) for p in order)) for run in told),
        ),
    )


def _phases(run: Run) -> dict[str, float]:
    """Mean seconds; a phase that a seed does not have took it none."""
    names = {name for s in run.runs if s.resources for name in s.resources.phases}
    return {
        name: statistics.fmean(
            (phase.wall_seconds or 0.0)
            if seed.resources and (phase := seed.resources.phases.get(name))
            else 0.0
            for seed in run.runs
        )
        for name in names
    }


def _told(parts: dict[str, float]) -> str:
    most = max(parts, key=lambda name: parts[name])
    return f"{duration(sum(parts.values()))} ({most} {duration(parts[most])})"


# --- over time ---------------------------------------------------------------------------


def over_time(runs: Sequence[Run], prefix: str) -> Iterator[Block]:
    courses, missing = [], []
    for run in runs:
        try:
            samples = series_of(run)
        except Refused as error:
            yield Paragraph(f"{quoted(run.label)}: {quoted(str(error))}", "warning")
            samples = None
        if samples is None:
            missing.append(run.label)
        else:
            courses.append(Course(run.label, look(run.strategy, run.variant), samples))
    told = [run for run in runs if run.label not in missing]
    names = {run.label for run in chosen(told, _MOST_ROWS)}
    shown = [course for course in courses if course.label in names]
    if not courses_figure.panels(shown):
        yield Paragraph(f"Use over time: not recorded ({RESOURCES}).", "note")
        return
    yield _courses(courses, shown, missing, prefix)


def _courses(
    courses: Sequence[Course], shown: Sequence[Course], missing: Sequence[str], prefix: str
) -> Figure:
    phases = _in_order((s.phase for course in courses for s in course.samples), PHASES)
    return Figure(
        f"{prefix}over-time",
        "Use over time",
        "Use of the machine over time, of the first seed; seconds and resident memory: "
        + few([_peaks(course) for course in courses])
        + ".",
        partial(courses_figure.draw, shown, phases),
        "The first seed of each strategy. RSS: resident memory of the process; CPU: seconds of "
        "all threads per second, 100 % is one core. The lanes below the line: which phase a "
        "sample was taken in, in the order of the legend (record: looking at what is replayed, "
        "in no total). Seconds differ from row to row; a quantity has one scale, which for RSS "
        "does not begin at 0."
        + (f" Not recorded: {quoted(', '.join(missing))}." if missing else "")
        + _but(len(courses), _MOST_ROWS),
        Data(
            ("strategy", *Sample.model_fields),
            tuple(_line(course.label, sample) for course in courses for sample in course.samples),
        ),
    )


def _line(label: str, sample: Sample) -> tuple[Value, ...]:
    return (label, *sample.model_dump().values())


def _peaks(course: Course) -> str:
    rss = [sample.rss_bytes for sample in course.samples if sample.rss_bytes is not None]
    text = f"{course.label} {duration(course.samples[-1].seconds)}"
    return f"{text} (at most {megabytes(max(rss))})" if rss else text
