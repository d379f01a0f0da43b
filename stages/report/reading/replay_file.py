"""What `train` kept of the latents that were replayed at last: replay.safetensors of a run.

Anybody may have written the file: its size, names, dtypes, shapes and values are checked before
anything is made of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.errors import CacheDamagedError, Refused
from cache.plain import read_plain
from cache.printable import printable
from cache.schema import parse_json
from stages.report.reading.runs import Run

REPLAY = "replay.safetensors"

_LIMIT = 32_000_000
"""Bytes; a larger file is not read."""
_HEADER = 100_000
"""Bytes of it that name what is in it."""
_POINTS, _COMPONENTS, _IMAGES, _SIDE = 2000, 50, 24, 512
_FARTHEST = 1e15
"""Of a score: its square is still a number of 32 bits."""
_FORMS: dict[str, tuple[str, int]] = {
    "points": ("F32", 2),
    "generated": ("U8", 1),
    "label": ("I16", 1),
    "explained": ("F32", 1),
    "images": ("U8", 4),
    "image_labels": ("I16", 1),
    "real_rows": ("I64", 1),
}
_NEEDED = ("points", "generated", "label", "explained")
_OF_IMAGES = ("images", "image_labels")


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal["lgr-pipe replay"]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    learnt: Annotated[int, Field(ge=0, le=100_000)]
    kind: Literal["generated", "stored", "none"]


@dataclass(frozen=True)
class Images:
    """Of a strategy that generates images."""

    generated: NDArray[np.uint8]
    """(m, S, S, 3) RGB."""
    labels: NDArray[np.int16]
    """(m,) nearest real class means, as positions in the run's class_order."""
    real_rows: NDArray[np.int64]
    """(r,) rows of the crop cache that hold real crops of the same tasks; r = 0: not known."""


@dataclass(frozen=True)
class Replayed:
    """Real and replayed latents of one seed, after learning task `learnt`."""

    seed: int
    learnt: int
    kind: Literal["generated", "stored"]
    points: NDArray[np.float32]
    """(n, k) scores on the principal components of the real latents."""
    generated: NDArray[np.bool_]
    """(n,) replayed, not real; both occur."""
    label: NDArray[np.int16]
    """(n,) positions in the run's class_order; of generated ones, the nearest real class mean."""
    explained: NDArray[np.float32]
    """(k,) shares of the real variance."""
    images: Images | None


def read_replay(run: Run) -> Replayed | None:
    """Of the first of the run's folders that has the file; None: none has it, or nothing is in it.

    Raises:
        Refused: it is not what train writes.
    """
    paths = (folder / REPLAY for folder in run.folders)
    path = next((path for path in paths if os.path.lexists(path)), None)
    if path is None:
        return None
    try:
        return _checked(read_plain(path, _LIMIT), run)
    except CacheDamagedError as error:  # no plain file, too large, not to be read
        raise Refused(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise Refused(
            f"{path} is not what lgr-pipe train writes ({printable(_short(error))[:500]}). "
            "Run train again."
        ) from None


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _checked(raw: bytes, run: Run) -> Replayed | None:
    """Raises ValueError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    about = _Metadata.model_validate(_metadata(raw))
    if about.kind == "none":
        return None
    if not 1 <= about.learnt <= run.tasks:
        raise ValueError(f"task {about.learnt} of {run.tasks} was learnt")
    try:
        arrays = load(raw)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    _check_points(arrays, len(run.class_order))
    return Replayed(
        seed=about.seed,
        learnt=about.learnt,
        kind=about.kind,
        points=arrays["points"],
        generated=arrays["generated"] == 1,
        label=arrays["label"],
        explained=arrays["explained"],
        images=_images(arrays, len(run.class_order)) if "images" in arrays else None,
    )


def _metadata(raw: bytes) -> Any:
    """What the header says beside names and places; dtypes and dimensions are checked here,
    for numpy does not know all that the format has.

    Raises ValueError: they are others.
    """
    length = int.from_bytes(raw[:8], "little")
    if not 0 < length <= min(_HEADER, len(raw) - 8):
        raise ValueError(f"its header would have {length} bytes")
    header = parse_json(raw[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    missing = [name for name in _NEEDED if name not in header]
    missing += [name for name in _OF_IMAGES if "images" in header and name not in header]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    about = header.pop("__metadata__", {})
    for name, found in header.items():
        form = found if isinstance(found, dict) else {}
        dtype, shape = form.get("dtype"), form.get("shape")
        wanted = _FORMS.get(name)
        if wanted is None:
            raise ValueError(f"nothing is called {name[:50]!r} in it")
        if dtype != wanted[0] or not isinstance(shape, list) or len(shape) != wanted[1]:
            raise ValueError(f"{name} is {dtype} {shape}, not {wanted[0]} of {wanted[1]} axes")
    return about


def _check_points(arrays: dict[str, NDArray[Any]], classes: int) -> None:
    """Raises ValueError."""
    points, explained = arrays["points"], arrays["explained"]
    n, k = points.shape
    if not (2 <= n <= _POINTS and 1 <= k <= _COMPONENTS):
        raise ValueError(f"points is {n} x {k}, at most {_POINTS} x {_COMPONENTS} are written")
    if not (np.isfinite(points).all() and np.abs(points).max() < _FARTHEST):
        raise ValueError("points holds what is no usable number")
    if explained.shape != (k,) or not (np.isfinite(explained).all() and explained.min() >= 0):
        raise ValueError("explained must have a share for each component")
    if explained.sum() > 1.01:
        raise ValueError("explained has more than all of the variance")
    if set(np.unique(arrays["generated"])) != {0, 1} or arrays["generated"].shape != (n,):
        raise ValueError("generated must tell real from replayed points, 0 from 1")
    _check_labels("label", arrays["label"], n, classes)


def _images(arrays: dict[str, NDArray[Any]], classes: int) -> Images:
    """Raises ValueError."""
    images, rows = arrays["images"], arrays.get("real_rows", np.empty(0, np.int64))
    m, high, wide, channels = images.shape
    if not (1 <= m <= _IMAGES and 1 <= high == wide <= _SIDE and channels == 3):
        raise ValueError(f"images is {images.shape}, at most {_IMAGES} of {_SIDE} px are written")
    if len(rows) > _IMAGES or (len(rows) and rows.min() < 0):
        raise ValueError(f"real_rows must be at most {_IMAGES} rows of a cache")
    _check_labels("image_labels", arrays["image_labels"], m, classes)
    return Images(images, arrays["image_labels"], rows)


def _check_labels(name: str, labels: NDArray[np.int16], n: int, classes: int) -> None:
    if labels.shape != (n,) or not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"{name} must be {n} of the run's {classes} classes")
