"""A folder of images: `labels.csv`, or one sub-folder for each class.

    ROOT/labels.csv                  columns image, expression, subject[, split]
    ROOT/[images/]NAME.jpg           image paths in it are below ROOT or ROOT/images

    ROOT/CLASS/NAME.jpg              or
    ROOT/train/CLASS/NAME.jpg  and  ROOT/test/CLASS/NAME.jpg

Without a split, about 30 % of the subjects (of the images, where subjects are
unknown) become the test set.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from cache.errors import Refused
from stages.datasets.files import (
    IMAGE_SUFFIXES,
    Tree,
    is_dir,
    is_file,
    listed,
    notes,
    own_file,
    read_csv,
)
from stages.datasets.sample import About, Dataset, Sample, Split, build, refuse_mistakes, short

ABOUT = About(
    "Images of your own",
    "CLASS/IMAGE\n"
    "train/CLASS/IMAGE and test/CLASS/IMAGE\n"
    "labels.csv (columns image, expression, subject[, split]) and [images/]IMAGE",
    "nowhere: it is yours",
)
_EXPECTED = "labels.csv (image, expression, subject[, split]) or ROOT/[train|test/]CLASS/IMAGE"

_SPLIT_FOLDERS: dict[str, Split] = {"train": "train", "test": "test"}
_COLUMNS = ("image", "expression", "subject")


def read(root: Path, *, split_seed: int = 0) -> Dataset:
    """Raises Refused: no images, or a `labels.csv` with mistakes (all are named)."""
    return read_as("folder", root, seed=split_seed)


def read_as(
    name: str, root: Path, classes: tuple[str, ...] | None = None, seed: int = 0
) -> Dataset:
    """As `read`, under another name and with a fixed order of classes."""
    if is_file(root / "labels.csv"):
        samples = _read_table(root, own_file(root, "labels.csv"))
        remarks = _unnamed(root, samples)
    else:
        samples, remarks = _read_tree(root)
    if not samples:
        raise Refused(
            f"There are no images in {root}. Expected {_EXPECTED}, "
            f"with files ending in {', '.join(IMAGE_SUFFIXES)}."
            + "".join(f"\n  {remark}" for remark in remarks)
        )
    return build(name, samples, classes, remarks, seed)


# --- labels.csv ---


def _read_table(root: Path, table: Path) -> list[Sample]:
    samples, mistakes, places = [], [], dict[Path, str]()
    for number, row in read_csv(table, _COLUMNS):
        try:
            sample, place = _parse_row(root, row)
            if place in places:
                same = f"is the same file as {short(places[place])}"
                again = "is listed twice" if places[place] == sample.id else same
                raise ValueError(f"{short(sample.id)} {again}")
            places[place] = sample.id
            samples.append(sample)
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    with_split = sum(sample.split is not None for sample in samples)
    if 0 < with_split < len(samples):
        mistakes.append(f"{len(samples) - with_split} rows have no split, the others have one")
    refuse_mistakes(table, mistakes)
    return samples


def _parse_row(root: Path, row: dict[str, str]) -> tuple[Sample, Path]:
    """And the file that is read in the end, which may have more than one name."""
    image, label, subject, split = (row.get(column, "").strip() for column in (*_COLUMNS, "split"))
    shown = short(image)
    if not image:
        raise ValueError("the image is empty")
    if not label:
        raise ValueError(f"the expression of {shown} is empty")
    inside = PurePosixPath(image)
    if inside.is_absolute() or ".." in inside.parts or "\\" in image or not image.isprintable():
        raise ValueError(f"{short(ascii(image))} is no plain path below the folder of the table")
    for column, text in (("expression", label), ("subject", subject)):
        if not text.isprintable():
            raise ValueError(f"the {column} of {shown} is no plain text: {short(ascii(text))}")
    places = (root / inside, root / "images" / inside)
    path = next((place for place in places if is_file(place)), None)
    if path is None:
        raise ValueError(f"there is no file {shown} in {root} or {root / 'images'}")
    place = path.resolve()
    if not place.is_relative_to(root.resolve()):
        raise ValueError(f"{shown} is a link that leads out of {root}")
    if split and split not in _SPLIT_FOLDERS:
        raise ValueError(f"the split of {shown} is {short(ascii(split))}, expected train or test")
    return Sample(str(inside), path, label, subject, _SPLIT_FOLDERS.get(split)), place


def _unnamed(root: Path, samples: list[Sample]) -> list[str]:
    """A note on images that lie where the table's do and are not in it."""
    named = {sample.image for sample in samples}
    found = [image for folder in (".", "images") for image in _images(root, folder)]
    left = [image.removeprefix("./") for image in found if root / image not in named]
    return notes({"images that labels.csv does not name, left out": left})


# --- folders ---


def _read_tree(root: Path) -> tuple[list[Sample], list[str]]:
    """And notes on what was left out."""
    top = _folders(root)
    levels: dict[str, Split | None] = {"": None}
    beside: list[str] = []
    if all(name in top for name in _SPLIT_FOLDERS):
        levels = {f"{name}/": split for name, split in _SPLIT_FOLDERS.items()}
        beside = [name for name in top if name not in _SPLIT_FOLDERS]
    classes = {
        f"{level}{name}": split
        for level, split in levels.items()
        for name in _folders(root / level)
    }
    tree = Tree(root, *classes)  # a whole class may be a link to a folder elsewhere
    samples, others = [], list[str]()
    for folder, split in classes.items():
        label = folder.rpartition("/")[2]
        images = tree.files(folder, IMAGE_SUFFIXES)  # without any (a cache, notes) it is no class
        if images and not label.isprintable():
            tree.mistake(f"rename the folder {short(ascii(folder))}: the name is not plain text")
        if images:
            there = set(images)
            others += [f"{folder}/{file}" for file in tree.files(folder) if file not in there]
        samples += [
            Sample(f"{folder}/{image}", root / folder / image, label, "", split) for image in images
        ]
    refuse_mistakes(root, tree.mistakes)
    found = {
        "files that are no images by their names, left out": others,
        "folders beside train and test that hold images, left out": [
            name for name in beside if _images(root, name) or _deeper(root, name)
        ],
        "images deeper than a class folder, left out": [
            image for folder in classes for image in _deeper(root, folder)
        ],
    }
    return samples, notes(found)


def _folders(path: Path) -> list[str]:
    return [entry.name for entry in listed(path) if is_dir(entry)]


def _images(root: Path, folder: str) -> list[str]:
    entries = (e for e in _peek(root / folder) if e.name.lower().endswith(IMAGE_SUFFIXES))
    return [f"{folder}/{entry.name}" for entry in entries if is_file(entry)]


def _deeper(root: Path, folder: str) -> list[str]:
    """Images in the folders of a folder."""
    names = (f"{folder}/{entry.name}" for entry in _peek(root / folder) if is_dir(entry))
    return [image for name in names for image in _images(root, name)]


def _peek(folder: Path) -> list[os.DirEntry[str]]:
    """For a note only: a folder that cannot be listed is no reason to refuse."""
    try:
        return listed(folder)
    except Refused:
        return []
