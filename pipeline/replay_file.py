"""replay.safetensors: real and replayed latents of a run's first seed, to be drawn.

    points        float32 (n, k)  on the principal components of the real ones
    generated     uint8 (n,)      1: replayed
    label         int16 (n,)      place in class_order: of real and stored rows their own, of
                                  generated ones that of the nearest mean of a class's real rows
    explained     float32 (k,)    share of the real rows' variance
    images        uint8 (m, S, S, 3)   where images are generated: some of them
    image_labels  int16 (m,)
    real_rows     int64 (m,)      rows of the crop cache, real ones of the same tasks

Metadata: format, seed, learnt (how many tasks), kind (generated, stored).  What replays nothing
has a file too, without points and of the kind none, for DVC wants each output of a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.tensors import write_tensors
from stages.train.recorder import AXES, REAL, REPLAYED
from stages.train.replayed import PICTURES

Arrays = Mapping[str, NDArray[Any]]

_NOTHING: dict[str, NDArray[Any]] = {
    "points": np.empty((0, 0), dtype=np.float32),
    "generated": np.empty(0, dtype=np.uint8),
    "label": np.empty(0, dtype=np.int16),
    "explained": np.empty(0, dtype=np.float32),
}


def write_replay(path: Path, seed: int, replay: list[dict[str, Any]], shown: Arrays) -> None:
    """`replay`: the states of metrics.json, the last of which `shown` is of; both empty where
    nothing is replayed."""
    last: dict[str, Any] = replay[-1] if shown else {"learnt": 0, "kind": "none"}
    metadata = {
        "format": "lgr-pipe replay",
        "seed": str(seed),
        "learnt": str(last["learnt"]),
        "kind": str(last["kind"]),
    }
    # np.array, for its copy is contiguous and writable.
    arrays = {name: torch.from_numpy(np.array(a)) for name, a in (shown or _NOTHING).items()}
    write_tensors(path, metadata, arrays)


def check_shown(shown: Arrays, classes: int) -> None:
    """What comes back from a checkpoint, which may be anybody's; nothing at all is fine.

    Raises:
        LookupError, ValueError: it is not what is recorded.
    """
    if not shown:
        return
    points, count = shown["points"], len(shown["label"])
    axes = points.shape[-1]
    forms = {
        "points": (np.float32, (count, axes)),
        "generated": (np.uint8, (count,)),
        "label": (np.int16, (count,)),
        "explained": (np.float32, (axes,)),
    }
    if "images" in shown:
        some, side = shown["images"].shape[:2]
        _require(some <= PICTURES, "more images than are kept")
        forms |= {
            "images": (np.uint8, (some, side, side, 3)),
            "image_labels": (np.int16, (some,)),
            "real_rows": (np.int64, (some,)),
        }
        _require(_within(shown["image_labels"], classes), "image_labels: unknown classes")
        if "real_rows" in shown:
            _require(bool((shown["real_rows"] >= 0).all()), "real_rows: none of a cache")
        else:
            del forms["real_rows"]
    _require(shown.keys() == forms.keys(), "strange or missing arrays")
    for name, (dtype, shape) in forms.items():
        fits = shown[name].dtype == dtype and shown[name].shape == shape
        _require(fits, f"{name}: of another form")
    _require(count <= REAL + REPLAYED and axes <= AXES, "more points than are kept")
    finite = bool(np.isfinite(points).all() and np.isfinite(shown["explained"]).all())
    _require(finite, "points that lie nowhere")
    _require(_within(shown["label"], classes), "label: unknown classes")


def _within(labels: NDArray[Any], classes: int) -> bool:
    return bool(((labels >= 0) & (labels < classes)).all())


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(f"replay: {otherwise}")
