"""CK+: which frames carry which label, the split by subject, and mistakes in its files."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from stages.datasets import read
from tests.replicas import CKPLUS_CLASSES, Change, link_out, make_ckplus, moved_below, put, refused


def test_ckplus(tmp_path: Path) -> None:
    dataset = read("ckplus", make_ckplus(tmp_path))
    assert dataset.classes == ("neutral", *CKPLUS_CLASSES)
    assert Counter(s.label for s in dataset.samples) == {
        "neutral": 70,
        **dict.fromkeys(CKPLUS_CLASSES, 30),
    }
    first = [s for s in dataset.samples if s.id.startswith("cohn-kanade-images/S000/001/")]
    assert {(s.id[-13:-4], s.label, s.subject) for s in first} == {
        ("00_001_03", "neutral", "S000"),
        *((f"_{n:08}", "anger", "S000") for n in (12, 15, 18)),
    }
    assert all(isinstance(s.image, Path) and s.image.is_file() for s in dataset.samples)
    assert dataset.notes == (
        "sequences without a label, left out: 10 (S000/008, S001/008, S002/008 and 7 more)",
    )
    moved_below(tmp_path, "ckplus")


def test_ckplus_splits_subjects(tmp_path: Path) -> None:
    dataset = read("ckplus", make_ckplus(tmp_path))
    sides = {s.subject: s.split for s in dataset.samples}
    assert Counter(sides.values()) == {"train": 7, "test": 3}
    assert len({(s.subject, s.split) for s in dataset.samples}) == 10
    assert read("ckplus", tmp_path) == dataset
    other = {s.subject: s.split for s in read("ckplus", tmp_path, split_seed=1).samples}
    assert other != sides


@pytest.mark.parametrize("seed", range(3))
def test_ckplus_split_keeps_the_classes_in_proportion(seed: int) -> None:
    """With as many people and sequences as CK+ has, spread as unevenly."""
    from stages.datasets.ckplus import _SEQUENCES, _split

    random = Random(seed)
    weights = {f"S{k:03}": random.uniform(0.3, 2) for k in range(118)}
    sequences: dict[str, tuple[str, str]] = {}
    for label, count in _SEQUENCES.items():
        people = sorted(weights, key=lambda who: -(random.random() ** (1 / weights[who])))
        sequences |= {f"{who}/{label}": (who, label) for who in people[:count]}
    splits = _split(sequences, seed)
    tested = sum(split == "test" for split in splits.values())
    assert 0.25 <= tested / len(splits) <= 0.35
    for label, count in _SEQUENCES.items():
        share = sum(splits[w] == "test" for w, name in sequences.values() if name == label) / count
        assert 0.25 <= share <= 0.35, label


def _emotion(content: str, name: str = "S000_001_00000018_emotion.txt") -> Change:
    return lambda root: put(root / "Emotion/S000/001" / name, content)


def _frame(name: str) -> Change:
    return lambda root: put(root / "cohn-kanade-images/S000/001" / name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        *(
            (_emotion(code), "S000_001_00000018_emotion.txt: ")
            for code in (
                "0.0",
                "8",
                "2.5",
                "happy",
                "",
                "nan",
                "1_0",
                "0_3",
                "+3",
                "\u0663",
                "\x00",
            )
        ),
        (_emotion("1.0", "S000_001_00000011_emotion.txt"), "Emotion/S000/001 has 2 labels"),
        (
            lambda root: put(root / "Emotion/S000/008/S001_008_00000018_emotion.txt", "3"),
            "S001_008_00000018_emotion.txt: it is named after the sequence S001/008",
        ),
        (_frame("S000_001_018.PNG"), "has frame 18 twice"),
        (_frame("peak.png"), "has no frame number"),
        (
            link_out("cohn-kanade-images/S000/001/S000_001_03.png", "x.png"),
            "is a link that leads out",
        ),
        (
            link_out("Emotion/S000/001/S000_001_00000018_emotion.txt", "x"),
            "is a link that leads out",
        ),
        (lambda root: shutil.rmtree(root / "Emotion"), "There is no Emotion in"),
        (lambda root: shutil.rmtree(root / "cohn-kanade-images"), "no cohn-kanade-images in"),
    ],
)
def test_ckplus_mistakes(tmp_path: Path, change: Change, says: str) -> None:
    change(make_ckplus(tmp_path / "ck", people=2))
    refused("ckplus", tmp_path / "ck", says)


@pytest.mark.parametrize("code", ["1", "1.0", "1.", "\ufeff  1.0000000e+00\r\n", "1e0"])
def test_ckplus_plain_numbers(tmp_path: Path, code: str) -> None:
    whole = read("ckplus", make_ckplus(tmp_path))
    _emotion(code)(tmp_path)
    assert read("ckplus", tmp_path) == whole


def test_ckplus_needs_two_subjects(tmp_path: Path) -> None:
    refused("ckplus", make_ckplus(tmp_path, people=1), "a split by subject needs two")


def test_links_to_themselves_are_not_there(tmp_path: Path) -> None:
    whole = read("ckplus", make_ckplus(tmp_path))
    for name in ("S999", "S000/009", "S000/001/S000_001_99.png"):
        loop = tmp_path / "cohn-kanade-images" / name
        loop.symlink_to(loop.name)
    assert read("ckplus", tmp_path) == whole
    (tmp_path / "below").symlink_to("below")
    moved_below(tmp_path, "ckplus")


def test_ckplus_tells_what_is_missing(tmp_path: Path) -> None:
    images = make_ckplus(tmp_path) / "cohn-kanade-images"
    shutil.rmtree(images / "S000/001")
    for frame in ("000_002_03", "000_002_06", "000_002_09", "000_002_00000012", "000_002_00000015"):
        (images / f"S000/002/S{frame}.png").unlink()
    (images / "S000/003/S000_003_03.png").unlink()
    for frame in ("06", "09", "00000012"):
        (images / f"S000/003/S000_003_{frame}.png").unlink()
    dataset = read("ckplus", tmp_path)
    assert "labels without images: 1 (S000/001)" in dataset.notes
    assert "sequences with fewer than four frames: 2 (S000/002, S000/003)" in dataset.notes
    labels = Counter((s.id[19:27], s.label) for s in dataset.samples)
    assert labels["S000/002", "contempt"] == 1  # alone, it carries the label
    assert (labels["S000/003", "neutral"], labels["S000/003", "disgust"]) == (1, 1)


def test_ckplus_without_any_image(tmp_path: Path) -> None:
    make_ckplus(tmp_path, people=2, frames=0)
    (tmp_path / "cohn-kanade-images").mkdir(exist_ok=True)
    refused("ckplus", tmp_path, "No labelled sequence")


def test_a_named_folder_may_be_a_link(tmp_path: Path) -> None:
    make_ckplus(tmp_path / "far")
    (tmp_path / "near").mkdir()
    for name in ("Emotion", "cohn-kanade-images"):
        (tmp_path / "near" / name).symlink_to(tmp_path / "far" / name)
    assert read("ckplus", tmp_path / "near") == read("ckplus", tmp_path / "far")
