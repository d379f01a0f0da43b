"""Run a strategy seed after seed over one resident cache, going on where an earlier run ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.checkpoints import Checkpoints
from pipeline.device import prepare, threads_for
from pipeline.events import Events
from pipeline.records import MISFIT, Record, check_finished, check_record, check_state, misfit
from stages.train.figures import figures, predictions
from stages.train.loop import Progress, learning_steps, run
from stages.train.meter import Meter
from stages.train.scenario import Scenario, Task
from stages.train.strategy import Setup, Strategy
from stages.train.tally import Report, combined
from stages.train.view import Source
from stages.train.watch import Telling

Entry = dict[str, Any]
Arrays = dict[str, NDArray[np.int64]]


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
    events: Events
    iters: int
    period: float
    device: str
    threads: int | None
    """None: by the size of the strategy's networks."""
    tick: Callable[[int], None]

    def run(self, seed: int) -> tuple[Entry, Arrays]:
        """The seed's entry in metrics.json, and its predictions."""
        finished = self._finished(seed)
        if finished is not None:
            self.tick(self.iters * len(self.scenario.tasks))
            return finished
        with Meter(self.period, self.device) as meter:
            watch = Telling(meter.phase, lambda: self.tick(1), self.events.write)
            strategy: Strategy = self.module.Method(self.setup(seed, watch), self.options)
            layers = (t.numel() for t in strategy.state().values() if t.ndim == 2)
            prepare(self.threads or threads_for(max(layers)))
            progress, before = self._resumed(strategy, seed)
            meter.mark_start()
            self.events.write("seed", seed=seed, steps_done=progress.steps)

            def resources() -> Report:
                now = meter.report()
                return now if before is None else combined(before, now)

            def after_step(progress: Progress, task: Task) -> None:
                watch.flush()
                self._save(strategy, seed, progress, task, resources())

            outcome = run(
                strategy,
                self.data,
                self.scenario,
                watch=watch,
                progress=progress,
                after_step=after_step,
            )
        entry = {
            "seed": seed,
            **figures(outcome, self.scenario),
            "resources": resources(),
        }
        arrays = predictions(outcome, self.scenario)
        self.checkpoints.finish(seed, entry, cast(dict[str, NDArray[Any]], arrays))
        self.events.write("finished", seed=seed, average_accuracy=entry["average_accuracy"])
        return entry, arrays

    def _save(
        self, strategy: Strategy, seed: int, progress: Progress, task: Task, resources: Report
    ) -> None:
        record = Record.of(progress, resources).model_dump()
        learnt = task.index + 1
        self.checkpoints.save(seed, learnt, strategy.model(), strategy.state(), record)
        self.events.write("checkpoint", seed=seed, task=learnt)
        known = [value for value in progress.rows[-1][:learnt] if not math.isnan(value)]
        self.events.scalar(f"seed {seed}/accuracy", float(np.mean(known)), learnt)

    def _resumed(self, strategy: Strategy, seed: int) -> tuple[Progress, Report | None]:
        """Where an earlier run was; the strategy is put there."""
        saved = self.checkpoints.latest(seed)
        if saved is None:
            return Progress(), None
        try:
            record = Record.model_validate(saved.record)
            check_record(
                record, saved, learning_steps(strategy.schedule, self.scenario), self.scenario
            )
            strategy.load_state(saved.state)
            check_state(strategy, saved.state)
        except MISFIT as error:
            raise misfit(seed, error) from None
        self.tick(self.iters * saved.learnt)
        return record.progress(), cast(Report, record.resources.model_dump())

    def _finished(self, seed: int) -> tuple[Entry, Arrays] | None:
        """What an earlier run has made of a seed."""
        found = self.checkpoints.finished(seed)
        if found is None:
            return None
        try:
            check_finished(found[0], found[1], seed, self.scenario)
        except MISFIT as error:
            raise misfit(seed, error) from None
        return found[0], cast(Arrays, found[1])
