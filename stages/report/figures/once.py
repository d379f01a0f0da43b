"""Seconds of k runs: extracting once, against the root in the loop of each."""

from __future__ import annotations

from typing import Any

from stages.report.figures.scale import duration, plain
from stages.report.figures.style import FAINT, INK, canvas, look
from stages.report.numbers.once import Once

MOST_RUNS = 100
_LOOP = look("dgr").colour  # vermilion beside blue: no strategy is meant, and the caption says so
_CACHE = look("lgr").colour


def draw(once: Once) -> Any:
    """Lines of the mean run, bands from the quickest strategy to the slowest; a mark where the
    study itself stands."""
    figure = canvas(height=3.4)
    axes = figure.add_subplot()
    made, last = once.runs, max(MOST_RUNS, 2 * once.runs)
    ks = [last ** (k / 60) for k in range(61)]
    for in_loop, name in ((True, "root in the loop (estimated)"), (False, "extract once")):
        colour, line = (_LOOP, "--") if in_loop else (_CACHE, "-")
        low, mean, high = (
            [once.in_all(k, seconds, in_loop=in_loop) for k in ks]
            for seconds in once.of_a_run(in_loop=in_loop)
        )
        axes.fill_between(ks, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(ks, mean, color=colour, linestyle=line, label=name)
        ends = [once.in_all(made, s, in_loop=in_loop) for s in once.of_a_run(in_loop=in_loop)]
        axes.plot([made], [ends[1]], color=colour, marker="o")
        left = in_loop and made**2 > last
        axes.annotate(
            duration(ends[1]), (made, ends[2] if in_loop else ends[0]),
            xytext=(-4 if left else 4, 3 if in_loop else -3), textcoords="offset points",
            fontsize=9, color=INK, ha="right" if left else "left",
            va="bottom" if in_loop else "top",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(1, last))
    axes.margins(y=0.18)
    axes.axvline(made, color=FAINT, linewidth=0.9, linestyle=":")
    axes.set(xlabel="runs k (strategies × seeds)", ylabel="seconds in all")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: plain(value))
    figure.legend(loc="outside upper left", ncols=2)
    return figure
