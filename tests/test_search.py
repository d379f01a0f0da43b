"""Faces found on a reduced copy: those of the full-size search, or that search itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache.fingerprint import fingerprint, nested
from pipeline import crops as crop_room
from pipeline.caches.match import Asked, compare_crops
from pipeline.params import resolve, trace
from pipeline.show_config import config_text
from stages.draw.dataset import faces
from stages.extract import search
from stages.extract.faces import CropSettings
from stages.extract.search import copies_left_out, find_face

Pixels = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def drawn_faces() -> list[Image.Image]:
    """40 pictures of 240 x 240."""
    return [Image.fromarray(pixels) for _, _, _, pixels in faces(5, 7)]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The longer side of each image that dlib is given."""
    sides: list[int] = []
    detector = search._detector()

    def spy(pixels: Pixels, times: int) -> Any:
        sides.append(max(pixels.shape[:2]) * 2**times)
        return detector(pixels, times)

    monkeypatch.setattr(search, "_detector", lambda: spy)
    return sides


def test_the_same_box_to_the_pixel(drawn_faces: list[Image.Image], searched: list[int]) -> None:
    """Faces of many sizes and places, on pictures of odd sides."""
    rng, reduced = np.random.default_rng(0), 0
    for face in drawn_faces:
        side = int(rng.integers(300, 620))
        picture = Image.new("RGB", (side + 37, side), "grey")
        picture.paste(face.resize((side, side)), (int(rng.integers(0, 37)), 0))
        full = find_face(picture, 0)
        searched.clear()
        assert find_face(picture, 0, 0.45) == full
        reduced += len(searched) == 1
        assert searched[0] < 0.7 * (side + 37)
    assert reduced >= 0.9 * len(drawn_faces)  # or nothing was tried here


def test_a_small_face_is_found_at_full_size(
    drawn_faces: list[Image.Image], searched: list[int]
) -> None:
    picture = Image.new("RGB", (900, 700), "grey")
    picture.paste(drawn_faces[0], (500, 400))
    box = find_face(picture, 0, 0.5)
    assert box is not None
    assert box[0] > 500
    assert box == find_face(picture, 0)
    assert searched[0] < 300
    assert searched[1] == 900


def test_two_faces_are_a_doubt(drawn_faces: list[Image.Image], searched: list[int]) -> None:
    picture = Image.new("RGB", (960, 480), "grey")
    for place, face in enumerate(drawn_faces[:2]):
        picture.paste(face.resize((480, 480)), (480 * place, 0))
    assert find_face(picture, 0, 0.4) == find_face(picture, 0)
    assert searched[1:] == [960, 960]


def test_a_face_of_the_smallest_size_is_a_doubt(
    drawn_faces: list[Image.Image], searched: list[int]
) -> None:
    """A larger copy might show it better: full size, though the reduced copy shows it."""
    picture = drawn_faces[0].resize((480, 480))
    full, one_search, pixels = find_face(picture, 0), [], np.asarray(picture)
    for left_out in range(1, 10):
        searched.clear()
        assert find_face(picture, 0, 1.001 * 80 * 1.2**left_out / 480) == full
        one_search.append(len(searched) == 1)
    first = one_search.index(False) + 1
    assert one_search == [True] * (first - 1) + [False] * (10 - first)
    for _ in range(first):
        pixels = search._pyramid()(pixels)
    (found,) = search._detector()(pixels, 0)
    assert found.width() in (73, 81)


def test_no_face_takes_the_whole_search(searched: list[int]) -> None:
    assert find_face(Image.new("RGB", (400, 300), "grey"), 1, 0.5) is None
    assert searched == [230, 400, 800]


@pytest.mark.parametrize(
    ("side", "smallest", "left_out"),
    [(350, 0.5, 4), (350, 1.0, 8), (350, 0.2, 0), (96, 1.0, 1), (95, 1.0, 0), (40, 1.0, 0),
     (1, 1e-9, 0), (350, 0.0, 0)],
)  # fmt: skip
def test_how_far_an_image_is_reduced(side: int, smallest: float, left_out: int) -> None:
    """The smallest wanted face still has 80 pixels, and one copy further it would not."""
    found = copies_left_out(side, smallest)
    assert found == left_out
    assert not found or smallest * side * (5 / 6) ** found >= 80
    assert smallest * side * (5 / 6) ** (found + 1) < 80


def test_crops_made_before_keep_their_fingerprint() -> None:
    """If this changes, every crop cache in the world is orphaned: raise VERSION in faces.py."""
    plain = CropSettings().fingerprinted()
    assert fingerprint(plain) == "blake2b:b4d1d0290ee94c361d9a318155cae069de3d77a1"
    assert CropSettings(smallest_face=0.0).fingerprinted() == plain
    assert CropSettings(smallest_face=0.5).fingerprinted()["smallest_face"] == 0.5


def test_a_setting_like_the_others(tmp_path: Path) -> None:
    """In a file, in --show-config, and in the settings that all ways of cropping are given."""
    path = tmp_path / "params.yaml"
    path.write_text("dataset: {name: drawn}\ncrop: {smallest_face: 0.4}\n")
    assert f"smallest_face: 0.4  # {path}" in config_text(trace(path, {}))
    assert crop_room.crop_settings(resolve(path, {})).smallest_face == 0.4
    assert crop_room.crop_settings(resolve(None, {})).smallest_face == 0.0


@pytest.mark.parametrize(
    ("asked", "made", "same"), [(0.0, 0.0, True), (0.4, 0.4, True), (0.4, 0.0, False),
                                (0.0, 0.4, False), (0.4, 0.5, False)]
)  # fmt: skip
def test_other_crops_are_not_taken_for_these(asked: float, made: float, same: bool) -> None:
    settings = {"crop": CropSettings(smallest_face=made).fingerprinted()}
    found = compare_crops({"crop.smallest_face": Asked(asked)}, settings)
    assert (found.differing == []) is same
    assert nested(settings, "crop")["face_crop"] == "dlib"
    off = {"crop": CropSettings(face_crop="off").fingerprinted()}
    assert compare_crops({"crop.smallest_face": Asked(asked)}, off).differing == []
