"""The folder of a run: run.json says how it was made, metrics.json what came out."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cache.errors import CacheExistsError
from cache.files import write_json
from cache.provenance import versions
from cache.schema import Manifest
from pipeline.console import command_line
from pipeline.params import TrainParams
from stages.train.scenario import Scenario

METRICS, RUN = "metrics.json", "run.json"


def refuse_taken(out: Path, *, overwrite: bool) -> None:
    """A folder with results is kept unless `overwrite`; one with other things always.

    Raises:
        CacheExistsError: `out` is taken.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise CacheExistsError(f"{out} exists already and is no folder: choose another --out.")
    names = sorted(p.name for p in out.iterdir() if not p.name.endswith(".tmp"))
    strange = [name for name in names if name not in (METRICS, RUN)]
    if strange:
        raise CacheExistsError(
            f"{out} exists already and holds other things ({strange[0]}): choose another --out."
        )
    if METRICS in names and not overwrite:
        raise CacheExistsError(
            f"{out} holds the results of a finished run: add --overwrite to replace them, "
            "or choose another --out."
        )


@contextmanager
def folder(out: Path) -> Iterator[None]:
    """`out` made before the work (a place that cannot be written is found out now, not
    after an hour of training), and unmade if the work fails and it is empty."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty: the work has succeeded
            out.rmdir()


def metrics(
    strategy: str,
    manifest: Manifest,
    scenario: Scenario,
    train: TrainParams,
    runs: list[dict[str, Any]],
) -> dict[str, Any]:
    """The content of metrics.json: fractions, seconds, bytes."""
    accuracies = [entry["average_accuracy"] for entry in runs]
    return {
        "strategy": strategy,
        "dataset": manifest.info.dataset,
        "backbone": manifest.info.backbone,
        "weights": manifest.info.weights,
        "scenario": scenario.name,
        "tasks": len(scenario.tasks),
        "class_order": list(scenario.class_order),
        "task_classes": [list(task.classes) for task in scenario.tasks],
        "single_class_tasks": scenario.single_class_tasks,
        "cache_fingerprint": manifest.fingerprint,
        "cache_content": manifest.content,
        "iters": train.iters,
        "batch_size": train.batch_size,
        "lr": train.lr,
        "average_accuracy_mean": statistics.fmean(accuracies),
        "average_accuracy_sd": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "runs": runs,
    }


def write(
    out: Path,
    found: dict[str, Any],
    *,
    options: dict[str, Any],
    train: TrainParams,
    cache: Path,
    device: str,
) -> None:
    """run.json, then metrics.json: its presence says that the run is finished."""
    for leftover in out.glob(".*.tmp"):  # of a run that was killed here
        leftover.unlink()
    (out / METRICS).unlink(missing_ok=True)
    about = {
        "command": command_line(),
        "strategy": found["strategy"],
        "options": options,
        "train": train.model_dump(mode="json"),
        "cache": str(cache),
        "cache_fingerprint": found["cache_fingerprint"],
        "cache_content": found["cache_content"],
        "device": device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "versions": versions(),
    }
    write_json(out / RUN, about)
    write_json(out / METRICS, found)


def sentence(found: dict[str, Any], out: Path) -> str:
    """What came out, in a line."""
    mean, sd, runs = found["average_accuracy_mean"], found["average_accuracy_sd"], found["runs"]
    spread = "" if sd is None else f" ± {100 * sd:.2f}"
    seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
    seconds = sum(entry["train_seconds"] for entry in runs)
    return (
        f"{found['strategy']}: accuracy {100 * mean:.2f}{spread} % over {seeds} "
        f"(majority floor {100 * runs[0]['majority_floor']:.2f} %), {seconds:.1f} s of training; "
        f"weights: {found['weights']}. Written to {out}"
    )
