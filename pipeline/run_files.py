"""The flat files of a finished run: for people, spreadsheets and `dvc plots`."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused
from cache.files import write_text
from stages.train.series import Sample

LOG, CHECKPOINTS = "log.jsonl", "checkpoints"
ACCURACY_MATRIX, CURVE, PREDICTIONS = "accuracy_matrix.csv", "curve.csv", "predictions.csv"
RESOURCES, REPLAY = "resources.csv", "replay.safetensors"

FILES: tuple[str, ...] = (
    "metrics.json",
    "run.json",
    LOG,
    ACCURACY_MATRIX,
    CURVE,
    PREDICTIONS,
    RESOURCES,
    REPLAY,
    CHECKPOINTS,
)
"""All that a run folder may hold."""

Row = tuple[object, ...]
SeedAnswers = Mapping[str, NDArray[np.integer[Any]]]
"""One seed's test rows, each (N,): `rows` (position in the latent cache), `tasks` (0-based),
`targets` and `answers` (positions in the list of classes), and `also` (the same) where the rows
were answered in a second scenario too."""


def write_accuracy_matrix(path: Path, runs: Sequence[Mapping[str, Any]], scenario: str) -> None:
    """seed, scenario, learnt, task, accuracy: a line for each value there is, fractions.

    `runs` are those of metrics.json; `scenario` is that of their `accuracy_matrix`, an `also`
    names its own.  Tasks count from 1; learnt 0 is the untrained network.
    """
    lines = (
        (run["seed"], name, learnt, task, accuracy)
        for run in runs
        for name, first, matrix in _matrices(run, scenario)
        for learnt, row in enumerate(matrix, first)
        for task, accuracy in enumerate(row, 1)
        if accuracy is not None
    )
    _write(path, ("seed", "scenario", "learnt", "task", "accuracy"), lines)


def _matrices(
    run: Mapping[str, Any], scenario: str
) -> Iterator[tuple[str, int, list[list[float | None]]]]:
    """(scenario, tasks learnt at its first row, matrix)."""
    yield scenario, 0, [run["untrained_accuracy"], *run["accuracy_matrix"]]
    if run.get("also"):
        yield run["also"]["scenario"], 1, run["also"]["accuracy_matrix"]


def write_curve(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """seed, learnt, accuracy: mean accuracy on the tasks learnt so far, 1/i sum_{j<=i} R[i, j].

    A fraction; the mean of a seed's lines is its average incremental accuracy (Rebuffi et al.
    2017).  No line where one of these tasks was not evaluated.
    """
    lines = (
        (run["seed"], learnt, statistics.fmean(row[:learnt]))
        for run in runs
        for learnt, row in enumerate(run["accuracy_matrix"], 1)
        if None not in row[:learnt]
    )
    _write(path, ("seed", "learnt", "accuracy"), lines)


def write_predictions(path: Path, seeds: Mapping[int, SeedAnswers], classes: Sequence[str]) -> None:
    """seed, row, task, target, answer, also: what was answered after the last task.

    `row` is the position in the latent cache and says which sample it was to whoever has that
    cache: sample ids are left out, for they may be personal data.  Tasks count from 1; target,
    answer and also are names of `classes`; also is empty where there is none.

    Raises:
        Refused: arrays that do not fit each other or the classes.
    """
    lines = (line for seed, answers in seeds.items() for line in _answers(seed, answers, classes))
    _write(path, ("seed", "row", "task", "target", "answer", "also"), lines)


def write_resources(path: Path, seeds: Mapping[int, Sequence[Sample]]) -> None:
    """seed, seconds, phase, rss_bytes, cpu_seconds, gpu_utilisation_percent, gpu_memory_bytes:
    what the meter has sampled, at most `series.MOST` lines a seed; empty: not measured."""
    lines = ((seed, *sample) for seed, samples in seeds.items() for sample in samples)
    _write(path, ("seed", *Sample._fields), lines)


def _answers(seed: int, answers: SeedAnswers, classes: Sequence[str]) -> Iterator[Row]:
    _check(seed, answers, len(classes))
    also = answers.get("also")
    names = [
        [classes[k] for k in column.tolist()] if column is not None else [""] * len(answers["rows"])
        for column in (answers["targets"], answers["answers"], also)
    ]
    for row, task, *named in zip(
        answers["rows"].tolist(), answers["tasks"].tolist(), *names, strict=True
    ):
        yield seed, row, task + 1, *named


def _check(seed: int, answers: SeedAnswers, classes: int) -> None:
    """They come back from a checkpoint, and a negative index would name a wrong class."""
    tops = {"rows": None, "tasks": None, "targets": classes, "answers": classes}
    if "also" in answers:
        tops["also"] = classes
    for name, top in tops.items():
        if name not in answers or not _indices(answers[name], answers["rows"].shape, top):
            raise Refused(
                f"The answers of seed {seed} are not whole: {name} must be one whole number a row"
                f"{'' if top is None else f' in 0..{top - 1}'}. "
                "Run with --overwrite, without --resume, to start anew."
            )


def _indices(column: NDArray[np.integer[Any]], shape: tuple[int, ...], top: int | None) -> bool:
    """int (N,), none negative, all below `top` where there is one."""
    if column.dtype.kind not in "iu" or column.shape != shape or column.ndim != 1:
        return False
    return not column.size or (column.min() >= 0 and (top is None or bool(column.max() < top)))


def _write(path: Path, names: Row, lines: Iterable[Row]) -> None:
    """Floats as their shortest text that reads back the same."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(lines)
    write_text(path, table.getvalue())
