"""The folder of a run: run.json says how it was made, metrics.json what came out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.errors import CacheExistsError, Refused
from cache.files import refuse_url, write_json
from cache.schema import Manifest
from pipeline.checkpoints import Checkpoints
from pipeline.params import TrainParams
from pipeline.params import deciding as deciding_of
from pipeline.replay_file import write_replay
from pipeline.run_files import (
    ACCURACY_MATRIX,
    CURVE,
    FILES,
    PREDICTIONS,
    REPLAY,
    RESOURCES,
    write_accuracy_matrix,
    write_curve,
    write_predictions,
    write_resources,
)
from pipeline.seed_runs import Done
from stages.report.reading.find import read_about
from stages.train.scenario import Scenario
from stages.train.tally import Figures

METRICS, RUN, LOG, CHECKPOINTS = "metrics.json", "run.json", "log.jsonl", "checkpoints"


def refuse_taken(out: Path, *, overwrite: bool, resume: bool) -> None:
    """A folder with results is kept unless `overwrite`; one with other things always.

    `resume` goes on with a finished run too: more seeds may be asked for.

    Raises:
        CacheExistsError: `out` is taken.
        Refused: there is nothing to resume, or it would have to be chosen how to go on.
    """
    refuse_url(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise CacheExistsError(f"{out} exists already and is no folder: choose another --out.")
    names = sorted(p.name for p in out.iterdir() if not p.name.endswith(".tmp"))
    strange = [name for name in names if name not in FILES]
    if strange:
        raise CacheExistsError(
            f"{out} exists already and holds other things ({strange[0]}): choose another --out."
        )
    if METRICS in names and not overwrite and not (resume and CHECKPOINTS in names):
        also = " without its checkpoints, so that nothing can be added" if resume else ""
        raise CacheExistsError(
            f"{out} holds the results of a finished run{also}: add --overwrite to replace them, "
            "or choose another --out."
        )
    if CHECKPOINTS in names and not overwrite and not resume:
        raise CacheExistsError(
            f"{out} holds a run that was not finished: go on with --resume, or start anew with "
            "--overwrite."
        )


def clear(out: Path, checkpoints: Checkpoints) -> None:
    """Remove what an earlier run left; metrics.json first: its presence says finished.

    Raises:
        Refused: the checkpoints are behind a link; nothing is removed.
    """
    checkpoints.refuse_link()
    for name in (METRICS, *(n for n in FILES if n not in (METRICS, CHECKPOINTS))):
        (out / name).unlink(missing_ok=True)
    checkpoints.clear()


@contextmanager
def folder(out: Path, *, overwrite: bool, resume: bool) -> Iterator[None]:
    """`out` made before the work (a place that cannot be written is found out now, not
    after an hour of training), for this process alone; unmade if the work fails and it is empty.

    Raises:
        Refused: another process is at work in it; or as `refuse_taken`.
    """
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        _lock(handle, out)
        try:
            refuse_taken(out, overwrite=overwrite, resume=resume)  # by who was here meanwhile
            yield
        finally:
            with contextlib.suppress(OSError):  # not empty: the work has succeeded
                out.rmdir()
    finally:
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    """Until the handle is closed, or this process ends however it may."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(
            f"Another run is at work in {out}: wait for it, or choose another --out."
        ) from None
    except OSError:
        pass  # a file system without locks for folders, such as NFS


def study(
    strategy: str, manifest: Manifest, scenario: Scenario, train: TrainParams
) -> dict[str, Any]:
    """The first part of metrics.json: what was run on what."""
    info = manifest.info
    return {
        "strategy": strategy,
        "dataset": info.dataset,
        "backbone": info.backbone,
        "weights": info.weights,
        "scenario": scenario.name,
        "protocol": train.protocol,
        "evaluated_on": train.evaluate_on,
        "validation": train.validation,
        "tasks": len(scenario.tasks),
        "class_order": list(scenario.class_order),
        "task_classes": [list(task.classes) for task in scenario.tasks],
        "task_train_rows": [len(task.train_rows) for task in scenario.tasks],
        "task_test_rows": [len(task.test_rows) for task in scenario.tasks],
        "single_class_tasks": scenario.single_class_tasks,
        "cache_fingerprint": manifest.fingerprint,
        "cache_content": manifest.content,
        "cache_rows": manifest.rows,
        "latent_dim": manifest.columns[manifest.bulk].shape[1],
        "root_macs": info.root_macs,
        "iters": train.iters,
        "batch_size": train.batch_size,
        "lr": train.lr,
        "precision": train.precision,
    }


def summary(runs: list[dict[str, Any]], load: Figures) -> dict[str, Any]:
    """The second part: one entry a seed, and what is read first."""
    accuracies = [entry["average_accuracy"] for entry in runs]
    return {
        "average_accuracy_mean": statistics.fmean(accuracies),
        "average_accuracy_sd": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "load": load,
        "runs": runs,
    }


def deciding(found: dict[str, Any], options: Any, train: TrainParams) -> dict[str, Any]:
    """All that decides the figures of a seed: what a run that is resumed must agree in.  The
    seeds are not among it: more of them may be asked for."""
    settings = deciding_of(train.model_dump(mode="json", exclude={"seeds"}))
    return {
        "strategy": found["strategy"],
        "options": asdict(options),
        "train": settings,
        "cache": found["cache_fingerprint"],
        "content": found["cache_content"],
    }


def at_once_before(out: Path) -> int:
    """Seeds that an earlier run, which is resumed, has learnt at once, as run.json says."""
    about = read_about(out)
    return about.seeds_at_once or 1 if about else 1


def begin(out: Path, found: dict[str, Any], about: dict[str, Any]) -> None:
    """run.json at the start of the work: a run that is never finished can be told and repeated."""
    write_json(out / RUN, _with_cache(found, about))


def _with_cache(found: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    same = ("strategy", "cache_fingerprint", "cache_content")
    return {**about, **{name: found[name] for name in same}}


def write(out: Path, found: dict[str, Any], seeds: list[Done], about: dict[str, Any]) -> None:
    """Everything else first, metrics.json last: its presence says that the run is finished."""
    for leftover in out.glob(".*.tmp"):  # of a run that was killed here
        leftover.unlink()
    (out / METRICS).unlink(missing_ok=True)  # of fewer seeds
    runs = found["runs"]
    write_accuracy_matrix(out / ACCURACY_MATRIX, runs, found["scenario"])
    write_curve(out / CURVE, runs)
    answers = {done.entry["seed"]: done.predictions for done in seeds}
    write_predictions(out / PREDICTIONS, answers, found["class_order"])
    write_resources(out / RESOURCES, {done.entry["seed"]: done.series for done in seeds})
    first = seeds[0].entry
    write_replay(out / REPLAY, first["seed"], first["replay"], seeds[0].shown)
    write_json(out / RUN, _with_cache(found, about))
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
