"""Which classes the replayed latents are answered to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.report.figures.style import FAINT, INK, WIDTH, Look, canvas
from stages.report.numbers.replays import Head, State

_MOST_STATES = 4
_LETTERS = 16
"""Of a class name below a bar."""


def chosen(states: Sequence[State]) -> list[State]:
    """The last state, the first, and as many between as are drawn."""
    count = min(len(states), _MOST_STATES)
    places = {round(k * (len(states) - 1) / max(count - 1, 1)) for k in range(count)}
    return [states[k] for k in sorted(places | {len(states) - 1})][-_MOST_STATES:]


def draw(states: Sequence[State], look: Look, words: str) -> Any:
    """A row for each state, bars by class, classes of a head together; a line where the real
    rows' share is.  `words`: what the bars are."""
    names, place = _places(states[-1])
    figure = canvas(WIDTH, 1.15 * len(states) + 0.65 + 0.075 * max(map(len, names)))
    rows = figure.subplots(len(states), sharex=True, squeeze=False)[:, 0]
    for axes, state in zip(rows, states, strict=True):
        for head in state.heads:
            _head(axes, head, place, look)
        axes.set_title(f"after learning task {state.learnt}", fontsize=9, color=FAINT, pad=3)
        axes.set_ylim(0, _top(state))
        axes.locator_params(axis="y", nbins=3)
        axes.grid(axis="x", visible=False)
    last = rows[-1]
    ticks = [place[name] for name in place]
    last.set_xticks(ticks, names, rotation=0 if _flat(names) else 90)
    last.set_xlim(min(ticks) - 0.7, max(ticks) + 0.7)
    bar = rows[0].bar([0], [0], color=look.colour)
    (line,) = rows[0].plot([], [], color=INK, linewidth=2)
    figure.legend([bar, line], [words, "real training rows"], loc="outside upper left", ncols=2)
    figure.supylabel("share of a head, %", fontsize=9.5, color=INK)
    return figure


def _top(state: State) -> float:
    """Per cent: all, or a little above the highest bar or line where all are low."""
    shares = [
        share.mean + (share.sd or 0) for head in state.heads for share in head.shares if share
    ]
    real = [share for head in state.heads for share in head.real or ()]
    highest = 100 * max([*shares, *real], default=1.0)
    return 104 if highest > 40 else 1.25 * highest


def _places(state: State) -> tuple[list[str], dict[str, float]]:
    """Names as they are shown, and where each class stands; heads stand apart."""
    place: dict[str, float] = {}
    x = 0.0
    for head in state.heads:
        for name in head.classes:
            place[name] = x
            x += 1
        x += 0.6
    return [short(name, _LETTERS) for name in place], place


def _head(axes: Any, head: Head, place: dict[str, float], look: Look) -> None:
    for k, (name, share) in enumerate(zip(head.classes, head.shares, strict=True)):
        if name not in place:
            continue
        x = place[name]
        if share is not None:
            axes.bar(
                x, 100 * share.mean, 0.8, yerr=100 * share.sd if share.sd else None,
                color=look.colour, error_kw={"elinewidth": 1, "ecolor": INK}, zorder=2,
            )  # fmt: skip
        if head.real is not None:
            y = 100 * head.real[k]
            axes.plot([x - 0.48, x + 0.48], [y, y], color=INK, linewidth=2, zorder=4)


def _flat(names: Sequence[str]) -> bool:
    """They fit side by side."""
    return sum(len(name) + 2 for name in names) * 0.075 < WIDTH - 0.8


def short(text: str, letters: int) -> str:
    """Cut in its middle, for names often differ at their ends.

    >>> short("contempt", 5)
    'co…pt'
    """
    if len(text) <= letters:
        return text
    return f"{text[: letters // 2]}…{text[len(text) - (letters - 1) // 2 :]}"
