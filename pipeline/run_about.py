"""How a run was made, for run.json: with what, on what, where.  Nothing in it decides a figure."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

from cache.errors import Refused
from cache.fingerprint import nested
from cache.listing import read_provenance
from cache.provenance import versions
from cache.reader import Cache
from cache.remote.fetch import Where
from cache.schema import Manifest, read_manifest
from cache.source import Place
from pipeline.caches import root as cache_root
from pipeline.console import command_line
from pipeline.params import TrainParams, parse_seeds
from stages.train.scenario import Scenario

T = TypeVar("T")
_CPUINFO = Path("/proc/cpuinfo")
_FINISHED = (
    "wall seconds of the process that finished each cache: not those of an earlier one that was "
    "interrupted, nor of jobs (--shard) before finalize"
)
_TOGETHER = "; crops and latents were made together, in extract_seconds"


def about(
    options: Any, train: TrainParams, cache: tuple[Where, int], device: str
) -> dict[str, Any]:
    """Command, settings, machine.  `cache`: where it is, and the bytes of its files."""
    return {
        "command": command_line(),
        "options": asdict(options),
        "train": train.model_dump(mode="json"),
        "seeds": parse_seeds(train.seeds),
        "cache": str(cache[0]),
        "cache_bytes": cache[1],
        "device": device,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processor": processor(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "platform": platform.platform(),
        "versions": versions(),
    }


def processor() -> str:
    """The model's name where the system tells it, else the kind of machine."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def data_about(cache: Cache, scenario: Scenario) -> dict[str, Any]:
    """Of the latents: the rows of each class of the run, and where they come from.  `validation`
    rows are put aside from training rows and not counted there."""
    info, settings = cache.manifest.info, cache.manifest.settings
    crop = nested(info.crops or {}, "crop")
    side, activation = crop.get("size"), nested(settings, "root").get("activation")
    return {
        "classes": _rows(cache, scenario),
        "subjects": _subjects(cache),
        "images": dict(info.images) or None,
        "face_crop": str(crop["face_crop"]) if "face_crop" in crop else None,
        "pretrained": info.pretrained,
        "trained_on": info.trained_on.data if info.trained_on else None,
        "side": side if isinstance(side, int) else None,
        "activation": None if activation is None else str(activation),
    }


def _rows(cache: Cache, scenario: Scenario) -> dict[str, dict[str, int]]:
    labels, classes = cache.side("label"), cache.manifest.classes
    aside = np.concatenate([task.validation_rows for task in scenario.tasks])
    train = np.setdiff1d(cache.split_rows("train"), aside)
    rows = {"train": train, "test": cache.split_rows("test"), "validation": aside}
    counts = {
        split: np.bincount(labels[of].astype(np.int64), minlength=len(classes))
        for split, of in rows.items()
    }
    return {
        name: {split: int(of[classes.index(name)]) for split, of in counts.items()}
        for name in scenario.class_order
    }


def _subjects(cache: Cache) -> dict[str, int] | None:
    """How many people; None where the data set does not tell (-1)."""
    subject: NDArray[Any] = cache.side("subject")
    if not (subject >= 0).any():
        return None
    rows = {split: subject[cache.split_rows(split)] for split in ("train", "test")}
    return {split: len(np.unique(of[of >= 0])) for split, of in rows.items()}


def stage_one(path: Place, latents: Manifest, crops: Place | Where | None) -> dict[str, Any]:
    """What making the caches took, as far as their provenance tells; never fails.  `crops`: as
    `crops_of` finds them."""
    made = _or_none(lambda: read_provenance(path)) or {}
    cropped: dict[str, Any] = {}
    manifest = None
    if isinstance(crops, Path):
        cropped = _or_none(lambda: read_provenance(crops)) or {}
        manifest = _or_none(lambda: read_manifest(crops))
    # The start is told to the second: what took one and started with the other was made with it.
    crop_seconds = _seconds(cropped)
    together = (crop_seconds or 0) >= 1 and cropped.get("made") == made.get("made")
    return {
        "crop_seconds": None if together else crop_seconds,
        "extract_seconds": _seconds(made),
        "rows": latents.rows,
        "crop_rows": manifest.rows if manifest else None,
        "measured": _FINISHED + (_TOGETHER if together else ""),
    }


def crops_of(
    path: Place, latents: Manifest, named: Where | None, root: Path | None
) -> Where | None:
    """Where the crops are that the latents at `path` were made of: where it was said, in the cache
    root, beside them; None: nowhere that is known.  Never fails."""
    if named is not None and not isinstance(named, Path):
        return named
    beside = [path.parent / "crops", path.parent.parent / "crops"] if isinstance(path, Path) else []
    in_root = _or_none(lambda: cache_root.crops_of(latents, root))
    for place in (named, in_root, *beside):
        if place is not None and _is_cache(place, latents.settings.get("crops")):
            return place
    return None


def _is_cache(place: Path, key: object) -> bool:
    return _or_none(lambda: read_manifest(place).fingerprint == key) or False


def _seconds(provenance: dict[str, Any]) -> float | None:
    value = provenance.get("seconds")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < 1e12 else None


def _or_none(ask: Callable[[], T]) -> T | None:
    """Of strangers' files that decide nothing: what is wrong with them is no reason to stop."""
    try:
        return ask()
    except (Refused, OSError, ValueError):
        return None
