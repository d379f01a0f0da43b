"""Folders and tables as people have them, mistakes included."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import Refused
from stages.datasets import read
from stages.datasets.files import Tree
from stages.datasets.sample import Sample, split_by_subject


def _table(folder: Path, *lines: str, header: str = "image,expression,subject") -> Path:
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def test_class_folders(folder: Path) -> None:
    dataset = read("folder", folder)
    assert dataset.classes == ("calm", "tense")
    assert [s.id for s in dataset.samples] == sorted(s.id for s in dataset.samples)
    assert Counter(s.label for s in dataset.samples) == {"calm": 3, "tense": 3}
    assert {s.split for s in dataset.samples} == {"train", "test"}


def test_split_folders(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "sets"
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for name in ("calm", "tense"):
            (root / split / name).symlink_to(folder / name)
    dataset = read("folder", root)
    assert Counter((s.split, s.label) for s in dataset.samples) == {
        (split, label): 3 for split in ("train", "test") for label in ("calm", "tense")
    }


def test_table_finds_images_below_images(folder: Path) -> None:
    root = _table(
        folder.parent, "calm/0.png,a,s1", "calm/1.png,b,s1", "tense/0.png,a,s2", "tense/1.png,b,s2"
    )
    dataset = read("folder", root)
    assert [(s.id, s.label, s.subject) for s in dataset.samples][:2] == [
        ("calm/0.png", "a", "s1"),
        ("calm/1.png", "b", "s1"),
    ]
    assert {s.subject for s in dataset.samples if s.split == "train"} != {"s1", "s2"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gone.png,a,s", "line 3: there is no file gone.png"),
        (f"{'x' * 9999}.png,a,s", "line 3: there is no file xxx"),
        ("images/calm/0.png,a,s", "line 3: images/calm/0.png is the same file as calm/0.png"),
        ("calm/1.png,a\x1b[2J,s", "line 3: the expression of calm/1.png is no plain text"),
        ("calm/1.png,a,s\x00", "line 3: the subject of calm/1.png is no plain text"),
        ('"calm/1.png,a,s\ncalm/2.png,a,s', "line 3 is no CSV as expected"),
        ('calm/1.png,a,"s\ncalm/2.png,a,s"', "line 3 is no CSV as expected: .* line break"),
        ("calm/1.png,,s", "line 3: the expression of calm/1.png is empty"),
        (",a,s", "line 3: the image is empty"),
        ("calm/0.png,a,s", "line 3: calm/0.png is listed twice"),
        ("../../etc/passwd,a,s", "no plain path"),
        ("/etc/passwd,a,s", "no plain path"),
    ],
)
def test_mistakes_in_a_table_are_named_by_line(folder: Path, line: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as caught:
        read("folder", _table(folder.parent, "calm/0.png,a,s", line))
    assert len(str(caught.value)) < 1000


def test_all_mistakes_are_reported_together(folder: Path) -> None:
    with pytest.raises(Refused) as caught:
        read("folder", _table(folder, "x.png,a,s", "y.png,a,s", "calm/0.png,,s"))
    assert str(caught.value).count("line ") == 3


def test_no_link_leads_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(Refused, match="leads out"):
        read("folder", _table(folder, "link.png,a,s"))


def test_no_link_in_a_class_folder_leads_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "calm/inside.png").symlink_to("0.png")
    assert read("folder", folder).size == 7
    (folder / "calm/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(Refused, match=r"calm/link\.png is a link that leads out"):
        read("folder", folder)


def test_no_table_leads_out(folder: Path, tmp_path: Path) -> None:
    (folder / "labels.csv").symlink_to(_table(tmp_path) / "labels.csv")
    with pytest.raises(Refused, match=r"labels\.csv is a link that leads out"):
        read("folder", folder)


def test_a_column_is_named_once(folder: Path) -> None:
    with pytest.raises(Refused, match="two columns of one name: subject"):
        read("folder", _table(folder, header="image,expression,subject,subject"))


def test_one_subject_cannot_be_split(folder: Path) -> None:
    with pytest.raises(Refused, match="a split by subject needs two"):
        read("folder", _table(folder, "calm/0.png,a,s", "calm/1.png,b,s"))


def test_hidden_files_and_loops_are_no_images(folder: Path) -> None:
    whole = read("folder", folder)
    for name in ("calm/._0.png", ".hidden.png", "calm/Thumbs.db"):
        (folder / name).write_bytes(b"x")
    (folder / "calm/loop.png").symlink_to("loop.png")
    (folder / "turn").symlink_to("turn")
    assert read("folder", folder) == whole


def test_images_left_out_are_noted(folder: Path) -> None:
    assert read("folder", folder).notes == ()
    (folder / "calm/more/most").mkdir(parents=True)
    for name in ("calm/more/0.png", "calm/more/notes.txt", "calm/more/most/0.png"):
        (folder / name).write_bytes(b"x")
    deeper = "images deeper than a class folder, left out: 1 ({}calm/more/0.png)"
    assert read("folder", folder).notes == (deeper.format(""),)
    root = folder.parent / "sets"
    for name in ("train", "test", "val"):
        shutil.copytree(folder, root / name)
    shutil.rmtree(root / "test/calm/more")
    (root / "notes").mkdir()
    assert read("folder", root).notes == (
        "folders beside train and test that hold images, left out: 1 (val)",
        deeper.format("train/"),
    )


@pytest.mark.parametrize("header", ["image,label,subject", "image,expression", ""])
def test_missing_columns_are_named(folder: Path, header: str) -> None:
    with pytest.raises(Refused, match="has no column"):
        read("folder", _table(folder, header=header))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="There is no folder"):
        read("folder", tmp_path / "nowhere")
    with pytest.raises(Refused, match="There is no folder xxx"):
        read("folder", Path("x" * 300))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no image")
    with pytest.raises(Refused, match="no images"):
        read("folder", tmp_path)
    with pytest.raises(Refused, match="Known: ckplus, rafdb"):
        read("imagenet", tmp_path)


def test_a_tree_at_the_root_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("a")
    tree = Tree(Path("/"))
    assert tree.files(str(tmp_path.relative_to("/"))) == ["a", "link"]
    assert not tree.mistakes


def test_each_mistake_is_kept_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for k in range(200_000):  # seconds, if each is looked for among all
        tree.mistake(f"{k // 2}")
    assert len(tree.mistakes) == 100_000


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["x", "y"])),
        min_size=30,
        max_size=120,
    )
)
def test_split_keeps_subjects_apart(rows: list[tuple[str, str]]) -> None:
    samples = [Sample(f"{k}", Path(), label, who, None) for k, (who, label) in enumerate(rows)]
    split = split_by_subject(samples)
    sides = {(s.subject, s.split) for s in split}
    assert len(sides) == len({who for who, _ in rows})
    shuffled = split_by_subject(samples[::-1])
    assert {s.id: s.split for s in shuffled} == {s.id: s.split for s in split}


def test_split_keeps_proportions() -> None:
    """Without subjects, 30 % of each class, within one image in ten."""
    samples = [
        Sample(f"{label}{k}", Path(), label, "", None) for label in "abc" for k in range(100)
    ]
    tested = Counter(s.label for s in split_by_subject(samples) if s.split == "test")
    assert all(27 <= tested[label] <= 33 for label in "abc"), tested


def test_what_is_left_out_is_said(folder: Path) -> None:
    """Files that are no images by their names; images that a table does not name."""
    (folder / "calm" / "0.heic").write_bytes(b"x")
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("no class")
    notes = read("folder", folder).notes
    assert notes == ("files that are no images by their names, left out: 1 (calm/0.heic)",)
    (folder / "odd.png").write_bytes(b"x")
    table = _table(
        folder,
        "calm/0.png,a,s1,train",
        "tense/0.png,b,s2,test",
        header="image,expression,subject,split",
    )
    assert read("folder", table).notes == (
        "images that labels.csv does not name, left out: 1 (odd.png)",
    )
