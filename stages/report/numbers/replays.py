"""What was replayed, by state of the memory: means over seeds of what metrics.json records."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stages.report.reading.runs import CUMULATIVE, Replay, Run
from stages.report.terminal.table import Spread

_REPLAYS = ("buffer", "generator")
"""Kinds of memory that are for replay."""


@dataclass(frozen=True)
class Head:
    """Classes among which an answer was chosen."""

    classes: tuple[str, ...]
    shares: tuple[Spread | None, ...]
    """Of the answers, by class; None: nothing was answered here."""
    real: tuple[float, ...] | None
    """The same of the real training rows; None: not recorded."""

    @property
    def largest(self) -> tuple[int, Spread] | None:
        """The class that is answered most, by its position."""
        known = [(k, share) for k, share in enumerate(self.shares) if share is not None]
        return max(known, key=lambda one: one[1].mean, default=None)


@dataclass(frozen=True)
class State:
    """What is replayed after learning task `learnt`, 1-based."""

    learnt: int
    kind: Literal["generated", "stored"]
    seeds: int
    drawn: int
    """Replayed latents that were looked at, in one seed."""
    ratios: tuple[float, ...]
    """Variance ratio by seed, where it is defined."""
    heads: tuple[Head, ...]
    agreement: Spread | None
    """Of the answers with the nearest real class mean, and that of real latents' classes."""
    agreement_real: Spread | None

    @property
    def ratio(self) -> Spread | None:
        return spread_of(self.ratios)


Found = tuple[tuple[Run, tuple[State, ...]], ...]
"""Runs that replay, with what they replayed."""


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """Of those that are there; None: none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    sd = statistics.stdev(known) if len(known) > 1 else None
    return Spread(statistics.fmean(known), sd, len(known))


def replays(run: Run) -> bool:
    return any(seed.replay for seed in run.runs)


def unrecorded(run: Run) -> bool:
    """It seems to replay, and its version did not write down what."""
    keeps = any(seed.memory_bytes.get(kind) for seed in run.runs for kind in _REPLAYS)
    competes = run.strategy != CUMULATIVE
    return keeps and competes and all(seed.replay is None for seed in run.runs)


def states(run: Run) -> tuple[State, ...]:
    """In the order of tasks; empty for what replays nothing."""
    by_task: dict[int, list[Replay]] = {}
    for seed in run.runs:
        for replay in {one.learnt: one for one in seed.replay or []}.values():
            by_task.setdefault(replay.learnt, []).append(replay)
    return tuple(_state(run, learnt, by_task[learnt]) for learnt in sorted(by_task))


def _state(run: Run, learnt: int, found: Sequence[Replay]) -> State:
    return State(
        learnt=learnt,
        kind=found[0].kind,
        seeds=len(found),
        drawn=min(replay.drawn for replay in found),
        ratios=tuple(r.variance_ratio for r in found if r.variance_ratio is not None),
        heads=tuple(_head(run, classes, learnt, found) for classes in _heads(run, learnt, found)),
        agreement=spread_of(replay.ncm_agreement for replay in found),
        agreement_real=spread_of(replay.ncm_agreement_real for replay in found),
    )


def _heads(run: Run, learnt: int, found: Sequence[Replay]) -> list[tuple[str, ...]]:
    """Task-incrementally one for each task, else one of all; domain-incrementally of the outputs
    that tasks share."""
    tasks = run.task_classes
    if tasks is None or run.scenario == "domain":
        named = {name for replay in found for name in replay.labels}
        return [tuple(name for name in run.class_order if name in named)]
    learnt_tasks = [tuple(task) for task in tasks[:learnt]]
    if run.scenario == "task":
        return learnt_tasks
    return [tuple(name for task in learnt_tasks for name in task)]


def _head(run: Run, classes: tuple[str, ...], learnt: int, found: Sequence[Replay]) -> Head:
    by_seed = [_shares([replay.labels.get(name, 0) for name in classes]) for replay in found]
    shares = tuple(
        spread_of(seed[k] if seed else None for seed in by_seed) for k in range(len(classes))
    )
    rows = _real_rows(run, classes, learnt)
    return Head(classes, shares, _shares(rows) if rows is not None else None)


def _shares(counts: Sequence[int]) -> tuple[float, ...] | None:
    """None: there are none."""
    total = sum(counts)
    return tuple(count / total for count in counts) if total else None


def _real_rows(run: Run, classes: tuple[str, ...], learnt: int) -> list[int] | None:
    """Training rows of each class of a head, of the tasks learnt; None: not recorded."""
    known = run.about.data.classes if run.about and run.about.data else {}
    groups = [[name] for name in classes]
    if run.scenario == "domain":  # output k is the k-th class of whichever task
        tasks = (run.task_classes or [])[:learnt]
        groups = [[task[k] for task in tasks if k < len(task)] for k in range(len(classes))]
    if not all(group and all(name in known for name in group) for group in groups):
        return None
    return [sum(known[name].train for name in group) for group in groups]


def file_names(runs: Sequence[Run]) -> dict[str, str]:
    """For each label a name that a file can have, [a-z0-9-], all different."""
    names: dict[str, str] = {}
    for run in runs:
        plain = re.sub(r"[^a-z0-9]+", "-", run.label.lower()).strip("-")[:40] or "run"
        taken = set(names.values())
        free = (f"{plain}-{k}" for k in itertools.count(2))
        names[run.label] = plain if plain not in taken else next(n for n in free if n not in taken)
    return names
