"""Run a strategy seed after seed over one resident cache, going on where an earlier run ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cache.errors import Refused
from pipeline.checkpoints import Checkpoints
from pipeline.device import threads_for
from pipeline.events import Events
from stages.train.figures import figures, predictions
from stages.train.loop import Progress, run
from stages.train.meter import Meter
from stages.train.scenario import Scenario, Task
from stages.train.strategy import Setup, Strategy
from stages.train.tally import Report, combined
from stages.train.view import Data
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
    data: Data
    scenario: Scenario
    checkpoints: Checkpoints
    events: Events
    iters: int
    period: float
    device: str
    threads: int | None
    """None: by the strategy's work."""
    tick: Callable[[int], None]

    def run(self, seed: int) -> tuple[Entry, Arrays]:
        """The seed's entry in metrics.json, and its predictions."""
        finished = self.checkpoints.finished(seed)
        if finished is not None:
            self.tick(self.iters * len(self.scenario.tasks))
            return finished[0], cast(Arrays, finished[1])
        with Meter(self.period, self.device) as meter:
            watch = Telling(meter.phase, lambda: self.tick(1), self.events.write)
            strategy: Strategy = self.module.Method(self.setup(seed, watch), self.options)
            torch.set_num_threads(self.threads or threads_for(sum(strategy.macs().values())))
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
        record = _Record.of(progress, resources).model_dump()
        learnt = task.index + 1
        self.checkpoints.save(seed, learnt, strategy.model(), strategy.state(), record)
        self.events.write("checkpoint", seed=seed, task=learnt)
        known = [value for value in progress.rows[-1] if not math.isnan(value)]
        self.events.scalar(f"seed {seed}/accuracy", float(np.mean(known)), learnt)

    def _resumed(self, strategy: Strategy, seed: int) -> tuple[Progress, Report | None]:
        """Where an earlier run was; the strategy is put there."""
        saved = self.checkpoints.latest(seed)
        if saved is None:
            return Progress(), None
        try:
            record = _Record.model_validate(saved.record)
            strategy.load_state(saved.state)
        except (ValidationError, KeyError, ValueError, RuntimeError) as error:
            raise Refused(
                f"The checkpoint of seed {seed} does not fit this run ({_first_line(error)}): "
                "run without --resume, with --overwrite."
            ) from None
        self.tick(self.iters * saved.learnt)
        return record.progress(), cast(Report | None, record.resources)


class _Record(BaseModel):
    """Beside a strategy's state in a checkpoint; NaN is null."""

    model_config = ConfigDict(extra="forbid")

    untrained: list[float | None]
    rows: list[list[float | None]]
    also_rows: list[list[float | None]]
    seconds: list[float]
    resources: dict[str, Any] | None

    @classmethod
    def of(cls, progress: Progress, resources: Report) -> _Record:
        return cls(
            untrained=_plain(progress.untrained),
            rows=[_plain(row) for row in progress.rows],
            also_rows=[_plain(row) for row in progress.also_rows],
            seconds=progress.seconds,
            resources=dict(resources),
        )

    def progress(self) -> Progress:
        return Progress(
            _numbers(self.untrained),
            [_numbers(row) for row in self.rows],
            [_numbers(row) for row in self.also_rows],
            self.seconds,
        )


def _plain(values: list[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def _numbers(values: list[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
