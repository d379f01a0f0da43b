"""Read what `lgr-pipe train` wrote, and refuse to mix what does not belong together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.errors import Refused

METRICS = "metrics.json"


class SeedRun(BaseModel):
    """One seed: fractions, seconds, bytes; None where undefined."""

    model_config = ConfigDict(extra="ignore")

    seed: int
    accuracy_matrix: list[list[float | None]]
    average_accuracy: float
    forgetting: float | None
    bwt: float | None
    fwt: float | None
    majority_floor: float
    train_seconds: float
    memory_bytes: dict[str, int] = Field(default_factory=dict)


class Run(BaseModel):
    """One strategy's metrics.json."""

    model_config = ConfigDict(extra="ignore")

    strategy: str
    dataset: str
    backbone: str
    weights: str
    scenario: str
    tasks: int
    class_order: list[str]
    single_class_tasks: list[int]
    cache_fingerprint: str
    cache_content: str
    iters: int
    batch_size: int
    lr: float
    runs: list[SeedRun] = Field(min_length=1)

    def study(self) -> dict[str, Any]:
        """What must be equal for two runs to stand in one table."""
        names = (
            "dataset", "backbone", "weights", "scenario", "tasks", "class_order",
            "cache_fingerprint", "cache_content", "iters", "batch_size", "lr",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """All runs at or below the folders, one for each strategy.

    Raises:
        Refused: nothing there, a file that is no metrics.json of ours, two runs
            of one strategy, or runs that differ in more than the strategy.
    """
    paths: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise Refused(f"There is no folder {folder}.")
        paths += sorted(folder.rglob(METRICS))
    if not paths:
        names = ", ".join(str(folder) for folder in folders)
        raise Refused(
            f"There are no finished runs in {names}: no {METRICS} in it or below. "
            "Make one: lgr-pipe train --strategy NAME --cache PATH --out DIR"
        )
    runs: dict[str, tuple[Path, Run]] = {}
    for path in paths:
        run = _read(path)
        if run.strategy in runs:
            raise Refused(
                f"{runs[run.strategy][0]} and {path} are both runs of {run.strategy}. "
                "Report them separately."
            )
        runs[run.strategy] = (path, run)
    _refuse_mixture(list(runs.values()))
    return [run for _, run in runs.values()]


def _read(path: Path) -> Run:
    try:
        return Run.model_validate(json.loads(path.read_bytes()))
    except (ValidationError, ValueError) as error:
        lines = str(error).splitlines()
        raise Refused(f"{path} is not what lgr-pipe train writes: {' '.join(lines[:3])}") from None


def _refuse_mixture(runs: list[tuple[Path, Run]]) -> None:
    first_path, first = runs[0]
    for path, run in runs[1:]:
        a, b = first.study(), run.study()
        lines = [f"{name}: {a[name]!r} and {b[name]!r}" for name in a if a[name] != b[name]]
        if lines:
            shown = "\n  ".join(lines)
            raise Refused(
                f"{first_path} and {path} are not comparable; they differ in\n  {shown}\n"
                "Report them separately."
            )
