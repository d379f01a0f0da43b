"""Accuracy while tasks are learnt: of all strategies, and of the tasks of one.

Values are fractions; None where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.report.figures.matrices import MAP
from stages.report.figures.style import FAINT, PAPER, WIDTH, Look, canvas
from stages.report.figures.words import SMALL, apart, short, width
from stages.report.terminal.table import Spread

_LONGEST = 24
NAMED = 3
"""Variants of a strategy that are all named in its panel."""
BARS = 10
"""Tasks up to which a spread is drawn as bars, beside each other; later as a band."""
_TASKS = 12
"""Lines of a figure of tasks, at most."""
_NAMED_TASKS = 6
"""Lines of it up to which each is named; of more the first, the middle and the last."""


@dataclass(frozen=True)
class Line:
    name: str
    look: Look
    values: Sequence[Spread | None]
    """After each task."""

    @property
    def last(self) -> float:
        """Where its name stands; NaN if nowhere."""
        known = [value.mean for value in self.values if value is not None]
        return known[-1] if known else math.nan


@dataclass(frozen=True)
class Panel:
    """Lines of one strategy among all."""

    title: str
    lines: Sequence[Line]
    notes: Mapping[int, str] = field(default_factory=dict)
    """Names of some lines, by place; the others are thin, if there are such."""


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis in per cent, with some room, in steps of 5.

    >>> limits([0.52, 0.93])
    (45.0, 100.0)
    """
    low = 5 * math.floor(20 * min(values, default=0.0) - 0.5)
    high = 5 * math.ceil(20 * max(values, default=1.0) + 0.5)
    return float(max(low, -2)), float(min(high, 102 if max(values, default=1) > 0.99 else 100))


