"""Wire stage one: settings -> data set -> crops -> latents, with bars and summaries."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from cache.errors import Refused
from cache.files import tree_bytes
from cache.schema import Manifest
from pipeline.console import bytes_text, progress, say, summary
from pipeline.params import Params
from stages.datasets import read
from stages.datasets.sample import Dataset
from stages.extract.crop import make_crops
from stages.extract.faces import CropSettings


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def crop(params: Params, out: Path, *, workers: int, overwrite: bool) -> None:
    """Make the crop cache `out`."""
    dataset = _dataset(params)
    started = time.time()
    with progress("crop", dataset.size, "images") as tick:
        manifest, made = make_crops(
            dataset,
            CropSettings(**params.crop.model_dump()),
            out,
            store=params.store,
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
    from stages.extract.backbones import BACKBONES
    from stages.extract.latents import RootSettings, make_latents

    if params.extract.backbone not in BACKBONES:
        raise Refused(
            f"Unknown backbone {params.extract.backbone!r}. Known: {', '.join(BACKBONES)}."
        )
    _check_weights(params.extract.weights)
    _ensure_crops(params, crops, workers)
    started = time.time()
    with Cache(crops) as cache:
        images: dict[str, int] = cache.manifest.info["images"]
        usable = cache.manifest.rows - images["failed"]
        with progress(f"extract {params.extract.backbone}", usable, "images") as tick:
            manifest, made = make_latents(
                cache,
                RootSettings(**params.extract.model_dump()),
                out,
                store=params.store,
                device=device,
                overwrite=overwrite,
                tick=tick,
            )
    _summary(out, manifest, made, time.time() - started)


def _ensure_crops(params: Params, crops: Path, workers: int) -> None:
    """Make the crops, or check that those at `crops` are the ones that the settings ask for.

    Without a --root the crops are taken as they are: who only has a shared
    crop cache has no images to compare it with.
    """
    from cache.reader import Cache
    from stages.extract.crop import crop_settings

    if not crops.exists():
        say(f"There are no crops at {crops} yet: making them first.")
        crop(params, crops, workers=workers, overwrite=False)
        return
    with Cache(crops) as cache:
        root = params.dataset.root
        given = root is not None and root.is_dir()
        settings = CropSettings(**params.crop.model_dump())
        cache.expect("crops", crop_settings(_dataset(params), settings) if given else None)


def _check_weights(weights: str) -> None:
    """Before any work: a weight file that is not there."""
    if weights not in ("imagenet", "random") and not Path(weights).is_file():
        raise Refused(f"--weights must be imagenet, random or a file; there is no file {weights}.")


def _dataset(params: Params) -> Dataset:
    if params.dataset.root is None:
        raise Refused("Say where the images are: --root DIR (and --dataset drawn or folder).")
    return read(params.dataset.name, params.dataset.root)


def _summary(out: Path, manifest: Manifest, made: bool, seconds: float) -> None:
    if not made:
        say(f"{out} is finished already and is what was asked for: nothing to do.")
        return
    images: dict[str, int] = manifest.info["images"]
    total = sum(images.values())
    rows: dict[str, Any] = {
        "images": total,
        "faces found": f"{images['found']} ({100 * images['found'] / total:.1f} %)",
        "no face, whole image taken": images["whole"],
        "failed": images["failed"],
        "images per second": f"{manifest.rows / seconds:.1f}",
        "bytes": bytes_text(tree_bytes(out)),
    }
    if manifest.kind == "latents":
        rows["weights"] = manifest.info["weights"]
        rows["latents"] = " x ".join(str(n) for n in manifest.columns["latents"].shape)
    rows["fingerprint"] = manifest.fingerprint
    summary(f"{out} is finished.", rows)
    if images["failed"]:
        say(f"The failed images and the reasons are in {out}/samples.jsonl.")
