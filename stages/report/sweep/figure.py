"""A grid search in figures: accuracy against memory, and along two numeric options.

Drawn with matplotlib's file backends only, as SVG and PNG, equal bytes for
equal results.  Colours: Okabe & Ito 2008, told apart by colour-blind readers.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from cache.files import write_atomically
from stages.report.figures.labels import label
from stages.report.sweep.points import Point, Result, Sweep, Value, front, shown

_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#6E6E6E"
_FEW = 12
"""So many points are each labelled; more are told apart by colour, mark and line."""
_PANELS = 4
_LEGEND = 12
"""Values of an option that a legend shows at most."""
_MB = "1\u00a0MB\u00a0=\u00a01e6\u00a0bytes."  # with spaces at which no line is broken
_UNITS = {
    "lr": "learning rate of Adam",
    "iters": "iterations for each task",
    "batch-size": "rows of a batch",
    "buffer-size": "stored rows",
    "generator-units": "units of each hidden layer",
    "z": "length of the generator's code",
    "tasks": "number of tasks",
}
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.6,
    "lines.markersize": 7,
    "errorbar.capsize": 3,
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "svg.hashsalt": "lgr-pipe",
}

Drawn = tuple[Point, Result]


def draw(sweep: Sweep, out: Path) -> list[Path]:
    """Write accuracy_memory.svg and .png into `out`; with exactly two numeric options in the
    grid, grid.svg and .png too.  Returns what was written: nothing without a finished point."""
    if not sweep.done:
        return []
    with _style():
        written = _save(_accuracy_memory(sweep), out / "accuracy_memory")
        if len(_numeric(sweep)) == 2 and len(_panels(sweep)) <= _PANELS:
            written += _save(_along_two(sweep), out / "grid")
    return written


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


def _save(figure: Any, stem: Path) -> list[Path]:
    paths = []
    for kind, about in (("svg", {"Date": None}), ("png", {"Software": None})):
        image = io.BytesIO()
        figure.savefig(image, format=kind, metadata=about)
        paths.append(stem.with_suffix(f".{kind}"))
        write_atomically(paths[-1], partial(_copy, image.getvalue()))
    return paths


def _copy(content: bytes, handle: BinaryIO) -> None:
    handle.write(content)


def _figure(sweep: Sweep, width: float, height: float, note: str) -> Any:
    """An empty one, with its title above and a note below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    first = sweep.done[0][1]
    about = f"{first.dataset} · {first.backbone}, weights: {first.weights}"
    about += f" · {sweep.fixed['strategy']}" if "strategy" in sweep.fixed else ""
    fits = int(12 * width)
    figure.suptitle(
        about if len(about) <= fits else f"{about[: fits - 1]}…", fontsize=12, x=0.01, ha="left"
    )
    figure.supxlabel(
        textwrap.fill(note, int(14 * width)), fontsize=9, color="#404040", x=0.01, ha="left"
    )
    return figure


def _note(sweep: Sweep) -> str:
    counts = {len(result.runs) for _, result in sweep.done}
    n = "-".join(str(count) for count in sorted({min(counts), max(counts)}))
    spread = "one seed, no spread" if counts == {1} else f"mean ± sample sd over n = {n} seeds"
    failed = len(sweep.points) - len(sweep.done)
    lost = f"; {failed} of {len(sweep.points)} points failed" if failed else ""
    return f"Validation rows, {spread}{lost}."


# --- the grid ----------------------------------------------------------------------------


def _values(sweep: Sweep, name: str) -> list[Value]:
    """The different values of an option, in the grid's order."""
    return list(dict.fromkeys(point.options[name] for point in sweep.points))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric(sweep: Sweep) -> list[str]:
    """Options with at least two values, all numbers."""
    found = {name: _values(sweep, name) for name in sweep.names}
    return [n for n, values in found.items() if len(values) > 1 and all(map(_is_number, values))]