def over_tasks(lines: Sequence[Line], floor: Sequence[float]) -> Any:
    """All in one, each named where it ends."""
    names = [f"{short(line.name, _LONGEST)} {100 * line.last:.1f}" for line in lines]
    names.append(f"majority floor {100 * floor[-1]:.1f}")
    right = min(width(names) + 0.35, 2.4)
    height = max(3.3, 0.16 * len(names) + 0.9)
    figure = canvas(WIDTH, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes(
        (0.62 / WIDTH, 0.5 / height, (WIDTH - right - 0.62) / WIDTH, (height - 0.62) / height)
    )
    _axes(axes, len(floor), _limits(lines, floor))
    axes.set_xlabel("tasks learnt")
    axes.set_ylabel("accuracy on them (%)")
    for place, line in enumerate(lines):
        _line(axes, line, (place - (len(lines) - 1) / 2) / max(len(lines), 1))
    _floor(axes, floor)
    ends = [100 * line.last for line in lines] + [100 * floor[-1]]
    colours = [line.look.colour for line in lines] + [FAINT]
    _label_ends(axes, len(floor), ends, names, colours, height - 0.62)
    return figure


def small_multiples(panels: Sequence[Panel], floor: Sequence[float]) -> Any:
    """One panel for each strategy, the others' lines faint behind it."""
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    figure = canvas(WIDTH, 0.45 + 1.75 * rows)
    every = [line for panel in panels for line in panel.lines]
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(panels):
            axes.set_axis_off()
            continue
        panel = panels[place]
        _axes(axes, len(floor), _limits(every, floor))
        for line in every:
            if line not in panel.lines:
                _plain(axes, line, FAINT, 0.5)
        _floor(axes, floor)
        _panel(axes, panel)
    figure.supxlabel("tasks learnt", fontsize=SMALL)
    figure.supylabel("accuracy on them (%)", fontsize=SMALL)
    return figure


def _panel(axes: Any, panel: Panel) -> None:
    for place, line in enumerate(panel.lines):
        if panel.notes and place not in panel.notes:
            _plain(axes, line, line.look.colour, 0.7)
        else:
            _line(axes, line, 0.0)
    # The title first, then the names, above the axes: nothing lies upon a line.
    above = 4 + 13 * len(panel.notes)
    axes.set_title(short(panel.title, 32), fontsize=SMALL + 1, pad=above)
    if panel.notes:
        axes.legend(
            [line for line in axes.lines if line.get_gid() == "named"],
            [short(note, 30) for note in panel.notes.values()],
            fontsize=SMALL, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0,
            borderpad=0, labelspacing=0.25,
        )  # fmt: skip


def by_task(
    tasks: Sequence[Sequence[float | None]], floor: float, within: tuple[float, float]
) -> Any:
    """A line for each task from when it was learnt: dark blue the first, yellow the last.

    `tasks[j][i]`: accuracy on task j after task i; nothing is drawn of i < j.  `within`: the
    limits of all such figures that stand side by side, per cent.
    """
    import matplotlib

    count = len(tasks)
    shown = _some(count, _TASKS)
    named = shown if len(shown) <= _NAMED_TASKS else [shown[0], shown[len(shown) // 2], shown[-1]]
    names = [f"task {j + 1}" for j in named]
    size, right = (2.7, 2.25), width(names) + 0.2
    figure = canvas(*size)
    figure.set_layout_engine("none")
    high = size[1] - 0.58
    axes = figure.add_axes(
        (0.56 / size[0], 0.46 / size[1], (size[0] - 0.56 - right) / size[0], high / size[1])
    )
    _axes(axes, count, within, ticks=5)
    axes.set_xlabel("tasks learnt", fontsize=SMALL)
    axes.set_ylabel("accuracy (%)", fontsize=SMALL)
    axes.axhline(100 * floor, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
    shades = matplotlib.colormaps[MAP]
    colours = {j: shades(0.35 + 0.55 * j / max(count - 1, 1)) for j in shown}
    few = len(shown) <= _NAMED_TASKS
    for j in shown:
        points = [(i + 1, 100 * v) for i, v in enumerate(tasks[j]) if v is not None and i >= j]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colours[j], marker="o", markersize=3.5 if few else 2,
                      linewidth=1.8 if few else 1.2)  # fmt: skip
    ends = [math.nan if (last := tasks[j][-1]) is None else 100 * last for j in named]
    _label_ends(axes, count, ends, names, [colours[j] for j in named], high)
    return figure


def _some(count: int, most: int) -> list[int]:
    """All places, or some from the first to the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})


def _limits(lines: Sequence[Line], floor: Sequence[float]) -> tuple[float, float]:
    known = [value for line in lines for value in line.values if value is not None]
    low = [value.mean - (value.sd or 0) for value in known]
    high = [value.mean + (value.sd or 0) for value in known]
    return limits([*low, *high, *floor])


def _axes(axes: Any, tasks: int, within: tuple[float, float], ticks: int = 10) -> None:
    step = math.ceil(tasks / ticks)
    axes.set_xticks(range(1, tasks + 1, step))
    axes.set_xlim(0.7, tasks + 0.3)
    axes.set_ylim(*within)
    axes.grid(visible=False, axis="x")
    axes.tick_params(labelsize=SMALL, length=0)


def _line(axes: Any, line: Line, aside: float) -> None:
    """`aside` (-0.5..0.5): bars of several lines stand beside each other."""
    known = [(i, v) for i, v in enumerate(line.values, 1) if v is not None]
    if not known:
        return
    tasks, colour = len(line.values), line.look.colour
    few = tasks <= BARS
    x = [i + (0.24 * aside if few else 0.0) for i, _ in known]
    y = [100 * v.mean for _, v in known]
    sd = [100 * (v.sd or 0.0) for _, v in known]
    axes.plot(
        x, y, color=colour, linestyle=line.look.line, marker=line.look.mark, gid="named",
        markersize=6 if few else 3, markeredgecolor=PAPER if line.look.mark != "x" else colour,
        markeredgewidth=0.6 if line.look.mark != "x" else 1.6, zorder=4,
    )  # fmt: skip
    if len(known) == 1:  # a level, of what learns all tasks at once
        axes.plot([max(0.7, tasks - 1.0), tasks], [y[0], y[0]], color=colour,
                  linestyle=line.look.line, linewidth=1.4)  # fmt: skip
    if not any(sd):
        return
    if few:
        axes.errorbar(x, y, yerr=sd, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2)
    else:
        low, high = [a - b for a, b in zip(y, sd, strict=True)], [
            a + b for a, b in zip(y, sd, strict=True)
        ]  # fmt: skip
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _plain(axes: Any, line: Line, colour: str, strength: float) -> None:
    known = [(i, 100 * v.mean) for i, v in enumerate(line.values, 1) if v is not None]
    if len(known) > 1:
        axes.plot(*zip(*known, strict=True), color=colour, alpha=strength, linewidth=0.8)


def _floor(axes: Any, floor: Sequence[float]) -> None:
    places, dots = range(1, len(floor) + 1), (0, (1, 2))
    shown = [100 * value for value in floor]
    axes.plot(places, shown, color=FAINT, linewidth=1.2, linestyle=dots, zorder=2)


def _label_ends(
    axes: Any,
    tasks: int,
    ends: Sequence[float],
    names: Sequence[str],
    colours: Sequence[Any],
    inches: float,
) -> None:
    """Names right of where lines end, moved apart, with a thin line to the end if moved far."""
    from matplotlib.transforms import blended_transform_factory

    named = [k for k, end in enumerate(ends) if not math.isnan(end)]
    low, high = axes.get_ylim()
    letter = (high - low) / inches / 72  # per cent for a point of 1/72 inch
    places = apart([ends[k] for k in named], 12 * letter, low, high)
    across = blended_transform_factory(axes.transAxes, axes.transData)
    left = (tasks - 0.7) / (tasks - 0.4)  # of the last task, a share of the axes
    for k, place in zip(named, places, strict=True):
        axes.plot(
            [left + 0.02, 1.015, 1.045], [ends[k], place, place], transform=across,
            color=colours[k], linewidth=0.7, clip_on=False, zorder=1,
        )  # fmt: skip
        axes.text(
            1.06, place, names[k], transform=across, va="center_baseline", fontsize=SMALL,
        )  # fmt: skip
