"""What comes back from a checkpoint, which may be anybody's: its form, and whether it fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cache.errors import Refused
from cache.limits import validated
from cache.printable import printable
from pipeline.checkpoints import Saved
from stages.train.adam import Adam
from stages.train.evaluation import ALSO, asked_rows
from stages.train.loop import Progress
from stages.train.scenario import Scenario, Task
from stages.train.series import MOST, Sample
from stages.train.strategy import Strategy
from stages.train.tally import Report

MISFIT = (LookupError, TypeError, ArithmeticError, ValueError, RuntimeError, StopIteration)
"""What reading or loading a state that does not fit can raise."""

_Accuracy = Annotated[float, Field(ge=0, le=1)] | None
_Seconds = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=0)]
_Word = Annotated[str, Field(pattern=r"^[ -~]{1,64}$")]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Figures(_Form):
    """As tally.Figures."""

    wall_seconds: _Seconds
    cpu_seconds: _Seconds
    rss_peak_bytes: _Count | None
    rss_growth_bytes: _Count | None
    gpu_utilisation_percent: _Seconds | None
    gpu_memory_peak_bytes: _Count | None
    gpu_allocated_peak_bytes: _Count | None
    samples: _Count


class _Sample(_Form):
    """As series.Sample."""

    seconds: _Seconds
    phase: _Word
    rss_bytes: _Count | None
    cpu_seconds: _Seconds
    gpu_utilisation_percent: _Seconds | None
    gpu_memory_bytes: _Count | None


_Series = Annotated[list[_Sample], Field(max_length=MOST)]


class _Replay(_Form):
    """A state of what is replayed, as nearest.Found tells it."""

    learnt: Annotated[int, Field(ge=1)]
    kind: Literal["generated", "stored"]
    drawn: _Count
    variance_ratio: _Seconds | None
    labels: dict[str, _Count]
    ncm_agreement: _Accuracy
    ncm_agreement_real: _Accuracy


class _Report(_Form):
    """As tally.Report."""

    period_seconds: _Seconds
    synchronised: bool
    sampling_cpu_seconds: _Seconds
    problems: list[str]
    total: _Figures
    phases: dict[_Word, _Figures]
    record: _Figures


class _Also(_Form):
    model_config = ConfigDict(extra="allow")

    scenario: str
    accuracy_matrix: list[list[_Accuracy]]


class _Entry(_Form):
    """Of a seed's entry in metrics.json, what is read again."""

    model_config = ConfigDict(extra="allow")

    seed: int
    accuracy_matrix: list[list[_Accuracy]]
    untrained_accuracy: list[_Accuracy]
    average_accuracy: float
    also: _Also | None
    majority_floor: float
    train_seconds: _Seconds
    resources: _Report
    replay: list[_Replay]
    series: _Series
    """Not in metrics.json."""


class Record(_Form):
    """Beside a strategy's state in a checkpoint; NaN is null."""

    untrained: list[_Accuracy]
    rows: list[list[_Accuracy]]
    also_rows: list[list[_Accuracy]]
    seconds: list[_Seconds]
    replay: list[_Replay]
    resources: _Report
    series: _Series

    @classmethod
    def of(cls, progress: Progress, resources: Report, series: Sequence[Sample]) -> Record:
        return cls(
            untrained=_plain(progress.untrained),
            rows=[_plain(row) for row in progress.rows],
            also_rows=[_plain(row) for row in progress.also_rows],
            seconds=progress.seconds,
            replay=[_Replay.model_validate(state) for state in progress.replay],
            resources=_Report.model_validate(resources),
            series=[_Sample.model_validate(sample._asdict()) for sample in series],
        )

    def progress(self, shown: dict[str, NDArray[Any]]) -> Progress:
        """`shown`: what was beside the strategy's tensors."""
        return Progress(
            _numbers(self.untrained),
            [_numbers(row) for row in self.rows],
            [_numbers(row) for row in self.also_rows],
            self.seconds,
            [state.model_dump() for state in self.replay],
            shown,
        )

    def samples(self) -> list[Sample]:
        return samples_of(self.model_dump()["series"])


def samples_of(series: list[dict[str, Any]]) -> list[Sample]:
    """As they were before they were JSON."""
    return [Sample(**sample) for sample in series]