def _panels(sweep: Sweep) -> list[dict[str, Value]]:
    """Values of the options that are no axis of the second figure, in all combinations."""
    others = [name for name in sweep.names if name not in _numeric(sweep)]
    combined = itertools.product(*(_values(sweep, name) for name in others))
    return [dict(zip(others, values, strict=True)) for values in combined]


def _colour(index: int, count: int) -> str:
    """Of so many values; more values than colours: along cividis, made for the colour-blind."""
    if count <= len(_OKABE_ITO):
        return _OKABE_ITO[index]
    import matplotlib
    from matplotlib.colors import to_hex

    return str(to_hex(matplotlib.colormaps["cividis"](index / (count - 1))))


def _colours(sweep: Sweep, name: str) -> dict[Value, str]:
    values = _values(sweep, name)
    return {value: _colour(index, len(values)) for index, value in enumerate(values)}


def _legend_values(values: Sequence[Value]) -> list[Value]:
    """All, or so many of them, evenly, as a legend has room for."""
    if len(values) <= _LEGEND:
        return list(values)
    step = (len(values) - 1) / (_LEGEND // 2 - 1)
    return [values[round(k * step)] for k in range(_LEGEND // 2)]


# --- places on the axes ------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """An axis for values from `low` (above 0) to `high`; with `nought` it begins at 0."""

    low: float
    high: float
    nought: bool
    log: bool
    """Where values span more than a decade."""
    only: float | None
    """The value, where there is but one."""
    room: ClassVar[float] = 0.4
    """Decades that the way from 0 to `low` takes."""

    @classmethod
    def of(cls, values: Sequence[float]) -> _Scale:
        above = [value for value in values if value > 0] or [1.0]
        low, high, least = min(above), max(above), min(values)
        only = least if least == max(values) else None
        return cls(low, high, least == 0, least >= 0 and high > 10 * low, only)

    def beside(self, x: float, share: float) -> float:
        """The place to the right of x by this share of the axis."""
        if not self.log:
            return x + share * (self.high - (0 if self.nought else self.low) or self.high)
        decades = math.log10(self.high / self.low) + (self.room if self.nought else 0)
        if x > 0:
            return float(x * 10 ** (share * decades))
        return self.low * share * decades / self.room

    def apply(self, axes: Any) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter, SymmetricalLogLocator

        axes.margins(x=0.08)
        if self.only is not None:
            axes.set_xlim(self.only - 0.2 * self.high, self.only + 0.2 * self.high)
            axes.set_xticks([self.only], [f"{self.only:.3g}"])
        if not self.log:
            return
        steps = (1, 2, 5) if self.high < 300 * self.low else (1,)
        if self.nought:
            axes.set_xscale("symlog", linthresh=self.low, linscale=self.room)
            locator: Any = SymmetricalLogLocator(base=10, linthresh=self.low, subs=steps)
        else:
            axes.set_xscale("log")
            locator = LogLocator(subs=steps)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())  # would stand between those, and on them


@dataclass(frozen=True)
class _Mark:
    """A point where it is drawn: x, per cent, and the deviation (None: a single seed)."""

    point: Point
    x: float
    y: float
    sd: float | None


def _places(sweep: Sweep, scale: _Scale) -> list[_Mark]:
    """All finished points; those of equal memory side by side, so that bars can be told apart."""
    together: dict[float, list[Drawn]] = {}
    for pair in sweep.done:
        together.setdefault(pair[1].memory, []).append(pair)
    marks = []
    for memory, pairs in together.items():
        for share, (point, result) in zip(_shares(len(pairs)), pairs, strict=True):
            marks.append(_mark(point, result, scale.beside(memory / 1e6, share)))
    return marks


def _mark(point: Point, result: Result, x: float) -> _Mark:
    spread = result.accuracy
    return _Mark(point, x, 100 * spread.mean, None if spread.sd is None else 100 * spread.sd)


def _box(mark: _Mark) -> tuple[float, float, float]:
    return mark.x, mark.y, mark.sd or 0.0


def _shares(count: int) -> list[float]:
    """Shifts about a middle, as shares of an axis."""
    step = min(0.012, 0.06 / max(1, count - 1))
    return [(index - (count - 1) / 2) * step for index in range(count)]


def _draw_marks(axes: Any, marks: Sequence[_Mark], **style: Any) -> None:
    """Means, and bars of a standard deviation where there is one."""
    if not marks:
        return
    bars = None if all(m.sd is None for m in marks) else [m.sd or 0.0 for m in marks]
    usual = {"marker": "o", "linestyle": "none", "elinewidth": 1.0, "zorder": 3}
    xs, ys = [m.x for m in marks], [m.y for m in marks]
    axes.errorbar(xs, ys, yerr=bars, **{**usual, **style})


# --- accuracy against memory -------------------------------------------------------------


def _accuracy_memory(sweep: Sweep) -> Any:
    few = len(sweep.done) <= _FEW
    which = "" if few else " (on the front only)"
    sizes = [result.memory / 1e6 for _, result in sweep.done]
    alike = " Equal memory: side by side." if len(set(sizes)) < len(sizes) else ""
    note = f"Labels: {', '.join(sweep.names)}{which}. {_note(sweep)} {_MB}{alike}"
    figure = _figure(sweep, 7.5 if few else 9.0, 5.4, note)
    axes = figure.add_subplot()
    scale = _Scale.of(sizes)
    marks = _places(sweep, scale)
    on_front = {id(point) for point, _ in front(sweep.rivals)}
    best = sorted((m for m in marks if id(m.point) in on_front), key=lambda m: (m.x, m.y))
    others = [m for m in marks if id(m.point) not in on_front]
    if few:
        _draw_marks(axes, best, color=_OKABE_ITO[0], label="on the Pareto front")
        hollow = {"color": _OKABE_ITO[0], "markerfacecolor": "white"}
        _draw_marks(axes, others, label="other points", **hollow)
    else:
        _families(axes, sweep, marks)
    scale.apply(axes)
    _front_line(axes, best, ringed=not few)
    _floor([axes], sweep)
    axes.set(xlabel="memory kept between tasks (MB)", ylabel="validation accuracy (%)")
    if few:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.1)
    else:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    wanted = [(_box(m), m.point.label) for m in [*best, *(others if few else [])]]
    label(figure, axes, wanted, [_box(mark) for mark in marks])
    return figure


def _families(axes: Any, sweep: Sweep, marks: Sequence[_Mark]) -> None:
    """Too many points to label each: lines along one option, coloured by a second, marked by
    a third."""
    along, *rest = _roles(sweep)
    colours = _colours(sweep, rest[0]) if rest else {}
    shapes = dict(zip(_values(sweep, rest[1]), itertools.cycle(_MARKS))) if rest[1:] else {}
    groups: dict[tuple[Value, ...], list[_Mark]] = {}
    for mark in marks:
        key = tuple(value for name, value in mark.point.options.items() if name != along)
        groups.setdefault(key, []).append(mark)
    for group in groups.values():
        options = group[0].point.options
        colour = colours[options[rest[0]]] if rest else _OKABE_ITO[0]
        shape = shapes[options[rest[1]]] if rest[1:] else "o"
        line = {"color": colour, "marker": shape, "linestyle": "-"}
        _draw_marks(axes, sorted(group, key=lambda mark: mark.x), **line)
    axes.plot([], [], "-", color=_GREY, label=f"along {along}")
    for value in _legend_values(list(colours)):
        axes.plot([], [], "o-", color=colours[value], label=f"{rest[0]} {shown(value)}")
    for value in _legend_values(list(shapes)):
        axes.plot([], [], shapes[value], color=_GREY, label=f"{rest[1]} {shown(value)}")


def _roles(sweep: Sweep) -> list[str]:
    """Options that vary: first the one for lines (numbers, and what moves memory most), then
    those for colour and mark (the strategy before others)."""
    names = [name for name in sweep.names if len(_values(sweep, name)) > 1]
    along = max(_numeric(sweep) or names, key=lambda name: _reach(sweep, name))
    return [along, *sorted((n for n in names if n != along), key=lambda n: n != "strategy")]


def _reach(sweep: Sweep, name: str) -> float:
    """Bytes from the least to the largest mean memory of an option's values."""
    groups: dict[Value, list[float]] = {}
    for point, result in sweep.done:
        groups.setdefault(point.options[name], []).append(result.memory)
    means = [sum(group) / len(group) for group in groups.values()]
    return max(means) - min(means)


def _front_line(axes: Any, best: Sequence[_Mark], *, ringed: bool) -> None:
    """Steps: the best accuracy that so much memory buys."""
    right = axes.get_xlim()[1]
    style = {"color": _GREY, "linestyle": (0, (4, 2)), "linewidth": 1.2}
    xs, ys = [mark.x for mark in best], [mark.y for mark in best]
    axes.plot([*xs, right], [*ys, ys[-1]], drawstyle="steps-post", zorder=1, **style)
    axes.set_xlim(right=right)
    if ringed:
        ring = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "zorder": 4}
        axes.plot(xs, ys, color=_GREY, linestyle="none", **ring)
        axes.plot([], [], label="Pareto front", **style, **ring)


