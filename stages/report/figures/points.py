"""Real and replayed latents on a plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.figures.style import Look, canvas

WIDTH, HEIGHT = 4.6, 3.9
_VECTOR = 300
"""Points up to which each stays a drawing of its own; more become one picture."""
_DOTS = 150
"""An inch, of that picture."""
_QUIET = (
    ("#7b9bc4", "."), ("#c7a15c", "^"), ("#7fae9b", "s"), ("#c27d88", "v"),
    ("#a18cc4", "D"), ("#9c9c62", "<"), ("#8fb9cc", ">"), ("#a58a74", "p"),
)  # fmt: skip
"""Colours and marks of groups of real latents, seen on light and on dark paper; quieter than any
strategy's."""
MOST_GROUPS = len(_QUIET)


@dataclass(frozen=True)
class Cloud:
    """What is drawn: real points of named groups, and those that were replayed."""

    xy: NDArray[np.floating[Any]]
    """(n, 2)"""
    group: NDArray[np.integer[Any]]
    """(n,) positions in `groups`; of the replayed not looked at."""
    replayed: NDArray[np.bool_]
    """(n,)"""
    groups: tuple[str, ...]
    """At most MOST_GROUPS."""
    words: str
    """Of the replayed, in the legend."""
    look: Look
    axes: tuple[str, str]
    scaled: bool
    """The axes have numbers that mean something."""


def draw(cloud: Cloud) -> Any:
    """Replayed latents as open marks in the strategy's colour upon small filled ones."""
    figure = canvas(WIDTH, HEIGHT + 0.17 * _legend_rows(cloud.groups), dpi=_DOTS)
    axes = figure.subplots()
    picture = len(cloud.xy) > _VECTOR
    real = cloud.xy[~cloud.replayed]
    of_group = cloud.group[~cloud.replayed]
    for k, (colour, mark) in enumerate(_QUIET[: len(cloud.groups)]):
        x, y = real[of_group == k].T
        size = 34 if mark == "." else 14
        axes.scatter(x, y, s=size, c=colour, marker=mark, linewidths=0, rasterized=picture)
        axes.scatter([], [], s=2 * size, c=colour, marker=mark, linewidths=0, label=cloud.groups[k])
    x, y = cloud.xy[cloud.replayed].T
    usual = {"marker": cloud.look.mark, "facecolors": "none", "edgecolors": cloud.look.colour}
    axes.scatter(x, y, s=16, linewidths=0.7, alpha=0.8, rasterized=picture, **usual)
    mine = axes.scatter([], [], s=30, linewidths=1.4, **usual)
    axes.set_xlabel(cloud.axes[0])
    axes.set_ylabel(cloud.axes[1])
    axes.set_aspect("equal", adjustable="datalim")
    axes.locator_params(nbins=6)
    if not cloud.scaled:
        axes.set_xticks([])
        axes.set_yticks([])
    tight = {"handletextpad": 0.2, "columnspacing": 1.0, "borderpad": 0, "alignment": "left"}
    figure.legend([mine], [cloud.words], loc="outside upper left", **tight)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower left", ncols=_columns(cloud.groups),
        title="real latents:", **tight,
    )  # fmt: skip
    return figure


def _columns(names: Sequence[str]) -> int:
    """As many as there is room for."""
    letters = max(len(name) for name in names) + 4
    return max(1, min(4, int(WIDTH / (0.085 * letters))))


def _legend_rows(names: Sequence[str]) -> int:
    return -(-len(names) // _columns(names))
