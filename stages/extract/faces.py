"""Find the face and cut it out, as the LGR paper does: dlib's frontal detector
(HOG), the box widened by 20 % in width and height, resized to 100 x 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.digest import bytes_digest
from cache.errors import Refused
from stages.datasets.sample import Box
from stages.extract.images import MAX_BYTES, UndecodableError, decode
from stages.extract.search import SEARCH_SIDE, find_face

VERSION = 2
"""Part of the fingerprint: raise it when the same image gives another crop."""

Pixels = NDArray[np.uint8]
FaceCrop = Literal["dlib", "box", "off"]
OnMissing = Literal["whole", "center", "drop"]


class Status(IntEnum):
    """What became of an image; column `status` of a crop cache."""

    FOUND = 1
    WHOLE = 2  # no face found, or none searched for: the whole image was taken
    FAILED = 3  # not decodable: the crop is black and no latent is made of it
    CENTER = 4  # no face found: the largest square in the middle was taken
    DROPPED = 5  # no face found: the crop is black and no latent is made of it


USABLE = (Status.FOUND, Status.WHOLE, Status.CENTER)
"""A latent is made of these."""
_INSTEAD = {"whole": Status.WHOLE, "center": Status.CENTER, "drop": Status.DROPPED}


@dataclass(frozen=True)
class CropSettings:
    """What decides a crop."""

    margin: float = 0.2
    """Widens the box by this share of its width and height, half on each side."""
    size: int = 100
    """Pixels, width and height of the crop."""
    upsample: int = 1
    """If no face is found, the image is doubled up to so many times and searched again
    (dlib finds faces of 80 px and more)."""
    face_crop: FaceCrop = "dlib"
    """dlib: search; box: take the box that the data set states; off: the whole image."""
    on_missing: OnMissing = "whole"
    """What to take where there is no face."""
    smallest_face: float = 0.0
    """Above 0: search first on a copy so reduced that a face of this share of the image's shorter
    side is found still, and at full size where that leaves a doubt."""

    def fingerprinted(self) -> dict[str, Any]:
        """What decides the pixels with these settings, and nothing else."""
        common = {
            "face_crop": self.face_crop,
            "size": self.size,
            "resize": "Pillow bilinear",
            "transparent": "on white",
            "version": VERSION,
        }
        if self.face_crop == "off":
            return common
        boxed = {
            **common,
            "margin": self.margin,
            "beyond_border": "clip",
            "on_missing": self.on_missing,
        }
        if self.face_crop == "box":
            return boxed
        reduced = {
            "smallest_face": self.smallest_face,
            "reduced_by": "dlib's pyramid",
            "in_doubt": "full size",
        }
        return {
            **boxed,
            "upsample": self.upsample,
            "detector": "dlib frontal HOG",
            "search_side": SEARCH_SIDE,
            "several_faces": "largest",
            **(reduced if self.smallest_face else {}),  # caches made before have no word of it
        }


@dataclass(frozen=True)
class Task:
    """One image to crop."""

    image: Path | Pixels
    digest: str
    """Of the file as it was when the fingerprint was made."""
    box: Box | None = None


@dataclass(frozen=True)
class Crop:
    """One image's outcome: pixels uint8 (size, size, 3) RGB."""

    pixels: Pixels
    status: Status
    box: Box
    """What was cut out, in source pixels."""
    reason: str
    """Why there is no face, or no picture; or ""."""


def crop_image(task: Task, settings: CropSettings) -> Crop:
    """Decode, find, widen, cut, resize.

    A bad image is a status and not an error: only its bytes decide.

    Raises:
        Refused: the file changed, or can no longer be read, since the data set
            was fingerprinted.
    """
    if isinstance(task.image, np.ndarray):
        if settings.face_crop == "off" and task.image.shape[:2] == (settings.size,) * 2:
            whole = (0, 0, settings.size, settings.size)
            return Crop(np.ascontiguousarray(task.image), Status.WHOLE, whole, "")
        image = Image.fromarray(np.ascontiguousarray(task.image))
    else:
        try:
            image = decode(_bytes(task.image, task.digest))
        except UndecodableError as error:
            return _black(settings, Status.FAILED, str(error))
    return _cut(image, settings, task.box)


def _bytes(path: Path, digest: str) -> bytes:
    if not digest.startswith("blake3:"):
        raise UndecodableError(digest)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UndecodableError(f"file of more than {MAX_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise Refused(
            f"{path} could be read when this run began, and now cannot: {error.strerror}. "
            "What was finished is kept; run the same command again."
        ) from None
    if bytes_digest(data) != digest:
        raise Refused(f"{path} changed while this run was reading it. Run the command again.")
    return data


def _cut(image: Image.Image, settings: CropSettings, stated: Box | None) -> Crop:
    side = (settings.size, settings.size)
    box, reason = _face(image, settings, stated)
    status = Status.FOUND
    if box is None:
        status = _INSTEAD[settings.on_missing] if reason else Status.WHOLE
        if status is Status.DROPPED:
            return _black(settings, status, reason)
        middle = status is Status.CENTER
        box = _center(image) if middle else (0, 0, image.width, image.height)
    resized = image.resize(side, Image.Resampling.BILINEAR, box=box)
    return Crop(np.asarray(resized, dtype=np.uint8), status, box, reason)


def _face(image: Image.Image, settings: CropSettings, stated: Box | None) -> tuple[Box | None, str]:
    """The widened box, or None and why."""
    if settings.face_crop == "off":
        return None, ""
    if settings.face_crop == "box":
        found, reason = stated, "the data set states no face box"
    else:
        found = find_face(image, settings.upsample, settings.smallest_face)
        reason = "no face found"
    if found is None:
        return None, reason
    left, top, right, bottom = box = widen(found, settings.margin, image.width, image.height)
    if left >= right or top >= bottom:
        return None, "the face box lies outside the image"
    return box, ""


def _black(settings: CropSettings, status: Status, reason: str) -> Crop:
    pixels = np.zeros((settings.size, settings.size, 3), dtype=np.uint8)
    return Crop(pixels, status, (0, 0, 0, 0), reason)


def _center(image: Image.Image) -> Box:
    """The largest square in the middle."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return left, top, left + side, top + side


def widen(box: Box, margin: float, width: int, height: int) -> Box:
    """`box` widened by `margin` of its size, clipped to the image, whole pixels.

    >>> widen((20, 20, 120, 120), 0.2, 200, 125)
    (10, 10, 130, 125)
    """
    left, top, right, bottom = box
    dx, dy = margin * (right - left) / 2, margin * (bottom - top) / 2
    return (
        max(0, round(left - dx)),
        max(0, round(top - dy)),
        min(width, round(right + dx)),
        min(height, round(bottom + dy)),
    )
