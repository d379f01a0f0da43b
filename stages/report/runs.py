"""Read what `lgr-pipe train` wrote, and put together only what belongs together.

A file is not trusted: its size and every value that is read have bounds, and text is shown
without anything that a terminal would act upon.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cache.errors import Refused

METRICS = "metrics.json"
NONE, CUMULATIVE, JOINT = "none", "cumulative", "joint"

_LIMIT = 64_000_000  # bytes; a larger file is not read
_MOST_SHOWN = 5  # mistakes of a file that are told


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


Text = Annotated[str, Field(max_length=500), AfterValidator(_plain)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
"""Of two fractions."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""Bytes, or operations."""
ByKind = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")], Count], Field(max_length=16)
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Total(_Part):
    """What a seed cost; None: not measured."""

    cpu_seconds: Seconds
    rss_peak_bytes: Count | None = None
    rss_growth_bytes: Count | None = None
    gpu_utilisation_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    gpu_memory_peak_bytes: Count | None = None


class Resources(_Part):
    period_seconds: Seconds
    """Between two samples."""
    total: Total


class Also(_Part):
    """The same logits, judged in the related scenario."""

    scenario: Literal["task", "class"]
    average_accuracy: Fraction


class SeedRun(_Part):
    """One seed: fractions, seconds, bytes.  None where undefined; what older files do not have
    is None too, and not in `model_fields_set`."""

    seed: Annotated[int, Field(ge=0)]
    accuracy_matrix: list[list[Fraction | None]]
    """R: row i after learning task i."""
    average_accuracy: Fraction
    average_incremental_accuracy: Fraction | None = None
    forgetting: Difference | None
    bwt: Difference | None
    fwt: Difference | None
    macro_f1: Fraction | None = None
    also: Also | None = None
    majority_floor: Fraction
    train_seconds: Seconds
    memory_bytes: ByKind = Field(default_factory=dict)
    macs_per_iteration: ByKind = Field(default_factory=dict)
    resources: Resources | None = None


class Run(_Part):
    """One strategy's metrics.json."""

    strategy: Annotated[str, Field(pattern=r"^[\w+.-]{1,64}$")]
    dataset: Text
    backbone: Text
    weights: Text
    scenario: Literal["task", "class", "domain"]
    protocol: Literal["corrected", "released"] = "corrected"
    evaluated_on: Literal["test", "validation"] = "test"
    validation: Fraction = 0.0
    """Share of the training rows that was put aside."""
    tasks: Annotated[int, Field(ge=1)]
    class_order: list[Text]
    task_classes: list[list[Text]] | None = None
    single_class_tasks: list[Annotated[int, Field(ge=0)]]
    cache_fingerprint: Text
    cache_content: Text
    iters: Count
    batch_size: Count
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    runs: list[SeedRun] = Field(min_length=1)

    @field_validator("runs")
    @classmethod
    def _one_a_seed(cls, runs: list[SeedRun]) -> list[SeedRun]:
        if len({run.seed for run in runs}) < len(runs):
            raise ValueError("a seed is there twice")
        return runs

    @model_validator(mode="after")
    def _of_its_tasks(self) -> Self:
        matrices = [seed.accuracy_matrix for seed in self.runs]
        if any(len(r) != self.tasks or {len(row) for row in r} != {self.tasks} for r in matrices):
            raise ValueError("accuracy_matrix must have a row and a column for each task")
        if self.task_classes is not None and len(self.task_classes) != self.tasks:
            raise ValueError("task_classes must have an entry for each task")
        if any(index >= self.tasks for index in self.single_class_tasks):
            raise ValueError("single_class_tasks must be tasks, counted from 0")
        return self

    def study(self) -> dict[str, Any]:
        """What must be equal for two runs to stand in one table."""
        names = (
            "dataset", "backbone", "weights", "scenario", "protocol", "evaluated_on", "validation",
            "tasks", "class_order", "task_classes", "cache_fingerprint", "cache_content", "iters",
            "batch_size", "lr",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Study:
    """Runs that differ in nothing but the strategy: one each, at least one."""

    runs: tuple[Run, ...]
    """none, what replays by name, cumulative, joint."""

    @property
    def first(self) -> Run:
        """For what all of them share."""
        return self.runs[0]

    @property
    def floor(self) -> float:
        """Accuracy of the best constant answer, a fraction: of the rows, so equal in all runs."""
        return self.first.runs[0].majority_floor

    def run_of(self, strategy: str) -> Run | None:
        return next((run for run in self.runs if run.strategy == strategy), None)


def find_studies(folders: Sequence[Path]) -> list[Study]:
    """All runs at or below the folders, in the order of their paths; those that differ in more
    than the strategy belong to different studies.

    Raises:
        Refused: nothing there, a file that is no metrics.json of ours, or two runs of one
            strategy in one study.
    """
    studies: list[dict[str, tuple[Path, Run]]] = []
    for path in _paths(folders):
        run = _read(path)
        for study in studies:
            if next(iter(study.values()))[1].study() == run.study():
                break
        else:
            studies.append(study := {})
        if run.strategy in study:
            raise Refused(
                f"{study[run.strategy][0]} and {path} are both runs of {run.strategy}, and equal "
                "in data, tasks and training: which one belongs in the table? Name folders that "
                "hold only one of them: lgr-pipe report FOLDER ..."
            )
        study[run.strategy] = (path, run)
    return [Study(tuple(study[name][1] for name in sorted(study, key=_place))) for study in studies]


def _place(strategy: str) -> tuple[int, str]:
    last = (CUMULATIVE, JOINT)
    return (last.index(strategy) + 1 if strategy in last else -(strategy == NONE), strategy)


def _paths(folders: Sequence[Path]) -> list[Path]:
    """Each once, though folders may lie in each other."""
    paths: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise Refused(f"There is no folder {folder}.")
        for path in sorted(folder.rglob(METRICS)):
            paths.setdefault(path.resolve(), path)
    if not paths:
        names = ", ".join(str(folder) for folder in folders)
        raise Refused(
            f"There are no finished runs in {names}: no {METRICS} in it or below. "
            "Make one: lgr-pipe train --strategy NAME --cache PATH --out DIR"
        )
    return list(paths.values())


def _read(path: Path) -> Run:
    try:
        if path.stat().st_size > _LIMIT:
            raise ValueError(f"it is larger than {_LIMIT} bytes")
        return Run.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        raise _strange(path, "; ".join(_sentences(error))) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _strange(path, str(error)) from None


def _sentences(error: ValidationError) -> list[str]:
    lines = []
    for mistake in error.errors(include_url=False)[:_MOST_SHOWN]:
        where = ".".join(str(part) for part in mistake["loc"]) or "the file"
        lines.append(f"{where}: {mistake['msg']}")
    if error.error_count() > _MOST_SHOWN:
        lines.append(f"and {error.error_count() - _MOST_SHOWN} more")
    return lines


def _strange(path: Path, why: str) -> Refused:
    return Refused(
        f"{path} is not what lgr-pipe train writes ({_plain(why)[:500]}). "
        "Run train again, or name only folders of its runs."
    )
