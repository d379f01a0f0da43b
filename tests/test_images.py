"""Images as they come, hostile ones included, and the faces in them."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache.digest import bytes_digest
from cache.errors import Refused
from stages.datasets.sample import Box
from stages.extract import search
from stages.extract.faces import Crop, CropSettings, Status, Task, crop_image, widen
from stages.extract.images import UndecodableError, decode


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def crop_file(path: Path, box: Box | None = None, **settings: Any) -> Crop:
    return crop_image(Task(path, bytes_digest(path.read_bytes()), box), CropSettings(**settings))


def a_picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1", "I;16", "PA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = a_picture()
    converted = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    decoded = decode(encoded(converted, "PNG" if mode in ("P", "L", "1", "LA") else "TIFF"))
    assert (decoded.mode, decoded.size) == ("RGB", (20, 30))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_it_upright(orientation: int) -> None:
    image = Image.new("RGB", (16, 8), "black")
    image.paste("white", (0, 0, 8, 8))  # the left half
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = np.asarray(decode(encoded(image, "JPEG", exif=exif)).convert("L")) > 127
    upright = decoded if orientation < 5 else decoded.T
    white_first = orientation in (1, 4, 5, 6)
    assert upright.shape == (8, 16)
    assert upright[:, :8].all() == white_first
    assert upright[:, 8:].all() != white_first


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    pixel = np.asarray(decode(encoded(red.convert("CMYK"), "JPEG", quality=95)))[4, 4]
    assert pixel[0] > 230
    assert pixel[1:].max() < 40


def test_what_lies_under_transparent_pixels_is_not_shown() -> None:
    hidden = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert np.asarray(decode(encoded(hidden))).min() == 255
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9] + [0] * 765)
    assert np.asarray(decode(encoded(palette, transparency=0))).min() == 255
    half = np.asarray(decode(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128)))))
    assert 120 < half[0, 0, 0] < 135


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 100, dtype=np.uint16).reshape(10, 10)
    decoded = np.asarray(decode(encoded(Image.fromarray(values))))[..., 0]
    assert np.array_equal(decoded, (values // 257).astype(np.uint8))


def _bomb() -> bytes:
    """A few kilobytes that say they are 60000 x 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


