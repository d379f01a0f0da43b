"""What the result table shows, in sentences: better than no replay, than a constant answer?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stages.report.numbers.paired import Paired, paired
from stages.report.page.document import Paragraph, quoted
from stages.report.reading.runs import JOINT, NONE, Run, Study
from stages.report.terminal.remarks import KEEPS_ALL
from stages.report.terminal.table import as_in_paper

_MOST = 10
"""Strategies that a sentence names."""


def verdict(study: Study, compared: Mapping[str, Paired]) -> tuple[Paragraph, ...]:
    """Computed from the accuracies; says what cannot be said, too."""
    return (*_over_none(study, compared), *_joint(study, compared), *_levels(study))


def _over_none(study: Study, compared: Mapping[str, Paired]) -> Iterator[Paragraph]:
    if study.run_of(NONE) is None:
        yield Paragraph(
            "`none` was not run: nothing here says whether replay is worth anything. "
            "Run it on the same cache: `lgr-pipe train --strategy none`.",
            "warning",
        )
        return
    rivals = [
        (name, compared[name])
        for name, run in as_in_paper(study)
        if run is not None and name in compared and run.strategy not in KEEPS_ALL
    ]
    known = [(name, found) for name, found in rivals if found.n > 1]
    over = _over(known)
    better = [_with(name, found) for name, found in known if found.better]
    worse = [_with(name, found) for name, found in known if found.upper < 0]
    open_ = [quoted(name) for name, f in known if not f.better and f.upper >= 0]
    said = []
    if better:
        said.append(f"**Better than none beyond the spread** {over}: {listed(better)}.")
    elif known:
        said.append(f"**No strategy is better than none beyond the spread** {over}.")
    if worse:
        said.append(f"Worse than none: {listed(worse)}.")
    if open_:
        said.append(f"Not to be told from none with these seeds: {listed(open_)}.")
    if said:
        yield Paragraph(" ".join(said))
    single = [quoted(name) for name, found in rivals if found.n < 2]
    if single:
        yield Paragraph(
            f"Whether {listed(single)} {'is' if len(single) == 1 else 'are'} better than none "
            "cannot be said: that takes at least two seeds of both.",
            "warning",
        )


def _joint(study: Study, compared: Mapping[str, Paired]) -> Iterator[Paragraph]:
    found = compared.get(JOINT)
    if study.run_of(JOINT) is None:
        yield Paragraph("`joint` was not run: how much could be reached is not known.", "note")
    elif found is not None and found.n > 1 and not found.better:
        yield Paragraph(
            "Even joint, which sees all tasks at once, is not better than none beyond the spread: "
            "there is little forgetting to prevent here, or there are too few seeds to see it.",
            "warning",
        )


def _levels(study: Study) -> Iterator[Paragraph]:
    """Against each other and the floor."""
    runs = [run for _, run in as_in_paper(study) if run is not None]
    rivals = [run for run in runs if run.strategy not in KEEPS_ALL]
    if rivals:
        shown = {run.label: round(100 * _mean(run).mean, 2) for run in rivals}
        most = max(shown.values())
        best = [quoted(name) for name, value in shown.items() if value == most]
        text = f"Highest mean of those that compete: {listed(best)}, {most:.2f} %"
        joint = study.run_of(JOINT)
        if joint is not None:
            gap = round(100 * _mean(joint).mean, 2) - most
            side = "below" if gap >= 0 else "above"
            text += f", {abs(gap):.2f} points {side} joint"
        yield Paragraph(f"{text}; a constant answer gets {100 * study.floor:.2f} %.")
    low = [quoted(run.label) for run in runs if _at_floor(run, study.floor)]
    if low:
        yield Paragraph(
            f"Not above the majority floor of {100 * study.floor:.2f} % beyond the spread: "
            f"{listed(low)}.",
            "warning",
        )


def _at_floor(run: Run, floor: float) -> bool:
    found = _mean(run)
    return (found.lower if found.n > 1 else found.mean) <= floor + 1e-9


def _mean(run: Run) -> Paired:
    return paired([seed.average_accuracy for seed in run.runs], [0.0] * len(run.runs))


def _with(name: str, found: Paired) -> str:
    interval = f"{100 * found.lower:+.1f} to {100 * found.upper:+.1f}"
    return f"{quoted(name)} ({100 * found.mean:+.1f} points, {interval})"


def _over(known: Sequence[tuple[str, Paired]]) -> str:
    counts = sorted({found.n for _, found in known})
    seeds = "-".join(str(n) for n in dict.fromkeys([*counts[:1], *counts[-1:]]))
    return f"({seeds} seeds, 95 % intervals)"


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(names) > _MOST:
        names = [*names[: _MOST - 1], f"{len(names) - _MOST + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
