"""AffectNet: both releases, thinning of large classes, boxes, and mistakes in its files."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from stages.datasets import read
from tests.replicas import (
    AFFECTNET_CLASSES,
    Bomb,
    affectnet_row,
    link_out,
    make_affectnet,
    make_affectnet8,
    moved_below,
    npy,
    put,
    refused,
    tally,
)


@pytest.mark.parametrize("images", ["", "Manually_Annotated_Images", None])
@pytest.mark.parametrize("tables", ["", "Manually_Annotated_file_lists"])
def test_affectnet_original(tmp_path: Path, images: str | None, tables: str) -> None:
    where = {} if images is None else {"images": images}
    dataset = read(
        "affectnet", make_affectnet(tmp_path, tables=tables, valid_header=False, **where)
    )
    assert tally(dataset) == {("train", n): 3 for n in AFFECTNET_CLASSES} | {
        ("test", n): 1 for n in AFFECTNET_CLASSES
    }
    assert all(isinstance(s.image, Path) and s.image.is_file() for s in dataset.samples)
    by_id = {s.id: s for s in dataset.samples}
    assert [by_id[f"0/training{k}.jpg"].label for k in range(8)] == list(AFFECTNET_CLASSES)
    assert by_id["2/training7.jpg"].box == (10, 20, 40, 60)
    assert len(dataset.notes) == 1
    assert dataset.notes[0].startswith("images annotated as none, uncertain or no face, left out: ")


def test_affectnet_tells_what_is_odd(tmp_path: Path) -> None:
    make_affectnet(
        tmp_path,
        affectnet_row("0/flat.jpg", 1, "5,5,0,10"),
        affectnet_row("0/odd.jpg", 2, "a,b,c,d"),
        affectnet_row("0/far.jpg", 2, "1,1,1e7,1"),
        images="",
    )
    for name in ("0/flat.jpg", "0/odd.jpg", "0/far.jpg", "1/stray.jpg"):
        put(tmp_path / name)
    (tmp_path / "2/training0.jpg").unlink()
    dataset = read("affectnet", tmp_path, max_per_class=0)
    assert dataset.size == 35
    assert dataset.notes[1:] == (
        "annotated images that are not there: 1 (2/training0.jpg)",
        "images without a usable face box: 3 (0/flat.jpg, 0/odd.jpg, 0/far.jpg)",
        "images without an annotation, left out: 1 (1/stray.jpg)",
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (affectnet_row("0/a.jpg", 11), "training.csv line 35: the expression is '11'"),
        (affectnet_row("0/a.jpg", "happy"), "line 35"),
        (affectnet_row("0/a.jpg", ""), "line 35"),
        ("0/a.jpg,1,2", "line 35: 3 columns, expected at least 7"),
        (affectnet_row("0/training0.jpg", 0), "line 35: 0/training0.jpg is listed twice"),
        (
            affectnet_row("0/validation0.jpg", 0),
            "validation.csv line 2: 0/validation0.jpg is listed twice",
        ),
        (affectnet_row("../a.jpg", 0), "line 35: '../a.jpg' is no plain path"),
        (affectnet_row("/etc/passwd", 0), "is no plain path"),
        (affectnet_row("0\\a.jpg", 0), "is no plain path"),
        (affectnet_row("0//a.jpg", 0), "is no plain path"),
        (affectnet_row("0/\x07.jpg", 0), "is no plain path"),
        (affectnet_row("0" * 100_000, 0), "is no plain path"),
        (affectnet_row("0/training0.jpg", "1" * 100_000), "line 35"),
    ],
)
def test_affectnet_mistakes(tmp_path: Path, line: str, says: str) -> None:
    message = refused(
        "affectnet", make_affectnet(tmp_path, line, affectnet_row("0/b.jpg", 12)), says
    )
    assert "training.csv line 36: the expression is '12'" in message
    assert len(message) < 1000


@pytest.mark.parametrize("tail", ["", affectnet_row('"0/c.jpg', 0), affectnet_row('"0/c.jpg"x', 0)])
def test_a_stray_quotation_mark_takes_no_rows(tmp_path: Path, tail: str) -> None:
    make_affectnet(tmp_path, affectnet_row('"0/a.jpg', 0), affectnet_row("0/b.jpg", 0), tail)
    refused("affectnet", tmp_path, "training.csv line 35 is no CSV")


def test_affectnet_tables_with_odd_lines(tmp_path: Path) -> None:
    whole = read("affectnet", make_affectnet(tmp_path, tables="Manually_Annotated_file_lists"))
    table = tmp_path / "Manually_Annotated_file_lists/training.csv"
    table.write_text(f"\ufeff{table.read_text()}\n   \n\n")
    put(tmp_path / "Manually_Annotated/Manually_Annotated_Images/0/notes.txt")
    assert read("affectnet", tmp_path) == whole
    text = table.read_text()
    table.write_text(text.replace("valence", "expression", 1))
    refused("affectnet", tmp_path, "training.csv has two columns of one name: expression")
    link_out("Manually_Annotated_file_lists/training.csv", "table.csv")(tmp_path)
    refused("affectnet", tmp_path, "training.csv is a link that leads out")


def test_long_names_are_not_there(tmp_path: Path) -> None:
    more = [affectnet_row(name, 0) for name in (f"0/{'x' * 300}.jpg", f"{'y' * 300}/0.jpg")]
    dataset = read("affectnet", make_affectnet(tmp_path, *more))
    assert "annotated images that are not there: 2 (0/xxx" in dataset.notes[1]
    assert len(dataset.notes[1]) < 500


def test_affectnet_needs_both_tables_filled(tmp_path: Path) -> None:
    put(make_affectnet(tmp_path / "old") / "training.csv")
    refused("affectnet", tmp_path / "old", "has no train images")
    for file in (make_affectnet8(tmp_path / "new") / "val_set/annotations").glob("*_exp.npy"):
        file.unlink()
    refused("affectnet", tmp_path / "new", "has no test images")


def test_affectnet_takes_part_of_large_classes(tmp_path: Path) -> None:
    make_affectnet(tmp_path)
    few = read("affectnet", tmp_path, max_per_class=2)
    assert tally(few) == {("train", n): 2 for n in AFFECTNET_CLASSES} | {
        ("test", n): 1 for n in AFFECTNET_CLASSES
    }
    assert "training images beyond 2 a class, left out: 8 (" in few.notes[1]
    assert read("affectnet", tmp_path, max_per_class=2) == few
    assert read("affectnet", tmp_path, max_per_class=2, split_seed=1) != few
    # neither another place nor a missing file changes the choice
    (tmp_path / "Manually_Annotated/Manually_Annotated_Images/0/training0.jpg").unlink()
    shutil.move(tmp_path / "Manually_Annotated/Manually_Annotated_Images", tmp_path)
    again = read("affectnet", tmp_path, max_per_class=2)
    assert [s.id for s in again.samples] == [s.id for s in few.samples]
    refused("affectnet", tmp_path, "--max-per-class is -1", max_per_class=-1)


def test_affectnet_eight_classes(tmp_path: Path) -> None:
    make_affectnet8(tmp_path)
    put(tmp_path / "train_set/images/99.jpg")
    put(tmp_path / "train_set/annotations/98_exp.npy", npy("3"))
    put(tmp_path / "train_set/annotations/97_exp.npy", npy("8"))
    put(tmp_path / "train_set/annotations/96_EXP.NPY", npy("1"))
    (tmp_path / "val_set/annotations/95_exp.npy").mkdir()
    (tmp_path / "val_set/images/94.jpg").symlink_to("94.jpg")
    dataset = read("affectnet", tmp_path)
    wanted = {("train", n): 2 for n in AFFECTNET_CLASSES} | {
        ("test", n): 1 for n in AFFECTNET_CLASSES
    }
    assert tally(dataset) == wanted | {("train", "surprise"): 3}
    assert dataset.notes == (
        "images annotated as none, uncertain or no face, left out: 1 (train_set/images/97.jpg)",
        "annotated images that are not there: 1 (train_set/images/98.jpg)",
        "images without an annotation, left out: 1 (train_set/images/99.jpg)",
        "odd annotations, folders or not named as 0_exp.npy, left out: 2 "
        "(train_set/annotations/96_EXP.NPY, val_set/annotations/95_exp.npy)",
    )
    moved_below(tmp_path, "affectnet")


def test_affectnet_annotations_are_not_run(tmp_path: Path) -> None:
    root, fired = make_affectnet8(tmp_path / "in"), tmp_path / "fired"
    wrong = {
        "89": npy("1")[:-4] + b"\xff" * 4,  # no character
        "90": npy("11"),
        "91": npy(["1", "2"]),
        "92": b"",
        "93": npy(2.5),
        "94": npy(Bomb(fired), pickled=True),
        "95": pickle.dumps(Bomb(fired)),
        "96": npy(complex(1, 0)),
    }
    for name, content in wrong.items():
        put(root / f"train_set/annotations/{name}_exp.npy", content)
    message = refused("affectnet", root, "annotations/90_exp.npy: the expression is '11'")
    assert all(f"/{name}_exp.npy: " in message for name in wrong)
    assert not fired.exists()


def test_affectnet_refusals(tmp_path: Path) -> None:
    refused("affectnet", tmp_path, "neither training.csv nor train_set")
    make_affectnet(tmp_path)
    put(tmp_path / "Manually_Annotated_file_lists/training.csv")
    refused("affectnet", tmp_path, "more than once")
    shutil.rmtree(tmp_path / "Manually_Annotated_file_lists")
    shutil.rmtree(tmp_path / "Manually_Annotated")
    refused("affectnet", tmp_path, "none of the 32 annotated images")
    (tmp_path / "validation.csv").unlink()
    refused("affectnet", tmp_path, "no validation.csv")
    (tmp_path / "training.csv").unlink()
    shutil.rmtree(make_affectnet8(tmp_path) / "val_set/annotations")
    refused("affectnet", tmp_path, "no val_set/annotations")


def test_missing_images_stay_rows(tmp_path: Path) -> None:
    """No row is dropped for want of a file: cropping says what became of it."""
    whole = read("affectnet", make_affectnet8(tmp_path))
    (tmp_path / "train_set/images/3.jpg").unlink()
    assert read("affectnet", tmp_path).samples == whole.samples
