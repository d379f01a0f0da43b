"""Where is the face?  dlib's frontal detector (HOG), at full size or first on a reduced copy.

dlib looks for faces of one size, on the image and on copies of it each 5/6 of
the one before.  A search that begins some copies later leaves the small faces
out, and most of the time: each copy has 0.69 times the pixels of the one
before.  It is the same search on the same pixels otherwise, so that it finds
the other faces with the same scores and, once they are traced back through the
same copies, the same boxes to the pixel.  (A copy that another filter reduces,
to a size between, shows every thirtieth face on another scale.)

The two can differ where faces overlap: a small one with a higher score keeps
dlib from telling a large one.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.datasets.sample import Box

SEARCH_SIDE = 2048
"""A larger image is searched on a copy reduced to this side, and no copy is doubled beyond
twice of it: dlib would take gigabytes for a poster."""
_WINDOW = 80
"""Pixels of the smallest face that dlib is trained to find."""
_STEP = 6
"""dlib's copies are each (_STEP - 1) / _STEP of the one before."""
_WIDTHS = (73, 81)
"""Of dlib's boxes, on the copy on which it finds them: nine or ten cells of 8 pixels, and one."""

Pixels = NDArray[np.uint8]


def find_face(image: Image.Image, upsample: int, smallest: float = 0.0) -> Box | None:
    """The largest frontal face, or None.

    `smallest`: share of the image's shorter side; where a copy so reduced that
    a face of this size is still found shows a single larger one, that is it.
    0: the image is searched at full size at once.
    """
    scale = max(1.0, max(image.size) / SEARCH_SIDE)
    if scale > 1:
        small = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
        image = image.resize(small, Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(image)
    found = _on_reduced(pixels, smallest) or _at_full_size(pixels, upsample)
    if found is None:
        return None
    return (
        round(scale * found.left()),
        round(scale * found.top()),
        round(scale * (found.right() + 1)),
        round(scale * (found.bottom() + 1)),
    )


def copies_left_out(side: int, smallest: float) -> int:
    """How many of dlib's copies, the image first, only show faces below `smallest` of `side`.

    >>> copies_left_out(350, 0.5)  # 80 pixels on the copy of 169 are 166 of 350
    4
    >>> copies_left_out(350, 0.2)
    0
    """
    times = smallest * side / _WINDOW
    return max(0, math.floor(math.log(times, _STEP / (_STEP - 1)))) if times else 0


def _at_full_size(pixels: Pixels, upsample: int) -> Any | None:
    """The largest of the faces in an image that is doubled until there is one."""
    for times in range(upsample + 1):
        if times and max(pixels.shape) * 2**times > 2 * SEARCH_SIDE:
            break
        found = _detector()(pixels, times)
        if found:
            return max(found, key=lambda r: (r.area(), -r.left(), -r.top()))
    return None


def _on_reduced(pixels: Pixels, smallest: float) -> Any | None:
    """The face that the reduced copy shows; None: it shows none, or leaves a doubt."""
    left_out = copies_left_out(min(pixels.shape[:2]), smallest)
    if not left_out:
        return None
    for _ in range(left_out):
        pixels = _pyramid()(pixels)
    found = _detector()(pixels, 0)
    return _traced_back(found[0], left_out) if len(found) == 1 else None


def _traced_back(box: Any, left_out: int) -> Any | None:
    """The box in the image.  dlib has rounded it, so first to where it was found, in whole pixels.

    None: on the largest copy that was searched.  The next larger one might show
    the same face with a higher score.
    """
    pyramid, level = _pyramid(), 1
    while (found := pyramid.rect_down(box, level)).width() >= min(_WIDTHS):
        if found.width() in _WIDTHS:
            return pyramid.rect_up(found, level + left_out)
        level += 1
    return None


@functools.cache
def _detector() -> Any:
    import dlib  # heavy, and needed only by those who crop

    return dlib.get_frontal_face_detector()


@functools.cache
def _pyramid() -> Any:
    import dlib

    return dlib.pyramid_down(_STEP)