def _floor(row: Sequence[Any], sweep: Sweep) -> None:
    """On axes that share y: a line, or a band where points differ; words alone, on the first,
    where it lies far below all points."""
    floors = [100 * result.floor for _, result in sweep.done]
    low, high = min(floors), max(floors)
    alike = high - low < 0.05
    text = f"majority floor {high:.1f} %" if alike else f"majority floor {low:.1f}-{high:.1f} %"
    bottom, top = row[0].get_ylim()
    if high < bottom - (top - bottom):
        row[0].set_ylim(bottom=bottom - 0.07 * (top - bottom))  # room for the words
        row[0].annotate(
            f"▼ {text}, below this axis", (0.99, 0.0), xycoords="axes fraction", xytext=(0, 5),
            textcoords="offset points", ha="right", va="bottom", color=_GREY, fontsize=10,
        )  # fmt: skip
        return
    for axes in row:
        style = {"color": _GREY, "linestyle": ":", "linewidth": 1.4, "zorder": 1}
        axes.axhline(high, label=text, **style)
        if not alike:
            axes.axhspan(low, high, color=_GREY, alpha=0.15, zorder=0)


# --- along two numeric options -----------------------------------------------------------


def _along_two(sweep: Sweep) -> Any:
    """Accuracy along the first option, a line for each value of the second; a panel for each
    value of what else there is."""
    along, lines = _numeric(sweep)
    panels = _panels(sweep)
    figure = _figure(sweep, 7.5 if len(panels) == 1 else 1 + 4 * len(panels), 4.8, _note(sweep))
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, options in zip(row, panels, strict=True):
        pairs = [pair for pair in sweep.done if options.items() <= pair[0].options.items()]
        _panel(axes, sweep, pairs, along, lines)
        title = ", ".join(f"{name} {shown(value)}" for name, value in options.items())
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel(f"{along} ({_UNITS[along]})" if along in _UNITS else along)
    _floor(row, sweep)
    row[0].set_ylabel("validation accuracy (%)")
    row[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _panel(axes: Any, sweep: Sweep, pairs: Sequence[Drawn], along: str, lines: str) -> None:
    ticks = sorted(float(value) for value in _values(sweep, along))
    scale = _Scale.of(ticks)
    colours = _colours(sweep, lines)
    named = _legend_values(list(colours))
    for (value, colour), share, shape in zip(
        colours.items(), _shares(len(colours)), itertools.cycle(_MARKS), strict=False
    ):
        marks = [
            _mark(point, result, scale.beside(float(point.options[along]), share))
            for point, result in pairs
            if point.options[lines] == value
        ]
        style = {"color": colour, "marker": shape, "linestyle": "-"}
        name = f"{lines} {shown(value)}" if value in named else None
        _draw_marks(axes, sorted(marks, key=lambda mark: mark.x), label=name, **style)
    scale.apply(axes)
    if len(ticks) <= _LEGEND:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
