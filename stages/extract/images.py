"""Decode an image file to RGB, with one decoder (Pillow) for everything."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""Larger images are refused: a few kilobytes can unpack to many gigabytes."""


class UndecodableError(ValueError):
    """The file cannot be read as an image; the text says why, in a few words."""


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits: Pillow's own conversion would clip it to white."""
    if image.mode == "F":
        raise UndecodableError("pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, dtype=np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UndecodableError("pixels are larger than 16 bits")
    return Image.fromarray((values // 257).astype(np.uint8))


def decode(path: Path) -> Image.Image:
    """The picture, mode RGB, upright (EXIF orientation applied).

    Raises:
        UndecodableError: missing, empty, truncated, too large, or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UndecodableError(f"{image.width} x {image.height} pixels are too many")
                return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except UndecodableError:
        raise
    except FileNotFoundError:
        raise UndecodableError("no such file") from None
    except UnidentifiedImageError:
        raise UndecodableError("not an image") from None
    except Image.DecompressionBombError:
        raise UndecodableError("too many pixels") from None
    except Exception as error:  # decoders raise many kinds for broken files
        raise UndecodableError(f"{type(error).__name__}: {error}") from None
