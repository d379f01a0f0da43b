"""What `lgr-pipe train` wrote: the form of metrics.json, and runs that belong together.

A file is not trusted: every value that is read has bounds, and text is shown without anything
that a terminal would act upon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from stages.report.reading.about import About, Part, Text

METRICS = "metrics.json"
NONE, CUMULATIVE, JOINT = "none", "cumulative", "joint"

_T = TypeVar("_T")
Many = Annotated[list[_T], Field(fail_fast=True)]
"""Looked at up to its first mistake: each takes a hundred times the room of what it is about."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
"""Of two fractions."""
Seconds = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
"""Or a ratio; no figure can be drawn of much more."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""Bytes, operations, or a seed."""
Name = Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]
ByKind = Annotated[dict[Name, Count], Field(max_length=16)]


class Total(Part):
    """What a seed, or a phase of it, cost; None: not measured."""

    wall_seconds: Seconds | None = None
    cpu_seconds: Seconds
    rss_peak_bytes: Count | None = None
    rss_growth_bytes: Count | None = None
    gpu_utilisation_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    gpu_memory_peak_bytes: Count | None = None


class Resources(Part):
    period_seconds: Seconds
    """Between two samples."""
    total: Total
    phases: Annotated[dict[Name, Total], Field(max_length=32)] = Field(default_factory=dict)
    """They add up to the total."""


class Also(Part):
    """The same logits, judged in the related scenario."""

    scenario: Literal["task", "class"]
    average_accuracy: Fraction


class Replay(Part):
    """What was replayed while task `learnt` + 1 was learnt: drawn by a generator, or stored.

    `variance_ratio`: trace of the covariance of the replayed latents over that of the real ones
    of the tasks learnt; `labels`: answers given to them, by class, one for each head;
    `ncm_agreement`: share of these that name the nearest real class mean, and the same of real
    latents with their true classes.
    """

    learnt: Annotated[int, Field(ge=1)]
    kind: Literal["generated", "stored"]
    drawn: Count
    variance_ratio: Seconds | None
    labels: dict[Text, Count]
    ncm_agreement: Fraction | None = None
    ncm_agreement_real: Fraction | None = None


class SeedRun(Part):
    """One seed: fractions, seconds, bytes.  None where undefined; what older files do not have
    is None too, and not in `model_fields_set`."""

    seed: Count
    accuracy_matrix: Many[Many[Fraction | None]]
    """R: row i after learning task i."""
    average_accuracy: Fraction
    average_incremental_accuracy: Fraction | None = None
    forgetting: Difference | None
    bwt: Difference | None
    fwt: Difference | None
    learning_accuracy: Fraction | None = None
    macro_f1: Fraction | None = None
    balanced_accuracy: Fraction | None = None
    recall: Many[Fraction | None] | None = None
    """Of each class in `class_order`."""
    confusion: Many[Many[Count]] | None = None
    """Rows: true class; columns: answered; of the last answers."""
    also: Also | None = None
    majority_floor: Fraction
    majority_floor_by_task: Many[Fraction] | None = None
    replay: Many[Replay] | None = None
    """None: not recorded."""
    train_seconds: Seconds
    memory_bytes: ByKind = Field(default_factory=dict)
    macs_per_iteration: ByKind = Field(default_factory=dict)
    resources: Resources | None = None


class Run(Part):
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
    tasks: Annotated[int, Field(ge=1, le=1000)]
    class_order: Many[Text]
    task_classes: Many[Many[Text]] | None = None
    task_train_rows: Many[Count] | None = None
    task_test_rows: Many[Count] | None = None
    cache_rows: Count | None = None
    latent_dim: Count | None = None
    root_macs: Count | None = None
    single_class_tasks: Many[Annotated[int, Field(ge=0)]]
    cache_fingerprint: Text
    cache_content: Text
    iters: Count
    batch_size: Count
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of the factors of matrix products."""
    runs: Many[SeedRun] = Field(min_length=1)
    label: Text = ""
    """Its name in tables: the strategy, and the options in which variants of it differ.  This and
    the next three are set by who finds the run, whatever the file says."""
    variant: Count = 0
    """Among those of one strategy in the study."""
    folders: tuple[Path, ...] = ()
    """Where it lies; more than one where seeds were run apart."""
    about: About | None = None
    """Its run.json, the first one's; None: there is none, or it cannot be read."""

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
        if any(
            len(rows) != self.tasks for rows in (self.task_train_rows, self.task_test_rows) if rows
        ):
            raise ValueError("task_train_rows and task_test_rows must have a value for each task")
        for seed in self.runs:
            self._check_classes(seed)
        return self

    def _check_classes(self, seed: SeedRun) -> None:
        """Domain-incrementally tasks share outputs: fewer than classes."""
        table = seed.confusion
        if table and any(len(row) != len(table) for row in table):
            raise ValueError("confusion must have a row and a column for each output")
        if table and len(table) > len(self.class_order):
            raise ValueError("confusion must be of the classes")
        if table and seed.recall is not None and len(seed.recall) != len(table):
            raise ValueError("recall must have a value for each output")
        if any(replay.learnt > self.tasks for replay in seed.replay or []):
            raise ValueError("replay must be of tasks that there are")

    def study(self) -> dict[str, Any]:
        """What must be equal for two runs to stand in one table."""
        names = (
            "dataset", "backbone", "weights", "scenario", "protocol", "evaluated_on", "validation",
            "tasks", "class_order", "task_classes", "cache_fingerprint", "cache_content", "iters",
            "batch_size", "lr", "precision",
        )  # fmt: skip
        key = {name: getattr(self, name) for name in names}
        if self.about is not None:
            key["version"] = self.about.versions.get("lgr-pipe")
            key["early_stopping"] = self.about.train.early_stopping
        return key


@dataclass(frozen=True)
class Study:
    """Runs that differ in nothing but the strategy and its options: one each, at least one."""

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

    def run_of(self, label: str) -> Run | None:
        return next((run for run in self.runs if run.label == label), None)
