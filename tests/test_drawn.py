"""The embedded data set: the same everywhere, found by dlib, train and test people apart."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.errors import Refused
from stages.draw.dataset import draw, faces
from stages.draw.expressions import EXPRESSIONS, PROTOTYPES, UNITS
from stages.extract.search import find_face

# If the pictures change on purpose, raise VERSION in stages/draw/dataset.py and renew this.
GOLDEN = "dc7bc17682d8aec513aacc4e95aa07967bf7dbb66996126597806ea5363d5839"


def test_same_pixels_on_every_machine() -> None:
    hasher = hashlib.sha256()
    for name, _, _, pixels in faces(5, 0):
        hasher.update(name.encode() + pixels.tobytes())
    assert hasher.hexdigest() == GOLDEN


def test_dlib_finds_them() -> None:
    """At least 97 % of 320 faces, with a box in the middle of the picture."""
    found = good = total = 0
    for _, _, _, pixels in faces(40, 3):
        box = find_face(Image.fromarray(pixels), upsample=0)
        total += 1
        if box is not None:
            found += 1
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            good += max(abs(middle[0] - 120), abs(middle[1] - 125)) < 35
    assert total == 320
    assert found >= 0.97 * total
    assert good == found


def test_table_and_pictures_agree(drawn: Path) -> None:
    rows = list(csv.DictReader((drawn / "labels.csv").open()))
    assert len(rows) == 96
    assert {row["expression"] for row in rows} == set(EXPRESSIONS)
    subjects = {
        split: {r["subject"] for r in rows if r["split"] == split} for split in ("train", "test")
    }
    assert subjects["train"]
    assert subjects["test"]
    assert not subjects["train"] & subjects["test"]
    for row in rows:
        assert np.asarray(Image.open(drawn / row["image"])).shape == (240, 240, 3)


def test_other_seed_other_people_larger_set_same_beginning() -> None:
    first = [(n, p.tobytes()) for n, _, _, p in faces(4, 0)]
    longer = [(n, p.tobytes()) for n, _, _, p in faces(6, 0)]
    assert longer[: len(first)] == first
    assert next(faces(4, 1))[3].tobytes() != first[0][1]


def test_prototypes_use_known_units() -> None:
    assert set(PROTOTYPES) == set(EXPRESSIONS)
    assert all(set(units) <= set(UNITS) for units in PROTOTYPES.values())


def test_drawing_destroys_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"precious")
    with pytest.raises(Refused, match="was not drawn"):
        draw(tmp_path, 5, 0, overwrite=True, tick=lambda _: None)
    assert (tmp_path / "images" / "mine.png").read_bytes() == b"precious"


def test_drawn_otherwise_is_named(drawn: Path) -> None:
    with pytest.raises(Refused, match="seed: expected 7, found 0"):
        draw(drawn, 12, 7, overwrite=False, tick=lambda _: None)
    assert draw(drawn, 12, 0, overwrite=False, tick=lambda _: None) == 0
