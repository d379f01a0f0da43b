"""Decode an image file to RGB, with one decoder (Pillow) for everything."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""Larger images are refused: a few kilobytes can unpack to many gigabytes."""
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
"""Decoded here and by nothing else: for EPS, Pillow would start another program."""
MAX_BYTES = 256_000_000
"""Larger files are not even read."""


class UndecodableError(ValueError):
    """The file cannot be read as an image; the text says why, in a few words."""


def decode(data: bytes) -> Image.Image:
    """The picture in a file of these bytes, mode RGB, upright (EXIF orientation applied).

    16 bits are scaled to 8, transparent pixels lie on white, of several
    pictures the first is taken.

    Raises:
        UndecodableError: empty, truncated, too large, or no image.
    """
    if not data:
        raise UndecodableError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs and odd metadata: what matters is raised
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UndecodableError(f"{image.width} x {image.height} pixels are too many")
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _on_white(_eight_bits(image))
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise UndecodableError("not an image") from None
    except Image.DecompressionBombError:
        raise UndecodableError("too many pixels") from None
    except MemoryError:
        raise UndecodableError("not enough memory to decode it") from None
    except Exception as error:  # decoders raise many kinds for broken files
        raise UndecodableError(f"{type(error).__name__}: {error}"[:200]) from None


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


def _on_white(image: Image.Image) -> Image.Image:
    """What lies under a transparent pixel is arbitrary, so it must not be shown."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
