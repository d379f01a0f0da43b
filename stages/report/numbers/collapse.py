"""When a generator is called broken, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence

from stages.report.numbers.replays import State
from stages.report.page.document import Paragraph, quoted
from stages.report.reading.runs import Run
from stages.report.terminal.table import Spread

COLLAPSED: float = 0.1
"""Variance ratio below which a generator is called collapsed: a deviation of less than a third of
the real latents' (0.1 is 0.32 squared).  The LGR authors' own dumps after the first two tasks have
3 to 5 %, with all or nearly all answers the same, and 10 to 13 % later; a buffer has 90 % or more.
A variational autoencoder that works stays below 100 %, for what it draws has no noise, but far
above this."""

ONE_SIDED: float = 0.95
"""Share of a head's answers above which a class is said to be all that is rehearsed, unless the
real rows are so too.  The old network's answers are the targets: rehearsed on one class alone, a
head forgets the others, however varied the latents are."""

_MOST_NAMED = 4
"""States, or heads, that a sentence names."""


def collapsed(state: State) -> bool:
    """In the mean over seeds."""
    ratio = state.ratio
    return state.kind == "generated" and ratio is not None and ratio.mean < COLLAPSED


def one_sided(state: State) -> list[tuple[str, Spread, float]]:
    """Classes that take a head's answers alone, with their share of the real rows; none where
    that is not recorded."""
    found = []
    for head in state.heads if state.kind == "generated" else ():
        largest = head.largest
        if largest is None or head.real is None:
            continue
        k, share = largest
        if share.mean >= ONE_SIDED > head.real[k]:
            found.append((head.classes[k], share, head.real[k]))
    return found


def verdicts(run: Run, states: Sequence[State]) -> list[Paragraph]:
    """What must be said of a run's generator: collapsed, one-sided, or collapsed in a seed."""
    fallen = [state for state in states if collapsed(state)]
    narrow = [state for state in states if one_sided(state)]
    if fallen or narrow:
        said = [
            f"**{quoted(run.label)}: the "
            f"{'generator has collapsed' if fallen else 'generator is one-sided'}.**",
            *([_fallen(fallen, len(states))] if fallen else []),
            _narrow(narrow) if narrow else _widest(fallen),
        ]
        return [Paragraph(" ".join(part for part in said if part), "alarm")]
    some = [s for s in states if s.kind == "generated" and min(s.ratios, default=1) < COLLAPSED]
    if not some:
        return []
    worst = min(some, key=lambda state: min(state.ratios))
    text = (
        f"**{quoted(run.label)}: the generator has collapsed in some seeds**, not in the mean: "
        f"after task {worst.learnt} what it draws has {percent(min(worst.ratios))} of the variance "
        f"of the real latents in the worst of {len(worst.ratios)} seeds."
    )
    return [Paragraph(text, "warning")]


def _fallen(fallen: Sequence[State], count: int) -> str:
    """The worst first."""
    by_ratio = sorted(fallen, key=lambda state: sum(state.ratios) / len(state.ratios))
    worst, *others = by_ratio
    text = (
        f"It draws latents near the mean: {_ratio(worst)} of the variance of the real ones after "
        f"task {worst.learnt}"
    )
    if len(others) > _MOST_NAMED:
        text += f", and less than {percent(COLLAPSED)} in {len(fallen)} of {count} states"
    else:
        text += "".join(f", {_ratio(state)} after task {state.learnt}" for state in others)
    return f"{text} (n = {worst.seeds} seed{'s' * (worst.seeds > 1)})."


def _narrow(narrow: Sequence[State]) -> str:
    """Each class once, where its share is largest."""
    largest: dict[str, tuple[float, float]] = {}
    for state in narrow:
        for name, share, real in one_sided(state):
            largest[name] = max(largest.get(name, (0.0, 0.0)), (share.mean, real))
    parts = [
        f"“{quoted(name)}” {percent(share)} (real rows: {percent(real)})"
        for name, (share, real) in largest.items()
    ]
    more = len(parts) - _MOST_NAMED
    named = ", ".join(parts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (
        f"Within a head, what it draws is answered nearly always alike: {named}. The other classes "
        "are hardly rehearsed."
    )


def _widest(fallen: Sequence[State]) -> str:
    """What a collapsed generator's answers are, where they are not one-sided."""
    tops = [
        (share.mean, head.classes[k], state.learnt)
        for state in fallen
        for head in state.heads
        if head.largest
        for k, share in [head.largest]
    ]
    if not tops:
        return ""
    share, name, learnt = max(tops)
    return (
        f"After task {learnt}, {percent(share)} of what it draws is answered “{quoted(name)}”: no "
        "class takes more."
    )


def _ratio(state: State) -> str:
    ratio = state.ratio
    if ratio is None:
        return "an undefined share"
    sd = "" if ratio.sd is None else f" ± {100 * ratio.sd:.1f}"
    return f"{100 * ratio.mean:.1f}{sd} %"


def percent(fraction: float) -> str:
    """With a digit where it matters.

    >>> percent(0.032), percent(0.97), percent(0.997)
    ('3.2 %', '97 %', '99.7 %')
    """
    digits = int(fraction < COLLAPSED or 0.99 < fraction < 1)
    return f"{100 * fraction:.{digits}f} %"