def _plain(values: list[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def _numbers(values: list[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def check_finished(
    entry: dict[str, Any], arrays: Mapping[str, NDArray[Any]], seed: int, scenario: Scenario
) -> None:
    """Raises one of MISFIT: it is not what this run makes of a seed."""
    asked, tasks = asked_rows(scenario), len(scenario.tasks)
    read = validated(_Entry, entry)
    _require(read.seed == seed, "it is of another seed")
    matrices = [read.accuracy_matrix, *([read.also.accuracy_matrix] if read.also else [])]
    rows = [read.untrained_accuracy, *(row for matrix in matrices for row in matrix)]
    _require(all(len(matrix) == tasks for matrix in matrices), "an R matrix has other tasks")
    _require(all(len(row) == tasks for row in rows), "an R matrix has other tasks")
    for name, wanted in (("rows", asked.rows), ("tasks", asked.tasks)):
        _require(np.array_equal(arrays[name], wanted), f"{name}: of other test rows")
    _check_replay(read.replay, tasks, scenario)


def check_record(
    record: Record, saved: Saved, steps: Sequence[tuple[Task, ...]], scenario: Scenario
) -> None:
    """Raises ValueError: it is not what this run would have written after its first steps."""
    done, tasks = len(record.rows), len(scenario.tasks)
    met = [step[-1].index + 1 for step in steps[:done]]
    _require(1 <= done <= len(steps), f"it has {done} steps of {len(steps)}")
    _require(met[-1] == saved.learnt, f"{saved.learnt} tasks learnt, but figures of {met[-1]}")
    _require(len(record.seconds) == done, "seconds: of other steps")
    also = ALSO.get(scenario.name)
    _require(len(record.also_rows) == (done if also else 0), "also_rows: of other steps")
    for kind, rows in ((scenario.name, record.rows), (also, record.also_rows)):
        for learnt, row in zip(met, rows, strict=False):
            unmet = range(learnt if kind == "class" else tasks, tasks)
            known = [value is not None for value in row]
            _require(known == [k not in unmet for k in range(tasks)], "rows: of other tasks")
    _require(len(record.untrained) == tasks, "untrained: of other tasks")
    _require(None not in record.untrained, "untrained: of other tasks")
    _check_replay(record.replay, saved.learnt, scenario)


def _check_replay(replay: Sequence[_Replay], learnt: int, scenario: Scenario) -> None:
    """`learnt`: tasks that it can be about; the last one of all is followed by none."""
    states = [state.learnt for state in replay]
    possible = range(1, min(learnt, len(scenario.tasks) - 1) + 1)
    _require(states == sorted(set(states)), "replay: states in no order")
    _require(set(states) <= set(possible), "replay: of other tasks")
    for state in replay:
        known = {name for task in scenario.tasks[: state.learnt] for name in task.classes}
        _require(state.labels.keys() == known, "replay: labels of other classes")


def check_state(strategy: Strategy, saved: dict[str, Tensor]) -> None:
    """Raises ValueError: what was loaded is not all that was saved, or is of another form.

    Loading alone would broadcast and convert; and Adam takes moments of any shape, past whose
    end its next step then reads.
    """
    found = strategy.state()
    strange = sorted(found.keys() ^ saved.keys())
    _require(not strange, f"tensors that are missing or strange: {', '.join(strange[:3])}")
    for name, tensor in found.items():
        same = tensor.dtype == saved[name].dtype and tensor.shape == saved[name].shape
        _require(same, f"{name} is of another dtype or shape")
    for optimiser in vars(strategy).values():
        if isinstance(optimiser, Adam):
            _check_moments(optimiser)


def _check_moments(optimiser: Adam) -> None:
    parameters = dict(enumerate(optimiser.parameters))
    _require(optimiser.state.keys() == parameters.keys(), "moments of other parameters")
    for k, parameter in parameters.items():
        moments = dict(optimiser.state[k])
        step = moments.pop("step", None)
        right = step is not None and (step.dtype, step.shape) == (torch.float32, ())
        _require(right, "no step")
        _require(moments.keys() == {"exp_avg", "exp_avg_sq"}, "moments of another optimiser")
        fits = all(moment.shape == parameter.shape for moment in moments.values())
        _require(fits, "moments of another shape")
        alike = all(moment.dtype == parameter.dtype for moment in moments.values())
        _require(alike, "moments of another type")


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)


def misfit(seed: int, error: Exception) -> Refused:
    lines = [line.strip() for line in str(error).splitlines()[:3]]
    why = printable((" ".join(lines) or type(error).__name__)[:500])
    return Refused(
        f"The checkpoint of seed {seed} does not fit this run ({why}): "
        "run without --resume, with --overwrite."
    )
