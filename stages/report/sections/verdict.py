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
FEW = 5
"""The same in the head of the page."""


def verdict(study: Study, compared: Mapping[str, Paired]) -> tuple[Paragraph, ...]:
    """Computed from the accuracies; says what cannot be said, too."""
    return (*_over_none(study, compared), *_joint(study, compared), *_levels(study))


def brief(study: Study, compared: Mapping[str, Paired]) -> str:
    """The same in two sentences, for the head of the page."""
    return f"{_in_a_word(study, compared)}{_heights(study)}."


def _in_a_word(study: Study, compared: Mapping[str, Paired]) -> str:
    """Empty where nothing competes with none."""
    if study.run_of(NONE) is None:
        why = "was run with several settings" if variants(study, NONE) else "was not run"
        return f"`none` {why}: whether replay is worth anything is not told. "
    rivals = _rivals(study, compared)
    known = [(name, found) for name, found in rivals if found.n > 1]
    if not known:
        many = "Whether a strategy is better than none cannot be said of fewer than two seeds. "
        return many if rivals else ""
    better = [quoted(name) for name, found in known if found.better]
    worse = [quoted(name) for name, found in known if found.upper < 0]
    first = f"{listed(better, FEW)} {_are(better)}" if better else "No strategy is"
    less = f"; {listed(worse, FEW)} {_are(worse)} worse" if worse else ""
    return f"**{first} better than none beyond the spread** {_over(known)}{less}. "


def _heights(study: Study) -> str:
    """Of the best, none, joint and a constant answer."""
    shown = _competing(study)
    best = [name for name, value in shown.items() if value == max(shown.values())]
    said = []
    if best:
        names = listed([quoted(name) for name in best], FEW)
        said.append(f"Highest mean of those that compete: {names}, {shown[best[0]]:.2f} %")
    for run in (study.run_of(NONE), study.run_of(JOINT)):
        if run is not None and run.label not in best:
            said.append(f"{run.label} {100 * _mean(run).mean:.2f} %")
    said.append(f"a constant answer {100 * study.floor:.2f} %")
    return "; ".join(said)


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _rivals(study: Study, compared: Mapping[str, Paired]) -> list[tuple[str, Paired]]:
    return [
        (name, compared[name])
        for name, run in as_in_paper(study)
        if run is not None and name in compared and run.strategy not in KEEPS_ALL
    ]


def _competing(study: Study) -> dict[str, float]:
    """Means in per cent, as they are shown, by label."""
    runs = [run for _, run in as_in_paper(study) if run is not None]
    return {
        run.label: round(100 * _mean(run).mean, 2) for run in runs if run.strategy not in KEEPS_ALL
    }


def variants(study: Study, baseline: str) -> int:
    """In how many settings a baseline was run where no single run is it; 0 where one is."""
    if study.run_of(baseline) is not None:
        return 0
    return sum(run.strategy == baseline for run in study.runs)


def _over_none(study: Study, compared: Mapping[str, Paired]) -> Iterator[Paragraph]:
    if several := variants(study, NONE):
        yield Paragraph(
            f"`none` was run with {several} different settings: none of them is the baseline of "
            "all. Make a report of the runs that share settings to have them compared with it.",
            "warning",
        )
        return
    if study.run_of(NONE) is None:
        yield Paragraph(
            "`none` was not run: nothing here says whether replay is worth anything. "
            "Run it on the same cache: `lgr-pipe train --strategy none`.",
            "warning",
        )
        return
    rivals = _rivals(study, compared)
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
            f"Whether {listed(single)} {_are(single)} better than none "
            "cannot be said: that takes at least two seeds of both.",
            "warning",
        )


def _joint(study: Study, compared: Mapping[str, Paired]) -> Iterator[Paragraph]:
    found = compared.get(JOINT)
    if study.run_of(JOINT) is None and not variants(study, JOINT):
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
    shown = _competing(study)
    if shown:
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


def listed(names: Sequence[str], most: int = _MOST) -> str:
    """
    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], 2)
    ('a, b and c', 'a and 2 more')
    """
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
