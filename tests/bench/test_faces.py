"""Faces found on a reduced copy first, against the search at full size."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from stages.datasets import read
from stages.datasets.sample import Box, limited
from stages.extract.images import decode
from stages.extract.search import find_face
from tests.bench.measuring import Bench
from tests.bench.pictures import pictures

pytestmark = pytest.mark.bench
SMALLEST = 0.5
UPSAMPLE = 1
SAME = 0.7
"""Intersection over union from which on two boxes are the same face."""
AIM = 0.98
"""Share of the images of which both searches must say the same."""


def test_face_search(bench: Bench, tmp_path: Path) -> None:
    count = 64 if bench.quick else 256
    folder, words = pictures(tmp_path, count)
    images = [_picture(s.image) for s in limited(read("folder", folder), count).samples]

    def search(smallest: float) -> list[Box | None]:
        return [find_face(image, UPSAMPLE, smallest) for image in images]

    full, reduced = search(0.0), search(SMALLEST)
    outcomes = [_outcome(a, b) for a, b in zip(full, reduced, strict=True)]
    said = {name: outcomes.count(name) for name in sorted(set(outcomes))}
    same = 1 - (said.get("another face", 0) + said.get("found by one", 0)) / len(images)
    assert same >= AIM
    bench.figures["face search"] = {"images": words, "smallest_face": SMALLEST, "outcomes": said}
    bench.compare(
        f"face search, --smallest-face {SMALLEST}",
        lambda: search(SMALLEST),
        lambda: search(0.0),
        against="dlib at full size",
        equal=f"{len(images)} {words}, {100 * same:.1f} % the same face",
        aim=">= 2",
        repeats=4,
    )


def _picture(path: object) -> Image.Image:
    assert isinstance(path, Path)
    return decode(path.read_bytes())


def _outcome(a: Box | None, b: Box | None) -> str:
    if a == b:
        return "no face" if a is None else "the same box"
    if a is None or b is None:
        return "found by one"
    return "the same face" if _overlap(a, b) >= SAME else "another face"


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)
