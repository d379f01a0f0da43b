"""All data sets: what each says about itself, published counts, and the check against them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.datasets import NAMES, module, options, read
from stages.datasets.check import check, compare, missing_files, table, text
from stages.datasets.sample import Sample
from tests.replicas import make_affectnet8, make_mnist, make_rafdb, refused


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("folder", "drawn")])
def test_about(name: str, tmp_path: Path) -> None:
    """All that a reader needs is said, and an empty folder is refused with the layout."""
    about = module(name).ABOUT
    assert about.title
    assert about.access
    assert len(set(about.classes)) == len(about.classes)
    assert all(set(counts) == set(about.classes) for counts in about.published.values())
    for line in refused(name, tmp_path, "Expected below --root").partition("Expected")[2].split():
        assert line in f"below --root: {about.layout}"
    assert all(isinstance(value, bool | int | str) for value in options(name).values())


TOTALS = {
    "ckplus": {"train+test": 1308},
    "rafdb": {"train": 12_271, "test": 3_068},
    "affectnet": {"train": 88_021, "test": 4_000},
    "mnist": {"train+pretrain": 60_000, "test": 10_000},
    "fashion-mnist": {"train+pretrain": 60_000, "test": 10_000},
    "cifar10": {"train+pretrain": 50_000, "test": 10_000},
    "cifar100": {"train+pretrain": 50_000, "test": 10_000},
}


@pytest.mark.parametrize("name", TOTALS)
def test_published_counts_add_up(name: str) -> None:
    published_counts = module(name).ABOUT.published
    assert {key: sum(c.values()) for key, c in published_counts.items()} == TOTALS[name]


def test_check(tmp_path: Path) -> None:
    make_rafdb(tmp_path)
    (tmp_path / "basic/Image/original/test_0002.jpg").unlink()
    done = check("rafdb", tmp_path)
    assert not done.ok
    assert "test/fear: 74 published, 1 found" in done.differences
    missing = "listed images that are not there: 1 (basic/Image/original/test_0002.jpg)"
    assert done.differences[-1] == missing
    assert len(done.differences) == 2 * 7 + 1
    assert text(done).splitlines()[:3] == [
        "rafdb, 21 images (found/published)",
        "class         train    test",
        "neutral      2/2524   1/680",
    ]
    assert f"  {missing}" in text(done).splitlines()


def test_a_link_to_itself_hides_no_other_image(tmp_path: Path) -> None:
    dataset = read("rafdb", make_rafdb(tmp_path))
    image = tmp_path / "basic/Image/original/test_0001.jpg"
    image.unlink()
    image.symlink_to(image.name)
    assert missing_files(dataset) == ["basic/Image/original/test_0001.jpg"]


def test_check_adds_splits_and_finds_no_fault(tmp_path: Path) -> None:
    dataset = read("mnist", make_mnist(tmp_path))
    about = replace(
        module("mnist").ABOUT,
        published={
            "train+pretrain": dict.fromkeys(dataset.classes, 12),
            "test": dict.fromkeys(dataset.classes, 2),
        },
    )
    compared = compare(dataset, about)
    assert compared.differences == ()
    lines = table(compared.rows).splitlines()
    assert lines[0].split() == ["class", "train+pretrain", "test", "train", "pretrain"]
    assert lines[-1].split() == ["all", "120/120", "20/20", "100", "20"]


def test_check_of_a_set_without_published_counts(folder: Path) -> None:
    done = check("folder", folder)
    assert done.ok
    assert "no published counts" in text(done)


def test_check_says_that_options_change_the_counts(tmp_path: Path) -> None:
    done = check("affectnet", make_affectnet8(tmp_path), max_per_class=1)
    assert done.notes[-1] == "the published counts are those of --max-per-class 15000"


def test_samples_compare_without_their_pixels() -> None:
    sample = Sample("train/00000", np.zeros((32, 32, 3), np.uint8), "0", "", "train")
    assert sample == replace(sample, image=np.ones((32, 32, 3), np.uint8))
