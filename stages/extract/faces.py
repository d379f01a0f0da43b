"""Find the face and cut it out, as the LGR paper does: dlib's frontal detector
(HOG), the box widened by 20 % in width and height, resized to 100 x 100.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.extract.images import UndecodableError, decode

VERSION = 1
"""Part of the fingerprint: raise it when the same image gives another crop."""

Box = tuple[int, int, int, int]
"""left, top, right, bottom in source pixels; right and bottom lie outside."""


class Status(IntEnum):
    """What became of an image; column `status` of a crop cache."""

    FOUND = 1
    WHOLE = 2  # no face found: the whole image was taken
    FAILED = 3  # not decodable: the crop is black and no latent is made of it


@dataclass(frozen=True)
class CropSettings:
    """What decides a crop.  All of it enters the fingerprint."""

    margin: float = 0.2
    """Widens the box by this share of its width and height, half on each side."""
    size: int = 100
    """Pixels, width and height of the crop."""
    upsample: int = 1
    """If no face is found, the image is doubled up to so many times and searched again
    (dlib finds faces of 80 px and more)."""

    def fingerprinted(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "detector": "dlib frontal HOG",
            "several_faces": "largest",
            "beyond_border": "clip",
            "no_face": "whole",
            "resize": "Pillow bilinear",
            "version": VERSION,
        }


@dataclass(frozen=True)
class Crop:
    """One image's outcome: pixels uint8 (size, size, 3) RGB."""

    pixels: NDArray[np.uint8]
    status: Status
    box: Box
    reason: str
    """Why it failed, or ""."""


def crop_file(path: Path, settings: CropSettings) -> Crop:
    """Decode, find, widen, cut, resize.  Never raises for a bad image: that is a status."""
    try:
        image = decode(path)
    except UndecodableError as error:
        black = np.zeros((settings.size, settings.size, 3), dtype=np.uint8)
        return Crop(black, Status.FAILED, (0, 0, 0, 0), str(error))
    face = find_face(image, settings.upsample)
    whole = (0, 0, image.width, image.height)
    box = whole if face is None else widen(face, settings.margin, image.width, image.height)
    status = Status.WHOLE if face is None else Status.FOUND
    side = (settings.size, settings.size)
    resized = image.resize(side, Image.Resampling.BILINEAR, box=box)
    return Crop(np.asarray(resized, dtype=np.uint8), status, box, "")


def find_face(image: Image.Image, upsample: int) -> Box | None:
    """The largest frontal face, or None."""
    pixels = np.asarray(image)
    for times in range(upsample + 1):
        found = _detector()(pixels, times)
        if found:
            largest = max(found, key=lambda r: (r.area(), -r.left(), -r.top()))
            return largest.left(), largest.top(), largest.right() + 1, largest.bottom() + 1
    return None


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


@functools.cache
def _detector() -> Any:
    import dlib  # heavy, and needed only by those who crop

    return dlib.get_frontal_face_detector()
