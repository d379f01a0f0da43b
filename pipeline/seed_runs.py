"""Run a strategy seed after seed over one resident cache, going on where an earlier run ended."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cache.errors import Refused
from cache.limits import validated
from cache.printable import printable
from pipeline.checkpoints import Checkpoints
from pipeline.device import prepare, threads_for
from pipeline.events import Log
from pipeline.records import (
    MISFIT,
    Record,
    check_finished,
    check_record,
    check_state,
    misfit,
    samples_of,
)
from pipeline.replay_file import check_shown
from pipeline.seed_costs import Before, Costs, apart
from stages.train.figures import figures, predictions
from stages.train.loop import Progress, learning_steps, run
from stages.train.meter import Meter
from stages.train.recorder import Recorder
from stages.train.scenario import Scenario, Task
from stages.train.series import Sample
from stages.train.strategy import Setup, Strategy
from stages.train.tally import Report
from stages.train.view import Source
from stages.train.watch import Telling

Entry = dict[str, Any]
Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

_SHOWN = "shown."
"""Before the names of what is recorded, among other tensors."""
_LONGEST = 500  # characters of a failure that the log keeps


class Done(NamedTuple):
    """A seed that is done."""

    entry: Entry
    """In metrics.json."""
    predictions: Arrays
    shown: Arrays
    """For replay.safetensors; nothing where nothing is replayed."""
    series: list[Sample]


@dataclass(frozen=True)
class SeedRuns:
    """All that the seeds of a run have in common."""

    module: ModuleType
    """The strategy's file."""
    options: Any
    setup: Callable[[int, Telling], Setup]
    """Of a seed."""
    data: Source
    scenario: Scenario
    checkpoints: Checkpoints
    events: Log
    iters: int
    period: float
    device: str
    threads: int | None
    """None: by the size of the strategy's networks."""
    tick: Callable[[int], None] = lambda _: None
    crop_rows: NDArray[np.int64] | None = None
    """Of each latent, where there are crops."""
    begin: Callable[[], None] = lambda: None
    """Called when it is sure that a seed can be learnt, and before it is."""

    def run(self, seed: int) -> Done:
        """Learn it, from where an earlier run has left it; one that is done is read."""
        finished = self.finished(seed)
        if finished is not None:
            self.tick(self.iters * len(self.scenario.tasks))
            return finished
        with Meter(self.period, self.device) as meter:
            watch = Telling(meter.phase, lambda: self.tick(1), self.events.write)
            strategy: Strategy = self.module.Method(self.setup(seed, watch), self.options)
            layers = (t.numel() for t in strategy.state().values() if t.ndim == 2)
            prepare(self.threads or threads_for(max(layers)))
            progress, before = self._resumed(strategy, seed)
            costs = Costs(meter, before)
            recorder = Recorder(self.data, self.scenario, seed, self.crop_rows)
            meter.mark_start()
            self.begin()
            self.events.write("seed", seed=seed, steps_done=progress.steps)

            def after_step(progress: Progress, task: Task) -> None:
                watch.flush()
                self._save(strategy, seed, progress, task, costs)

            with self._failures_told(seed):
                outcome = run(
                    strategy,
                    self.data,
                    self.scenario,
                    watch=watch,
                    progress=progress,
                    look=apart(recorder, meter),
                    after_step=after_step,
                )
        entry = {
            "seed": seed,
            **figures(outcome, self.scenario),
            "resources": costs.resources(),
        }
        done = Done(entry, predictions(outcome, self.scenario), outcome.shown, costs.series())
        self._finish(seed, done)
        return done

    @contextmanager
    def _failures_told(self, seed: int) -> Iterator[None]:
        """In the log as well, for whoever finds the run later."""
        try:
            yield
        except Exception as error:
            known = isinstance(error, Refused)
            why = str(error) if known else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a full disk is why
                self.events.write("failed", seed=seed, why=printable(why[:_LONGEST]))
            raise

    def _finish(self, seed: int, done: Done) -> None:
        entry = done.entry | {"series": [sample._asdict() for sample in done.series]}
        self.checkpoints.finish(seed, entry, done.predictions | _marked(done.shown))
        accuracy = done.entry["average_accuracy"]
        self.events.write("finished", seed=seed, average_accuracy=accuracy)

    def _save(
        self, strategy: Strategy, seed: int, progress: Progress, task: Task, costs: Costs
    ) -> None:
        record = Record.of(progress, costs.resources(), costs.series()).model_dump()
        learnt = task.index + 1
        shown = {k: torch.from_numpy(array) for k, array in _marked(progress.shown).items()}
        self.checkpoints.save(seed, learnt, strategy.model(), strategy.state() | shown, record)
        self.events.write("checkpoint", seed=seed, task=learnt)
        known = [value for value in progress.rows[-1][:learnt] if not math.isnan(value)]
        self.events.scalar(f"seed {seed}/accuracy", float(np.mean(known)), learnt)

    def _resumed(self, strategy: Strategy, seed: int) -> tuple[Progress, Before | None]:
        """Where an earlier run was; the strategy is put there."""
        saved = self.checkpoints.latest(seed)
        if saved is None:
            return Progress(), None
        try:
            record = validated(Record, saved.record)
            check_record(
                record, saved, learning_steps(strategy.schedule, self.scenario), self.scenario
            )
            state, marked = _parted(saved.state)
            shown = {name: tensor.numpy() for name, tensor in marked.items()}
            check_shown(shown, len(self.scenario.class_order))
            strategy.load_state(state)
            check_state(strategy, state)
        except MISFIT as error:
            raise misfit(seed, error) from None
        self.tick(self.iters * saved.learnt)
        resources = cast(Report, record.resources.model_dump())
        return record.progress(shown), Before(resources, record.samples())

    def finished(self, seed: int) -> Done | None:
        """What a seed that is done has come to, in this run or an earlier one."""
        found = self.checkpoints.finished(seed)
        if found is None:
            return None
        entry, (arrays, shown) = found[0], _parted(found[1])
        try:
            check_finished(entry, arrays, seed, self.scenario)
            check_shown(shown, len(self.scenario.class_order))
        except MISFIT as error:
            raise misfit(seed, error) from None
        return Done(entry, arrays, shown, samples_of(entry.pop("series")))


def _marked(shown: Arrays) -> Arrays:
    return {f"{_SHOWN}{name}": array for name, array in shown.items()}


def _parted(both: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    """(the others, those that `_marked` has marked, by their own names)."""
    others = {name: value for name, value in both.items() if not name.startswith(_SHOWN)}
    marked = {k.removeprefix(_SHOWN): v for k, v in both.items() if k.startswith(_SHOWN)}
    return others, marked
