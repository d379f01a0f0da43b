"""Give a random root's outputs zero mean and unit deviation.

Without it the sigmoid latents of a random VGG-16 vary by 0.003, and nothing
can be learnt from them.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import CacheDamagedError, Refused
from cache.files import write_atomically
from cache.parts import Parts
from cache.schema import SPLITS
from cache.unit_files import read_rows
from stages.extract.backbones import Root
from stages.extract.forward import Forward
from stages.extract.source import CropSource

CALIBRATION_ROWS = 256
"""Training rows by which a random root is calibrated: the first that can be used."""
_STATE = "state.npy"


def calibrate(root: Root, source: CropSource, parts: Parts, forward: Forward, device: str) -> None:
    """Calibrate `root` once for all processes that make these parts.

    Kept in the scratch folder, so that whoever goes on does so with the same
    numbers to the last bit: the first to have them puts them there.

    Raises:
        Refused: fewer than two usable training images.
        CacheDamagedError: the numbers that are there are not what was written.
    """
    state = parts.scratch / _STATE
    if not state.is_file():
        pixels = _first_training_crops(source, parts)
        if len(pixels) < 2:
            raise Refused(
                f"Random weights are calibrated on training images, of which there are "
                f"{len(pixels)}."
            )
        both = np.stack(calibration(root, torch.from_numpy(pixels), forward))
        _put_first(state, both)
    shift, scale = _read(parts)
    root.calibrate(torch.from_numpy(shift).to(device), torch.from_numpy(scale).to(device))


def is_calibrated(parts: Parts) -> bool:
    """The numbers that calibrate the root of these parts are there."""
    return (parts.scratch / _STATE).is_file()


def _read(parts: Parts) -> NDArray[np.float32]:
    """Mean and deviation, float32 (2, D).  Raises CacheDamagedError: not what was written."""
    state = parts.scratch / _STATE
    both: NDArray[np.float32] = read_rows(state, "float32", parts.plan.row_shape, 2)
    if len(both) != 2:
        raise CacheDamagedError(
            f"{state} does not hold means and deviations. "
            f"Delete {parts.scratch} and run the command again."
        )
    return both


def _put_first(state: Path, both: NDArray[np.float32]) -> None:
    """Write `state` unless another process was quicker."""
    # Digits, as gc knows it; not the process id: containers on one disk may have the same.
    mine = state.with_name(f".{_STATE}.{uuid4().int}")
    write_atomically(mine, lambda handle: np.save(handle, both))
    try:
        os.link(mine, state)
    except OSError:  # it is there, or this file system has no links
        if not state.is_file():
            mine.replace(state)
    mine.unlink(missing_ok=True)


def _first_training_crops(source: CropSource, parts: Parts) -> NDArray[np.uint8]:
    """uint8 (k, H, W, 3), k <= CALIBRATION_ROWS."""
    train = source.split() == SPLITS.index("train")
    units = [u for u in parts.plan.units if train[parts.plan.rows_of(u)].any()]
    found: list[NDArray[np.uint8]] = []
    count = 0
    for unit in units:
        (crops,) = source.units([unit])
        kept = crops.pixels[crops.usable & train[parts.plan.rows_of(unit)]]
        found.append(kept[: CALIBRATION_ROWS - count])
        count += len(found[-1])
        if count == CALIBRATION_ROWS:
            break
    return np.concatenate(found) if found else np.empty((0, 1, 1, 3), dtype=np.uint8)


def calibration(
    root: Root, pixels: Tensor, forward: Forward
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of the pre-activations of uint8 (B, H, W, 3): float32 (D,) each.

    A dimension that does not vary (dead, or within float32's rounding) keeps deviation 1.
    """
    parts = forward(lambda group: root.preactivation(root.pixels(group)), pixels)
    values = np.concatenate([part.double().numpy() for part in parts])
    mean, deviation = values.mean(0), values.std(0, ddof=1)
    deviation[deviation <= 1e-6 * np.abs(mean)] = 1.0
    return mean.astype(np.float32), deviation.astype(np.float32)


def stored_calibration(parts: Parts, training_rows: int) -> dict[str, str | int] | None:
    """As the manifest shows it; None for a root that needed none."""
    state = parts.scratch / _STATE
    if not state.is_file():
        return None
    shift, scale = _read(parts)
    return {
        "rows": min(training_rows, CALIBRATION_ROWS),
        "dtype": "<f4",
        "mean": _base64(shift),
        "deviation": _base64(scale),
    }


def _base64(values: NDArray[np.float32]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()
