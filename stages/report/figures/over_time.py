"""Memory and processor use while a strategy trains: a row of small figures for each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.figures.stacks import part_colours
from stages.report.figures.style import WIDTH, Look, canvas
from stages.report.figures.words import short
from stages.report.reading.series import Sample

Value = Callable[[Sequence[Sample]], list[float | None]]
"""One for each sample."""
_STRIP = 0.24
"""Of the height, for phases: a lane each."""


@dataclass(frozen=True)
class Course:
    """A strategy's samples of one seed, in the order of time."""

    label: str
    look: Look
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Panel:
    title: str
    value: Value
    from_nought: bool = True


def processor(samples: Sequence[Sample]) -> list[float | None]:
    """Per cent of a core between a sample and the one before it; None for the first."""
    found: list[float | None] = [None] * min(len(samples), 1)
    for before, after in itertools.pairwise(samples):
        apart = after.seconds - before.seconds
        if before.cpu_seconds is None or after.cpu_seconds is None or apart <= 0:
            found.append(None)
        else:
            found.append(100 * (after.cpu_seconds - before.cpu_seconds) / apart)
    return found


def _scaled(field: str, scale: float) -> Value:
    def value(samples: Sequence[Sample]) -> list[float | None]:
        values = [getattr(sample, field) for sample in samples]
        return [None if found is None else scale * found for found in values]

    return value


RSS = Panel("RSS (MB)", _scaled("rss_bytes", 1e-6), from_nought=False)
CPU = Panel("CPU (% of a core)", processor)
GPU = Panel("GPU use (%)", _scaled("gpu_utilisation_percent", 1))
GPU_MEMORY = Panel("GPU memory (MB)", _scaled("gpu_memory_bytes", 1e-6))


def panels(courses: Sequence[Course]) -> list[Panel]:
    """What was measured of any of them."""
    return [
        panel
        for panel in (RSS, CPU, GPU, GPU_MEMORY)
        if any(v is not None for course in courses for v in panel.value(course.samples))
    ]


def draw(courses: Sequence[Course], phases: Sequence[str]) -> Any:
    """`courses`: at least one in which something was measured.

    Time runs as far as each strategy took; what was measured is to one scale in all rows.
    Below the lines lanes show the phase."""
    shown = panels(courses)
    across = min(2, len(shown))
    down = -(-len(shown) // across)
    figure = canvas(WIDTH, 1.0 + 1.1 * len(courses) * down)
    grid = figure.subplots(len(courses) * down, across, squeeze=False)
    for k, panel in enumerate(shown):
        values = [v for course in courses for v in panel.value(course.samples) if v is not None]
        ends = 0.0 if panel.from_nought else min(values), max(values)
        for row, course in enumerate(courses):
            axes = grid[row * down + k // across][k % across]
            _line(axes, course, panel, ends, phases)
            if row == 0:
                axes.set_title(panel.title, pad=20)
            if k == 0:
                axes.annotate(
                    short(course.label, 40), (0, 1), xycoords="axes fraction",
                    xytext=(0, 3), textcoords="offset points",
                    va="bottom", fontweight="bold", parse_math=False,
                )  # fmt: skip
    for axes in grid[-1]:
        axes.set_xlabel("seconds since the seed began")
    if len(shown) < down * across:
        for row in range(down - 1, len(grid), down):
            grid[row][-1].remove()
    _legend(figure, courses, phases)
    return figure


def _legend(figure: Any, courses: Sequence[Course], phases: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    met = {sample.phase for course in courses for sample in course.samples}
    colours = part_colours(phases).items()
    patches = [Patch(label=name, facecolor=colour) for name, colour in colours if name in met]
    figure.legend(handles=patches, loc="outside upper left", ncols=4, handlelength=1.4)


def _line(
    axes: Any, course: Course, panel: Panel, ends: tuple[float, float], phases: Sequence[str]
) -> None:
    pairs = zip(course.samples, panel.value(course.samples), strict=True)
    known = [(sample.seconds, value) for sample, value in pairs if value is not None]
    if known:
        axes.plot(
            *zip(*known, strict=True), color=course.look.colour, linestyle=course.look.line,
            linewidth=1.3,
        )  # fmt: skip
    room = max(ends[1] - ends[0], 1.0)
    axes.set_ylim(ends[0] - 0.42 * room, ends[1] + 0.1 * room)
    axes.set_xlim(0, max(1e-3, course.samples[-1].seconds))
    axes.locator_params(axis="y", nbins=4)
    axes.locator_params(axis="x", nbins=6)
    lane = _STRIP / len(phases)
    for k, (phase, colour) in enumerate(part_colours(phases).items(), 1):
        spans = _spans(course.samples, phase)
        bars = axes.broken_barh(spans, (_STRIP - k * lane, lane), facecolor=colour, linewidth=0)
        bars.set_transform(axes.get_xaxis_transform())


def _spans(samples: Sequence[Sample], phase: str) -> list[tuple[float, float]]:
    """Each sample stands for the time since the one before it."""
    starts = [0.0, *(sample.seconds for sample in samples)]
    return [
        (start, sample.seconds - start)
        for start, sample in zip(starts, samples, strict=False)
        if sample.phase == phase
    ]
