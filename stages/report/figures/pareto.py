"""Accuracy against a cost: one mark a strategy, and the front of those that are worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.figures.labels import label
from stages.report.figures.scale import fit
from stages.report.figures.style import FAINT, INK, PAPER, Look, canvas
from stages.report.reading.runs import NONE

MOST_LABELS = 12
"""With more marks only the front and what is no rival are named."""


@dataclass(frozen=True)
class Dot:
    """A strategy: means over seeds, with sample standard deviations (None: one seed)."""

    label: str
    strategy: str
    look: Look
    cost: float
    cost_sd: float | None
    accuracy: float
    """Per cent, as is its deviation."""
    accuracy_sd: float | None
    rival: bool = True
    """False: it sees all data and does not compete."""

    @property
    def shown(self) -> str:
        return self.label if self.rival else f"{self.label} (all data)"


@dataclass(frozen=True)
class Level:
    """A strategy whose cost means nothing here: a line at its accuracy, per cent."""

    label: str
    look: Look
    accuracy: float


def front(dots: Sequence[Dot]) -> list[Dot]:
    """Rivals by rising cost: none other is at least as good in both and better in one.  Equal
    ones are all on it."""
    kept: list[Dot] = []
    best = (-1.0, -1.0)
    rivals = [dot for dot in dots if dot.rival]
    for dot in sorted(rivals, key=lambda dot: (dot.cost, -round(dot.accuracy, 7))):
        this = (dot.cost, round(dot.accuracy, 7))  # no rank from rounding errors
        if this[1] > best[1] or this == best:
            kept.append(dot)
            best = this
    return kept


def draw(dots: Sequence[Dot], levels: Sequence[Level], floor: float, xlabel: str) -> Any:
    """`floor`: per cent; `xlabel` with its unit."""
    figure, left_out = _drawn(dots, levels, floor, xlabel, legend=False)
    if left_out and len(dots) <= MOST_LABELS:
        figure, _ = _drawn(dots, levels, floor, xlabel, legend=True)
    return figure


def _drawn(
    dots: Sequence[Dot], levels: Sequence[Level], floor: float, xlabel: str, *, legend: bool
) -> tuple[Any, list[str]]:
    """The figure, and the names for which it had no room."""
    many = len(dots) > MOST_LABELS
    entries = _families(dots) if many else _entries(dots) if legend else []
    columns = max(1, int(84 / (6 + max((len(e.get_label()) for e in entries), default=0))))
    figure = canvas(height=3.6 + 0.2 * -(-len(entries) // columns))
    axes = figure.add_subplot()
    for dot in dots:
        _mark(axes, dot)
    best = front(dots)
    fit(axes, costs(dots))
    _steps(axes, best)
    _room(axes, dots, levels)
    for level in levels:
        style = {"color": level.look.colour, "linestyle": level.look.line, "linewidth": 1.2}
        axes.axhline(level.accuracy, zorder=1, **style)
    _floor(axes, floor)
    axes.set(xlabel=xlabel, ylabel="accuracy (%)")
    for level in levels:
        _words(
            axes, level.accuracy, f"{level.label} (all data), {level.accuracy:.1f} %", above=True
        )
    if entries:
        made = figure.legend(handles=entries, loc="outside lower left", ncols=columns)
        for text in made.get_texts():
            text.set_parse_math(False)
    if legend:
        return figure, []
    wanted = [*best, *(_ends(dots, best) if many else [dot for dot in dots if dot not in best])]
    boxes = [(cost, dot.accuracy, dot.accuracy_sd or 0.0) for dot in dots for cost in _reach(dot)]
    named = [((dot.cost, dot.accuracy, dot.accuracy_sd or 0.0), dot.shown) for dot in wanted]
    return figure, label(figure, axes, named, boxes)


def _ends(dots: Sequence[Dot], best: Sequence[Dot]) -> list[Dot]:
    """Of none and of what does not compete the most accurate, unless they are on the front."""
    ends = [dot for dot in dots if not dot.rival or dot.strategy == NONE]
    most = {dot.strategy: dot for dot in sorted(ends, key=lambda dot: dot.accuracy)}
    named = {dot.strategy for dot in best}
    return [dot for dot in most.values() if dot.strategy not in named]


def _entries(dots: Sequence[Dot]) -> list[Any]:
    """Of a legend: every mark."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], linestyle="none", label=dot.shown, **_style(dot)) for dot in dots]