_PNG = encoded(a_picture())
_JPEG = encoded(a_picture(), "JPEG")
HOSTILE = {
    "empty": (b"", "empty file"),
    "text": (b"hello", "not an image"),
    "gif in name only": (b"GIF89a nonsense", "."),
    "half a png": (_PNG[: len(_PNG) // 2], "Error"),
    "half a jpeg": (_JPEG[: len(_JPEG) // 2], "runcated"),
    "header alone": (_PNG[:40], "."),
    "bomb": (_bomb(), "pixels"),
    "wide bomb": (encoded(Image.new("1", (20_000, 20_000))), "pixels"),
    "floating point": (
        encoded(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "TIFF"),
        "floating-point",
    ),
    "32 bits": (
        encoded(Image.fromarray(np.full((4, 4), 1 << 20, dtype=np.int32)), "TIFF"),
        "16 bits",
    ),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "script": (b"#!/bin/sh\ntouch owned\n", "not an image"),
    "html": (b"<!doctype html><title>404</title>", "not an image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_file_is_a_status_with_a_reason(tmp_path: Path, name: str) -> None:
    data, says = HOSTILE[name]
    with pytest.raises(UndecodableError, match=says) as caught:
        decode(data)
    assert "\n" not in str(caught.value)
    (tmp_path / "x.png").write_bytes(data)
    crop = crop_file(tmp_path / "x.png")
    assert (crop.status, crop.reason) == (Status.FAILED, str(caught.value))
    assert crop.pixels.shape == (100, 100, 3)
    assert not crop.pixels.any()


def test_every_cut_of_a_file_is_handled() -> None:
    """Whatever Pillow makes of it: a picture or UndecodableError, and nothing else."""
    for data in (_PNG, _JPEG, encoded(a_picture(), "TIFF"), encoded(a_picture(), "BMP")):
        for length in range(0, len(data), max(1, len(data) // 60)):
            for broken in (data[:length], data[:length] + b"\xff\x00\xfe" + data[length + 3 :]):
                with contextlib.suppress(UndecodableError):
                    assert decode(broken).mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (5, 5), (3000, 1), (10, 5000), (70, 70)])
@pytest.mark.parametrize("on_missing", ["whole", "center", "drop"])
def test_odd_shapes_are_searched_without_harm(
    tmp_path: Path, size: tuple[int, int], on_missing: str
) -> None:
    Image.new("RGB", size, "grey").save(tmp_path / "x.png")
    crop = crop_file(tmp_path / "x.png", on_missing=on_missing)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    assert crop.reason == "no face found"
    assert (crop.status, crop.box) == {
        "whole": (Status.WHOLE, (0, 0, *size)),
        "center": (Status.CENTER, (left, top, left + side, top + side)),
        "drop": (Status.DROPPED, (0, 0, 0, 0)),
    }[on_missing]
    assert crop.pixels.any() == (on_missing != "drop")


def test_a_file_that_changes_under_the_run_stops_it(tmp_path: Path) -> None:
    """Only bytes decide a crop, so a read that fails or differs is no status."""
    path = tmp_path / "x.png"
    path.write_bytes(_PNG)
    digest = bytes_digest(_PNG)
    path.write_bytes(_JPEG)
    with pytest.raises(Refused, match="changed while"):
        crop_image(Task(path, digest), CropSettings())
    path.unlink()
    with pytest.raises(Refused, match="could be read when this run began"):
        crop_image(Task(path, digest), CropSettings())
    gone = crop_image(Task(path, "no such file"), CropSettings())
    assert (gone.status, gone.reason) == (Status.FAILED, "no such file")


def test_a_face_is_cut_out_with_its_margin(drawn: Path) -> None:
    path = sorted((drawn / "images").iterdir())[0]
    narrow, wide = (crop_file(path, margin=margin) for margin in (0.0, 0.2))
    assert wide.status == narrow.status == Status.FOUND
    assert wide.pixels.shape == (100, 100, 3)
    assert wide.pixels.dtype == np.uint8
    width = [c.box[2] - c.box[0] for c in (narrow, wide)]
    assert abs(width[1] / width[0] - 1.2) < 0.02


def test_of_several_faces_the_largest_wins(drawn: Path, tmp_path: Path) -> None:
    face = Image.open(sorted((drawn / "images").iterdir())[0]).convert("RGB")
    large = face.resize((round(face.width * 1.5), round(face.height * 1.5)))
    both = Image.new("RGB", (face.width + large.width, large.height), "grey")
    both.paste(face, (0, 0))
    both.paste(large, (face.width, 0))
    both.save(tmp_path / "both.png")
    crop = crop_file(tmp_path / "both.png")
    assert crop.status == Status.FOUND
    assert crop.box[0] >= face.width * 0.9


def test_a_huge_photograph_is_searched_on_a_smaller_copy(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box comes back in the pixels of the photograph; what is searched stays bounded."""
    face = Image.open(sorted((drawn / "images").iterdir())[0]).convert("RGB")
    searched: list[int] = []
    detector = search._detector()

    def spy(pixels: np.ndarray, times: int) -> Any:
        searched.append(max(pixels.shape) * 2**times)
        return detector(pixels, times)

    monkeypatch.setattr(search, "_detector", lambda: spy)
    side = 4000
    poster = face.resize((side, round(side * face.height / face.width)))
    poster.save(tmp_path / "poster.png", compress_level=1)
    crop = crop_file(tmp_path / "poster.png")
    small = crop_image(Task(np.asarray(face), ""), CropSettings())
    assert max(searched) <= 2 * search.SEARCH_SIDE
    assert crop.status == Status.FOUND
    scale = side / face.width
    assert np.allclose(np.array(crop.box) / scale, small.box, atol=0.12 * face.width)


def test_widening_stops_at_the_border() -> None:
    assert widen((20, 20, 120, 120), 0.2, 200, 125) == (10, 10, 130, 125)
    assert widen((-5, -3, 95, 97), 0.2, 90, 200) == (0, 0, 90, 107)


@pytest.mark.parametrize(
    ("box", "status", "cut"),
    [
        ((4, 4, 14, 24), Status.FOUND, (3, 2, 15, 26)),
        ((-50, -50, 10, 10), Status.FOUND, (0, 0, 16, 16)),
        ((10, 10, 900, 900), Status.FOUND, (0, 0, 20, 30)),
        ((40, 40, 60, 60), Status.WHOLE, (0, 0, 20, 30)),
        (None, Status.WHOLE, (0, 0, 20, 30)),
    ],
)
def test_the_data_sets_own_box(tmp_path: Path, box: Box | None, status: Status, cut: Box) -> None:
    a_picture().save(tmp_path / "x.png")
    crop = crop_file(tmp_path / "x.png", box, face_crop="box")
    assert (crop.status, crop.box) == (status, cut)
    assert bool(crop.reason) == (status is Status.WHOLE)


def test_no_search_takes_the_image_as_it_is() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    crop = crop_image(Task(pixels, ""), CropSettings(size=32, face_crop="off"))
    assert (crop.status, crop.reason) == (Status.WHOLE, "")
    assert np.array_equal(crop.pixels, pixels)
    larger = crop_image(Task(pixels, ""), CropSettings(size=64, face_crop="off"))
    assert larger.pixels.shape == (64, 64, 3)
