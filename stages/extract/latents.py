"""Run a frozen root once over a crop cache: crops -> latent cache."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import Refused
from cache.files import write_atomically
from cache.provenance import provenance
from cache.reader import Cache
from cache.schema import SHARD_ROWS, Info, Manifest
from cache.store import Bulk
from cache.writer import CacheWriter
from stages.extract.backbones import BACKBONES, Activation, Normalize, Root
from stages.extract.crop import Tick, usable_rows
from stages.extract.weights import Weights

VERSION = 1
"""Part of the fingerprint: raise it when the same crop and weights give another latent."""
CALIBRATION_ROWS = 256
"""Training rows by which a random root is calibrated."""
BATCH = 32
"""Crops per forward pass.  Cut inside a shard, so that no setting changes a value."""


@dataclass(frozen=True)
class RootSettings:
    """What decides a latent, beside its crop."""

    backbone: str = "vgg16"
    weights: str = "imagenet"
    """imagenet, random, or the path of a file."""
    weights_seed: int = 0
    """Of random weights."""
    activation: Activation = "sigmoid"
    normalize: Normalize = "none"
    """imagenet: subtract ImageNet's mean and divide by its deviation (the LGR code does not)."""
    dtype: Literal["float32", "float16"] = "float32"


def latent_settings(crops: str, settings: RootSettings, weights: Weights) -> dict[str, Any]:
    """What decides the content of the latent cache; `crops` is the crop cache's fingerprint."""
    root = {
        "backbone": settings.backbone,
        "layer": BACKBONES[settings.backbone].layer,
        "weights": weights.fingerprinted,
        "activation": settings.activation,
        "normalize": settings.normalize,
        "version": VERSION,
    }
    if weights.needs_calibration:
        root["calibration_rows"] = CALIBRATION_ROWS
    return {
        "kind": "latents",
        "crops": crops,
        "root": root,
        "dtype": settings.dtype,
    }


def make_latents(
    crops: Cache,
    settings: RootSettings,
    weights: Weights,
    out: Path,
    *,
    store: str,
    device: str,
    overwrite: bool,
    tick: Tick,
    shard_rows: int = SHARD_ROWS,
) -> tuple[Manifest, int]:
    """Write the latent cache `out`; (its manifest, how many latents were made now).

    Images that could not be decoded have no latent; column `row` leads from a
    latent to its crop.  Unfinished work is taken up at the first shard that is
    missing.

    Raises:
        CacheExistsError: `out` is taken.
        CacheMismatchError: `crops` is no crop cache.
        Refused: weights that give NaN or infinity.
    """
    crops.expect("crops")
    fingerprinted = latent_settings(crops.manifest.fingerprint, settings, weights)
    rows = usable_rows(crops)
    started = time.time()
    shape = (len(rows), BACKBONES[settings.backbone].dim)
    bulk = Bulk("latents", settings.dtype, shape, shard_rows)
    writer = CacheWriter(out, "latents", fingerprinted, store, bulk, overwrite=overwrite)
    root = Root(weights.network, settings.activation, settings.normalize)
    root.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    todo = writer.todo()
    made = sum(len(bulk.rows_of(shard)) for shard in todo)
    tick(len(rows) - made)
    calibration = None
    if weights.needs_calibration:
        calibration = _calibrate(root, crops, rows, writer.scratch, device)
    for shard in todo:
        span = bulk.rows_of(shard)
        latents = _latents(root, crops, rows[span.start : span.stop], device, tick)
        _check_finite(latents, settings)
        low, high = float(latents.min()), float(latents.max())
        writer.write(shard, latents.astype(settings.dtype), {"low": low, "high": high})
    notes = writer.notes()
    info = Info(
        dataset=crops.manifest.info.dataset,
        images=crops.manifest.info.images,
        backbone=settings.backbone,
        weights=weights.words,
        pretrained=not weights.needs_calibration,
        value_range=(0.0, 1.0) if settings.activation == "sigmoid" else None,
        observed_range=(min(n["low"] for n in notes), max(n["high"] for n in notes)),
        calibration=calibration,
    )
    side = {name: crops.side(name)[rows] for name in ("label", "split", "subject")}
    side["row"] = rows.astype(np.int32)
    table = crops.samples()
    samples = [
        {"row": row, "crop": int(crop)}
        | {k: table[crop][k] for k in ("id", "label", "subject", "split")}
        for row, crop in enumerate(rows)
    ]
    manifest = writer.publish(side, samples, crops.manifest.classes, info, provenance(started))
    return manifest, made


def _latents(
    root: Root, crops: Cache, rows: NDArray[np.int64], device: str, tick: Tick
) -> NDArray[np.float32]:
    """Latents float32 (len(rows), D) of these rows of the crop cache."""
    pixels = crops.bulk_rows(int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]]
    out = []
    with torch.inference_mode():
        for start in range(0, len(pixels), BATCH):
            batch = torch.from_numpy(pixels[start : start + BATCH]).to(device)
            out.append(root(batch).cpu().numpy())
            tick(len(batch))
    return np.concatenate(out)


def _check_finite(latents: NDArray[np.float32], settings: RootSettings) -> None:
    limit = float(np.finfo(settings.dtype).max)
    if not np.isfinite(latents).all() or np.abs(latents).max() > limit:
        raise Refused(
            f"The root gives values that {settings.dtype} cannot hold (NaN, infinity or above "
            f"{limit:g}): are the weights of {settings.backbone} damaged?"
        )


def _calibrate(
    root: Root, crops: Cache, rows: NDArray[np.int64], scratch: Path, device: str
) -> dict[str, str | int]:
    """Give each dimension zero mean and unit deviation over the first training rows.

    Without it the sigmoid latents of a random VGG-16 vary by 0.003, and nothing
    can be learnt from them.  Kept in the scratch folder, so that a resumed run
    goes on with the same numbers to the last bit.
    """
    train = np.intersect1d(rows, crops.split_rows("train"))[:CALIBRATION_ROWS]
    if len(train) < 2:
        raise Refused(
            f"Random weights are calibrated on training images, of which there are {len(train)}."
        )
    state = scratch / "state.npy"
    if state.is_file():
        shift, scale = np.load(state, allow_pickle=False)
    else:
        pixels = crops.bulk_rows(int(train[0]), int(train[-1]) + 1)[train - train[0]]
        shift, scale = calibration(root, torch.from_numpy(pixels).to(device))
        both = np.stack([shift, scale])
        write_atomically(state, lambda handle: np.save(handle, both))
    root.calibrate(torch.from_numpy(shift).to(device), torch.from_numpy(scale).to(device))
    return {
        "rows": len(train),
        "dtype": "<f4",
        "mean": _base64(shift),
        "deviation": _base64(scale),
    }


def calibration(root: Root, pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of the pre-activations of uint8 (B, H, W, 3): float32 (D,) each.

    A dimension that does not vary (dead, or within float32's rounding) keeps deviation 1.
    """
    with torch.inference_mode():
        parts = [root.preactivation(batch) for batch in torch.split(pixels, BATCH)]
        values = torch.cat(parts).double()
    mean, deviation = values.mean(0), values.std(0)
    deviation[deviation <= 1e-6 * mean.abs()] = 1.0
    return mean.float().cpu().numpy(), deviation.float().cpu().numpy()


def _base64(values: NDArray[np.float32]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()
