"""Figures of what is replayed: variance, agreement, answers by class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from stages.report.figures import replay_bars
from stages.report.figures.replay_lines import Line, draw_agreement, draw_ratios
from stages.report.figures.style import INK, Look, look
from stages.report.numbers.collapse import COLLAPSED, percent
from stages.report.numbers.replays import Found, State, file_names, spread_of
from stages.report.page.document import Block, Data, Figure, Fold, Group, Value, quoted
from stages.report.reading.runs import Run
from stages.report.terminal.table import Spread

_MOST_NAMED = 6
"""Numbers that an alternative text reads out."""


def ratios(found: Found, prefix: str) -> list[Block]:
    lines = _lines(found, lambda state: state.ratio)
    if not lines:
        return []
    figure = Figure(
        name=f"{prefix}replayed-variance",
        title="How varied the replayed latents are",
        alt="Variance of the replayed latents as a share of that of the real ones, after learning "
        f"each task but the last. {_read_out(lines)} Below {percent(COLLAPSED)} a generator is "
        "called collapsed.",
        draw=partial(draw_ratios, lines, COLLAPSED),
        caption="Trace of the covariance of replayed latents over that of real training latents of "
        f"the tasks learnt; {_seeds(found)}. 1: as varied as real.",
        data=_data(lines, "variance_ratio"),
    )
    return [figure]


def agreement(found: Found, prefix: str) -> list[Block]:
    lines = _lines(found, lambda state: state.agreement)
    if not lines:
        return []
    real = _real(found)
    shown = [*lines, real] if real else lines
    figure = Figure(
        name=f"{prefix}replayed-agreement",
        title="How often an answer names the nearest class",
        alt="Share of the answers to replayed latents that name the nearest mean of a real class, "
        f"after learning each task but the last. {_read_out(shown)}",
        draw=partial(draw_agreement, lines, real),
        caption=f"Dashed: real latents and their true classes; {_seeds(found)}.",
        data=_data(shown, "agreement"),
    )
    return [figure]


def _real(found: Found) -> Line | None:
    """Mean over the runs, which look at the same real latents."""
    by_task: dict[int, list[float]] = {}
    for _, of_run in found:
        for state in of_run:
            if state.agreement_real is not None:
                by_task.setdefault(state.learnt, []).append(state.agreement_real.mean)
    points = []
    for learnt in sorted(by_task):
        value = spread_of(by_task[learnt])
        if value is not None:
            points.append((learnt, Spread(value.mean, None, value.n)))
    return Line("real latents", Look(INK, "_", "--"), tuple(points)) if points else None


def _lines(found: Found, value: Callable[[State], Spread | None]) -> list[Line]:
    lines = []
    for run, of_run in found:
        known = [(state.learnt, value(state)) for state in of_run]
        points = tuple((learnt, one) for learnt, one in known if one is not None)
        if points:
            lines.append(Line(run.label, look(run.strategy, run.variant), points))
    return lines


def _read_out(lines: list[Line]) -> str:
    """The last numbers of the first lines."""
    said = [
        f"{line.name} {percent(line.points[-1][1].mean)} after task {line.points[-1][0]}"
        for line in lines[:_MOST_NAMED]
    ]
    more = len(lines) - _MOST_NAMED
    return "; ".join(said) + (f"; and {more} more." if more > 0 else ".")


def _seeds(found: Found) -> str:
    counts = sorted({state.seeds for _, of_run in found for state in of_run})
    if counts == [1]:
        return "one seed, so that no spread is known"
    several = "–".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]]))
    return f"mean and sample standard deviation over {several} seeds"


def _data(lines: list[Line], name: str) -> Data:
    rows: list[tuple[Value, ...]] = [
        (line.name, learnt, value.mean, value.sd, value.n)
        for line in lines
        for learnt, value in line.points
    ]
    return Data(("strategy", "learnt", f"{name}_mean", f"{name}_sd", "n"), tuple(rows))


# --- answers by class --------------------------------------------------------------------


def labels(found: Found, prefix: str) -> list[Block]:
    """A figure for each run; of buffers, closed at first."""
    files = file_names([run for run, _ in found])
    figures: dict[str, list[Figure]] = {"generated": [], "stored": []}
    for run, of_run in found:
        if any(share for state in of_run for head in state.heads for share in head.shares):
            name = f"{prefix}replayed-labels-{files[run.label]}"
            figures[of_run[0].kind].append(_labels(run, of_run, name))
    drawn, kept = tuple(figures["generated"]), tuple(figures["stored"])
    blocks: list[Block] = [Group(drawn)] if len(drawn) > 1 else list(drawn)
    if kept:
        blocks.append(Fold("Labels of what is stored, by class", (Group(kept),)))
    return blocks


def _labels(run: Run, of_run: tuple[State, ...], name: str) -> Figure:
    states = replay_bars.chosen(of_run)
    fewer = len(states) < len(of_run)
    left_out = f" {len(states)} of {len(of_run)} states are drawn." if fewer else ""
    real = all(head.real for state in states for head in state.heads)
    missing = "" if real else " Shares of the real rows are not recorded."
    generated = of_run[0].kind == "generated"
    words = "Answers to what is drawn" if generated else "Labels of what is stored"
    who = replay_bars.short(run.label, 30)
    bars = f"answers to what {who} draws" if generated else f"labels of what {who} stores"
    return Figure(
        name=name,
        title=f"{words}: {quoted(run.label)}",
        alt=f"{words} by {run.label}, by class, in per cent within each head. {_tops(states[-1])}",
        draw=partial(replay_bars.draw, states, look(run.strategy, run.variant), bars),
        caption="Share within a head, the classes among which is chosen; "
        f"{_seeds(((run, of_run),))}; line: the real training rows.{missing}{left_out}",
        data=_shares(run, of_run),
    )


def _tops(state: State) -> str:
    """The most frequent class of each head, in words."""
    said = []
    for head in state.heads:
        if head.largest is not None:
            k, share = head.largest
            real = f", {percent(head.real[k])} of the real rows" if head.real else ""
            said.append(f"{head.classes[k]} {percent(share.mean)}{real}")
    more = len(said) - _MOST_NAMED
    rest = f"; and {more} more heads" if more > 0 else ""
    return f"After task {state.learnt}, most in each head: {'; '.join(said[:_MOST_NAMED])}{rest}."


def _shares(run: Run, of_run: tuple[State, ...]) -> Data:
    rows: list[tuple[Value, ...]] = []
    for state in of_run:
        for number, head in enumerate(state.heads, 1):
            for k, (name, share) in enumerate(zip(head.classes, head.shares, strict=True)):
                mean, sd = (share.mean, share.sd) if share else (None, None)
                real = head.real[k] if head.real else None
                rows.append((run.label, state.learnt, number, name, mean, sd, state.seeds, real))
    names = ("strategy", "learnt", "head", "class", "share_mean", "share_sd", "n", "share_real")
    return Data(names, tuple(rows))
