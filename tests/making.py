"""Caches made as stage one makes them, without its command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from cache.parts import Parts, Plan
from cache.reader import Cache
from cache.schema import Info, Manifest
from cache.writer import Content, publish, refuse_taken
from stages.datasets import read
from stages.datasets.sample import Dataset
from stages.extract.backbones import choose, cost
from stages.extract.crop import CropWork, prepare, publish_crops
from stages.extract.cropper import Cropper
from stages.extract.faces import CropSettings
from stages.extract.latents import (
    Extractor,
    RootSettings,
    crops_are,
    latent_plan,
    publish_latents,
)
from stages.extract.source import CachedCrops
from stages.extract.weights import load


def nothing(_: int) -> None:
    """A tick."""


def crop_work(dataset: Dataset, **settings: Any) -> CropWork:
    return prepare(dataset, CropSettings(**settings), nothing)


def make_crops(
    out: Path,
    dataset: Dataset | tuple[str, Path],
    *,
    store: str = "zarr",
    unit_rows: int = 64,
    workers: int = 1,
    **settings: Any,
) -> Manifest:
    """The finished crop cache of a data set, or of (name, root)."""
    found = dataset if isinstance(dataset, Dataset) else read(*dataset)
    work = crop_work(found, **settings)
    parts = Parts(out, work.plan(store, unit_rows))
    with Cropper(work, parts, workers=workers, tick=nothing) as cropper:
        for _ in cropper.units(parts.plan.units):
            pass
    return publish_crops(parts, store=store, overwrite=False, started=time.time())


def latent_parts(
    crops: Cache, out: Path, backbone: str, weights: str = "random", **settings: Any
) -> tuple[Parts, Extractor]:
    """What makes the units, device cpu; nothing is made yet."""
    tap = choose(backbone, settings.pop("layer", None))
    wanted = RootSettings(tap, **settings)
    loaded = load(tap, weights, 0)
    of_root = cost(tap, crops.manifest.columns["crops"].shape[1])
    parts = Parts(out, latent_plan(crops_are(crops), wanted, loaded, of_root, "zarr"))
    return parts, Extractor(parts, wanted, loaded, device="cpu", tick=nothing)


def make_latents(
    out: Path,
    crops: Path,
    backbone: str,
    weights: str = "random",
    *,
    store: str = "zarr",
    **settings: Any,
) -> Manifest:
    """The finished latent cache."""
    with Cache(crops) as cache:
        parts, extractor = latent_parts(cache, out, backbone, weights, **settings)
        units = parts.plan.units
        extractor.run(CachedCrops(cache), units, set(units))
        return publish_latents(parts, cache, store=store, overwrite=False, started=time.time())


SETTINGS: dict[str, Any] = {"kind": "latents", "seed": 0}


def make_cache(
    out: Path,
    store: str,
    rows: np.ndarray,
    *,
    shard_rows: int = 4,
    stop_after: int | None = None,
    overwrite: bool = False,
    settings_: dict[str, Any] = SETTINGS,
) -> list[int]:
    """Write `rows` as a latent cache; returns the units that had to be made."""
    plan = Plan(
        kind="latents",
        settings=settings_,
        dtype=rows.dtype.name,
        row_shape=rows.shape[1:],
        rows=len(rows),
        unit_rows=shard_rows,
        store=store,
        classes=("a", "b"),
        info=Info(dataset="d"),
    )
    refuse_taken(out, "latents", overwrite=overwrite)
    parts = Parts(out, plan).start()
    todo = parts.todo(plan.units)
    for unit in todo[:stop_after]:
        span = plan.rows_of(unit)
        parts.write(unit, rows[span.start : span.stop], {"first": span.start})
    if stop_after is None:
        assert [note["first"] for note in parts.notes()] == [
            plan.rows_of(k).start for k in plan.units
        ]
        n = len(rows)
        side = {
            "label": np.arange(n, dtype=np.int16) % 2,
            "subject": np.full(n, -1, dtype=np.int32),
            "split": (np.arange(n) % 3 == 0).astype(np.uint8),
        }
        samples = [{"row": k, "id": f"{k}.png"} for k in range(n)]
        content = Content(side, samples, ("a", "b"), plan.info, {"made": "now"})
        publish(parts, content, store=store, overwrite=overwrite, shard_rows=shard_rows)
    return todo
