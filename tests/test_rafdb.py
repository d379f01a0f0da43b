"""RAF-DB: both kinds of images, the list of labels, and mistakes in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages.datasets import read
from tests.replicas import RAFDB_LIST, link_out, make_rafdb, moved_below, put, refused, tally


@pytest.mark.parametrize("images", ["original", "aligned"])
def test_rafdb(tmp_path: Path, images: str) -> None:
    make_rafdb(tmp_path, images=images)
    put(tmp_path / f"basic/Image/{images}/extra.jpg")
    (tmp_path / f"basic/Image/{images}/test_0004{'_aligned' * (images == 'aligned')}.jpg").unlink()
    dataset = read("rafdb", tmp_path, images=images)
    names = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    assert tally(dataset) == {("train", n): 2 for n in names} | {("test", n): 1 for n in names}
    by_id = {s.id.split("/")[-1].split(".")[0].removesuffix("_aligned"): s for s in dataset.samples}
    assert [by_id[f"train_{code:05}"].label for code in range(1, 8)] == list(names)
    assert sum(isinstance(s.image, Path) and s.image.is_file() for s in dataset.samples) == 20
    assert len(dataset.notes) == 2
    assert "not there: 1 (test_0004" in dataset.notes[0]
    assert "left out: 1 (extra.jpg)" in dataset.notes[1]
    if images == "original":
        moved_below(tmp_path, "rafdb")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("train_00099.jpg 8", "line 22: 'train_00099.jpg 8', expected"),
        ("train_00099.jpg 0", "line 22"),
        ("train_00099.jpg", "line 22"),
        ("train_00001.jpg 1", "line 22: train_00001.jpg is listed twice"),
        ("../train_00001.jpg 1", "line 22"),
        ("/etc/train_00001.jpg 1", "line 22"),
        ("valid_00001.jpg 1", "line 22"),
        ("\x1b[2Jtrain_00099.jpg 1", "line 22: '\\x1b"),
    ],
)
def test_rafdb_mistakes(tmp_path: Path, line: str, says: str) -> None:
    message = refused("rafdb", make_rafdb(tmp_path, line, "nonsense"), says)
    assert "line 23: 'nonsense'" in message


def test_rafdb_needs_training_images(tmp_path: Path) -> None:
    table = make_rafdb(tmp_path) / RAFDB_LIST
    put(table, "\n".join(line for line in table.read_text().splitlines() if "test" in line))
    refused("rafdb", tmp_path, "has no train images")


def test_rafdb_list_stays_inside(tmp_path: Path) -> None:
    make_rafdb(tmp_path / "in")
    put(tmp_path / "out/list.txt", (tmp_path / "in" / RAFDB_LIST).read_text())
    link_out(RAFDB_LIST, "out/list.txt")(tmp_path / "in")
    refused("rafdb", tmp_path / "in", "list_patition_label.txt is a link that leads out")
    # the folder that holds it has a name in the layout: people may keep it elsewhere
    shutil.move(make_rafdb(tmp_path / "far") / "basic", tmp_path / "basic")
    (tmp_path / "far/basic").symlink_to(tmp_path / "basic")
    assert read("rafdb", tmp_path / "far").size == 21


def test_rafdb_names_are_cut(tmp_path: Path) -> None:
    name = f"train_{'0' * 5000}1.jpg"
    assert len(refused("rafdb", make_rafdb(tmp_path, f"{name} 1", f"{name} 2"), "twice")) < 1000


def test_rafdb_refusals(tmp_path: Path) -> None:
    make_rafdb(tmp_path)
    refused("rafdb", tmp_path, "'cropped', expected original or aligned", images="cropped")
    refused("rafdb", tmp_path, "There is original: use --images original", images="aligned")
    link_out("basic/Image/original/train_00001.jpg", "x.jpg")(tmp_path)
    refused("rafdb", tmp_path, "leads out")
    shutil.rmtree(tmp_path / "basic/Image/original")
    (tmp_path / "basic/Image/original").mkdir()
    refused("rafdb", tmp_path, "has none of the 21 images")
    (tmp_path / RAFDB_LIST).write_bytes(b"\xff\xfe")
    refused("rafdb", tmp_path, "UTF-8")
    (tmp_path / RAFDB_LIST).unlink()
    refused("rafdb", tmp_path, f"There is no {RAFDB_LIST}")
