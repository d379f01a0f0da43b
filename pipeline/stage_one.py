"""Wire stage one: settings -> data set -> crops -> latents, with bars and summaries.

Everything that can be refused is refused before anything is made.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import CacheMismatchError, Refused
from cache.files import tree_bytes
from cache.fingerprint import differences, fingerprint
from cache.schema import Manifest
from cache.writer import existing_match
from pipeline.console import bytes_text, progress, say, summary
from pipeline.params import Params
from stages.datasets import read
from stages.datasets.sample import Dataset
from stages.extract.crop import crop_settings, make_crops
from stages.extract.faces import CropSettings


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def crop(params: Params, out: Path, *, workers: int, overwrite: bool) -> None:
    """Make the crop cache `out`."""
    plan = _plan_crops(params)
    found = existing_match(out, "crops", plan.wanted, params.store, overwrite=overwrite)
    if found is not None:
        _nothing_to_do(out)
        return
    _make_crops(plan, params.store, out, workers=workers, overwrite=overwrite)


@dataclass(frozen=True)
class _CropPlan:
    """A data set and how to crop it; `wanted` is its fingerprinted form, for which every
    image was read once."""

    dataset: Dataset
    settings: CropSettings
    wanted: dict[str, Any]


def _plan_crops(params: Params) -> _CropPlan:
    if params.dataset.root is None:
        raise Refused("Say where the images are: --root DIR (and --dataset drawn or folder).")
    dataset = read(params.dataset.name, params.dataset.root)
    settings = CropSettings(**params.crop.model_dump())
    return _CropPlan(dataset, settings, crop_settings(dataset, settings))


def _make_crops(plan: _CropPlan, store: str, out: Path, *, workers: int, overwrite: bool) -> None:
    started = time.time()
    with progress("crop", plan.dataset.size, "images") as tick:
        manifest, made = make_crops(
            plan.dataset,
            plan.settings,
            plan.wanted,
            out,
            store=store,
            workers=workers,
            overwrite=overwrite,
            tick=tick,
        )
    _summary(out, manifest, made, time.time() - started)


def extract(
    params: Params, crops: Path, out: Path, *, workers: int, device: str, overwrite: bool
) -> None:
    """Make the latent cache `out`, and the crops first where they are missing."""
    from cache.reader import Cache
    from stages.extract.latents import RootSettings, latent_settings, make_latents
    from stages.extract.weights import check_names, load

    if crops.resolve() == out.resolve():
        raise Refused(f"--out and --crops are the same folder, {out}: choose another --out.")
    settings = RootSettings(**params.extract.model_dump())
    check_names(settings.backbone, settings.weights)
    missing = not crops.exists() or (crops.is_dir() and not any(crops.iterdir()))
    plan = _plan_crops(params) if missing else None
    key = fingerprint(plan.wanted) if plan is not None else _checked_crops(params, crops)
    weights = load(settings.backbone, settings.weights, settings.weights_seed)
    wanted = latent_settings(key, settings, weights)
    if existing_match(out, "latents", wanted, params.store, overwrite=overwrite) is not None:
        _nothing_to_do(out)
        return
    if plan is not None:
        say(f"There are no crops at {crops} yet: making them first.")
        _make_crops(plan, params.store, crops, workers=workers, overwrite=False)
    started = time.time()
    with Cache(crops) as cache:
        images = cache.manifest.info.images
        usable = cache.manifest.rows - images["failed"]
        with progress(f"extract {settings.backbone}", usable, "images") as tick:
            manifest, made = make_latents(
                cache,
                settings,
                weights,
                out,
                store=params.store,
                device=device,
                overwrite=overwrite,
                tick=tick,
            )
    _summary(out, manifest, made, time.time() - started)


def _checked_crops(params: Params, crops: Path) -> str:
    """The fingerprint of the crops at `crops`, which must be what the settings ask for.

    Without the images (who only has a shared crop cache) the data set cannot be
    compared, but the way of cropping can.
    """
    from cache.reader import Cache

    settings = CropSettings(**params.crop.model_dump())
    root = params.dataset.root
    with Cache(crops) as cache:
        cache.expect("crops")
        if root is not None and root.is_dir():
            cache.expect("crops", _plan_crops(params).wanted)
        found = {"crop": cache.manifest.settings.get("crop", {})}
        lines = differences({"crop": settings.fingerprinted()}, found)
        if lines:
            shown = "\n  ".join(lines)
            raise CacheMismatchError(f"{crops} was cropped otherwise than asked for:\n  {shown}")
        return cache.manifest.fingerprint


def _nothing_to_do(out: Path) -> None:
    say(f"{out} is finished already and is what was asked for: nothing to do.")


def _summary(out: Path, manifest: Manifest, made: int, seconds: float) -> None:
    images = manifest.info.images
    total = sum(images.values())
    rows: dict[str, Any] = {
        "images": total,
        "faces found": f"{images['found']} ({100 * images['found'] / total:.1f} %)",
        "no face, whole image taken": images["whole"],
        "failed": images["failed"],
    }
    if made < manifest.rows:
        rows["made by an earlier run"] = manifest.rows - made
    rows["images per second"] = f"{made / seconds:.1f}"
    rows["bytes"] = bytes_text(tree_bytes(out))
    if manifest.kind == "latents":
        rows["weights"] = manifest.info.weights
        rows["latents"] = " x ".join(str(n) for n in manifest.columns["latents"].shape)
    rows["fingerprint"] = manifest.fingerprint
    summary(f"{out} is finished.", rows)
    if images["failed"]:
        say("The failed images and the reasons are in samples.jsonl of the crops.")
