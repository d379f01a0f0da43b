"""A seed's run as `lgr-pipe train` does it: meter, log and checkpoints on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.checkpoints import Checkpoints
from pipeline.events import Events
from pipeline.params import TrainParams
from pipeline.seed_runs import SeedRuns
from stages.strategies import module
from stages.train.scenario import Scenario
from stages.train.strategy import Setup
from stages.train.view import Data
from stages.train.watch import Watch


def seed_entry(
    strategy: str,
    options: Any,
    setup: Callable[[Watch], Setup],
    data: Data,
    scenario: Scenario,
    folder: Path,
    threads: int | None = None,
) -> dict[str, Any]:
    """The seed's entry in metrics.json; its files go to `folder`, which is there and empty.

    `threads`: None for as many as `train` would take.
    """
    plain = setup(Watch())
    with Events(folder / "log.jsonl") as events:
        runs = SeedRuns(
            module=module(strategy),
            options=options,
            setup=lambda _, watch: setup(watch),
            data=data,
            scenario=scenario,
            checkpoints=Checkpoints(folder / "checkpoints", {"strategy": strategy}),
            events=events,
            iters=plain.iters,
            period=TrainParams().period,
            device=plain.device,
            threads=threads,
            tick=lambda _: None,
        )
        return runs.run(plain.seed)[0]
