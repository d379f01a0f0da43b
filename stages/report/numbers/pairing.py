"""Two sets of runs side by side: before and after a change, two backbones, two machines.

Studies with equal settings belong together, then those that differ in the version of lgr-pipe
alone; of what is left, the only study of each side.  Within them strategies of one label belong
together, then the only variant of each side.  Seeds are compared one by one where both sides
cut the same rows into the same tasks, otherwise as independent samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache.errors import Refused
from stages.report.numbers.columns import ACCURACY, COSTS, Column, Measure, results
from stages.report.numbers.differences import Difference, of_independent, of_pairs
from stages.report.reading.about import as_text
from stages.report.reading.runs import Run, Study
from stages.report.terminal.remarks import short_heading
from stages.report.terminal.table import Spread, as_in_paper, spread

_RESULTS = {column.key: column for column in results("task")}
_COSTS = {column.key: column for column in COSTS}
MEASURES = (
    ACCURACY,
    _RESULTS["average_incremental_accuracy"],
    _RESULTS["forgetting"],
    _RESULTS["macro_f1"],
    _COSTS["train_seconds"],
    _COSTS["cpu_seconds"],
    _COSTS["rss_peak_bytes"],
    _COSTS["memory_bytes"],
)
"""What is compared; the first is the accuracy."""
_SAME_SEEDS = ("dataset", "scenario", "tasks", "class_order", "task_classes", "cache_content")
"""Equal: a seed means the same rows, tasks and order on both sides."""
_MOST_LISTED = 12


@dataclass(frozen=True)
class Both:
    """A strategy on both sides."""

    label: str
    a: Run
    b: Run
    differing: tuple[str, ...]
    """Options in which they differ: "z 100 / 50"."""


@dataclass(frozen=True)
class Pair:
    """A study on both sides."""

    a: Study
    b: Study
    differing: tuple[tuple[str, str, str], ...]
    """Settings that are not equal: name, and what each side has."""
    both: tuple[Both, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    """Strategies of one side alone."""

    @property
    def by_seed(self) -> bool:
        """Seeds may be compared one by one."""
        a, b = self.a.first.study(), self.b.first.study()
        return all(a[name] == b[name] for name in _SAME_SEEDS)


@dataclass(frozen=True)
class Compared:
    """One measure of one strategy; None: a side does not have it."""

    a: Spread | None
    b: Spread | None
    difference: Difference | None


def pairs(a: Sequence[Study], b: Sequence[Study], names: tuple[str, str]) -> list[Pair]:
    """In the order of `a`; what has no partner is in none: see `alone`.

    Raises:
        Refused: nothing on one side belongs to anything on the other.
    """
    found = [pair for x, y in _partners(a, b) if (pair := _pair(x, y)).both]
    if found:
        return found
    raise Refused(
        f"Nothing in {names[0]} corresponds to anything in {names[1]}: studies belong together "
        "when their settings are equal, or when each side has one, and then strategies of the "
        f"same name. {names[0]} has {_listed(a)}; {names[1]} has {_listed(b)}. Name folders that "
        "hold one study each: lgr-pipe report --compare A B"
    )


def alone(studies: Sequence[Study], taken: Sequence[Study]) -> list[str]:
    """Headings of the studies that have no partner."""
    return [short_heading(s.first) for s in studies if not any(s is other for other in taken)]


def compared(pair: Pair, both: Both, measure: Measure) -> Compared:
    """A side of which a seed lacks the value has none."""
    a, b = spread(both.a, measure), spread(both.b, measure)
    if a is None or b is None:
        return Compared(a, b, None)
    mine, theirs = (
        {seed.seed: value for seed in run.runs if (value := measure(seed)) is not None}
        for run in (both.a, both.b)
    )
    if pair.by_seed and len(mine.keys() & theirs.keys()) > 1:
        return Compared(a, b, of_pairs(mine, theirs))
    return Compared(a, b, of_independent(list(mine.values()), list(theirs.values())))


def scenario_differs(pair: Pair) -> bool:
    """They were asked different questions."""
    a, b = pair.a.first.study(), pair.b.first.study()
    asked = ("dataset", "scenario", "tasks", "class_order", "task_classes", "evaluated_on")
    return any(a[name] != b[name] for name in asked)


def measures(pair: Pair) -> list[Column]:
    """Those that some strategy has on both sides."""
    return [
        column
        for column in MEASURES
        if any(compared(pair, both, column.measure).difference for both in pair.both)
    ]


# --- what belongs together ---------------------------------------------------------------


def _partners(a: Sequence[Study], b: Sequence[Study]) -> list[tuple[Study, Study]]:
    left, right = list(a), list(b)
    found: list[tuple[Study, Study]] = []
    for ignored in ((), ("version",)):
        for study in list(left):
            like = [other for other in right if _key(other, ignored) == _key(study, ignored)]
            if len(like) == 1:
                found.append((study, like[0]))
                left.remove(study)
                right.remove(like[0])
    if len(left) == len(right) == 1:
        found.append((left[0], right[0]))
    return sorted(found, key=lambda pair: [study is pair[0] for study in a].index(True))


def _key(study: Study, ignored: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in study.first.study().items() if name not in ignored}


def _pair(a: Study, b: Study) -> Pair:
    x, y = a.first.study(), b.first.study()
    differing = tuple(
        (name.replace("_", " "), _shown(x.get(name)), _shown(y.get(name)))
        for name in dict.fromkeys([*x, *y])
        if x.get(name) != y.get(name)
    )
    both = tuple(_strategies(a, b))
    only_a = [run.label for run in a.runs if not any(run is one.a for one in both)]
    only_b = [run.label for run in b.runs if not any(run is one.b for one in both)]
    return Pair(a, b, differing, both, tuple(only_a), tuple(only_b))


def _strategies(a: Study, b: Study) -> Iterator[Both]:
    for _, run in as_in_paper(a):
        if run is None:
            continue
        other = b.run_of(run.label) or _only(run, a, b)
        if other is not None and other.strategy == run.strategy:
            yield Both(run.label, run, other, tuple(_options(run, other)))


def _only(run: Run, a: Study, b: Study) -> Run | None:
    mine = [one for one in a.runs if one.strategy == run.strategy]
    theirs = [one for one in b.runs if one.strategy == run.strategy]
    return theirs[0] if len(mine) == len(theirs) == 1 else None


def _options(a: Run, b: Run) -> Iterator[str]:
    """Where a side has no run.json, nothing is known to differ."""
    if a.about is None or b.about is None:
        return
    x, y = a.about.options, b.about.options
    for name in sorted(x.keys() | y.keys()):
        if x.get(name) != y.get(name):
            yield f"{name.replace('_', ' ')} {as_text(x.get(name))} / {as_text(y.get(name))}"


def _shown(value: object) -> str:
    """Classes as --class-order takes them: a,b;c,d."""
    if isinstance(value, list):
        tasks = [",".join(map(str, one)) for one in value if isinstance(one, list)]
        return ";".join(tasks) if tasks else ",".join(map(str, value))
    return "not recorded" if value is None else as_text(value)


def _listed(studies: Sequence[Study]) -> str:
    said = [
        f"{short_heading(study.first)} ({', '.join(run.label for run in study.runs)})"
        for study in studies[:_MOST_LISTED]
    ]
    more = f" and {len(studies) - _MOST_LISTED} more" if len(studies) > _MOST_LISTED else ""
    return "; ".join(said) + more