def _families(dots: Sequence[Dot]) -> list[Any]:
    """Of a legend: colours of strategies, whose variants differ in their marks."""
    from matplotlib.patches import Patch

    colours = {dot.strategy: dot.look.colour for dot in dots}
    return [Patch(facecolor=colour, label=strategy) for strategy, colour in colours.items()]


def costs(dots: Sequence[Dot]) -> list[float]:
    """All that the axis is made for, ends of bars included."""
    return [cost for dot in dots for cost in _reach(dot)]


def _reach(dot: Dot) -> list[float]:
    """Places on the bar of its cost, none below 0."""
    sd = dot.cost_sd or 0.0
    return [dot.cost + k * sd for k in (-1, -0.5, 0, 0.5, 1) if dot.cost + k * sd > 0 or not sd]


def _mark(axes: Any, dot: Dot) -> None:
    spread = {"xerr": dot.cost_sd or None, "yerr": dot.accuracy_sd or None}
    axes.errorbar(
        [dot.cost], [dot.accuracy], linestyle="none", elinewidth=1.0, zorder=3, **spread,
        **_style(dot),
    )  # fmt: skip


def _style(dot: Dot) -> dict[str, Any]:
    return {
        "color": dot.look.colour,
        "marker": dot.look.mark,
        "markersize": 7,
        "markerfacecolor": dot.look.colour if dot.rival else PAPER,
    }


def _steps(axes: Any, best: Sequence[Dot]) -> None:
    """The best accuracy that so much buys."""
    right = axes.get_xlim()[1]
    xs, ys = [dot.cost for dot in best], [dot.accuracy for dot in best]
    if best:
        style = {"color": FAINT, "linestyle": (0, (4, 2)), "linewidth": 1.1, "zorder": 1}
        axes.plot([*xs, right], [*ys, ys[-1]], drawstyle="steps-post", **style)


def _room(axes: Any, dots: Sequence[Dot], levels: Sequence[Level]) -> None:
    """Above and below what is drawn, for names."""
    ends = [dot.accuracy + k * (dot.accuracy_sd or 0) for dot in dots for k in (-1, 1)]
    ends += [level.accuracy for level in levels]
    low, high = min(ends), max(ends)
    room = 0.16 * max(high - low, 1.0)
    axes.set_ylim(low - room, high + room)


def _floor(axes: Any, floor: float) -> None:
    """A line; words alone where it lies far below all marks."""
    bottom, top = axes.get_ylim()
    text = f"majority floor {floor:.1f} %"
    if floor < bottom - 0.6 * (top - bottom):
        axes.set_ylim(bottom=bottom - 0.09 * (top - bottom))
        axes.annotate(
            f"▼ {text}, below this axis", (0.99, 0.0), xycoords="axes fraction", xytext=(0, 4),
            textcoords="offset points", ha="right", va="bottom", color=FAINT, fontsize=9,
        )  # fmt: skip
        return
    axes.set_ylim(bottom=min(bottom, floor - 0.09 * (top - min(bottom, floor))))
    axes.axhline(floor, color=FAINT, linestyle=":", linewidth=1.4, zorder=1)
    _words(axes, floor, text, above=False)


def _words(axes: Any, y: float, text: str, *, above: bool) -> None:
    """Beside a line, at its right end."""
    axes.annotate(
        text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(0, 2 if above else -3),
        textcoords="offset points", ha="right", va="bottom" if above else "top", color=INK,
        fontsize=9, parse_math=False,
    )  # fmt: skip
