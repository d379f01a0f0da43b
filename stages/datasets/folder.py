"""A folder of images: `labels.csv`, or one sub-folder for each class.

    ROOT/labels.csv                  columns image, expression, subject[, split]
    ROOT/[images/]NAME.jpg           image paths in it are below ROOT or ROOT/images

    ROOT/CLASS/NAME.jpg              or
    ROOT/train/CLASS/NAME.jpg  and  ROOT/test/CLASS/NAME.jpg

Without a split, about 30 % of the subjects (of the images, where subjects are
unknown) become the test set.
"""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from cache.errors import Refused
from stages.datasets.sample import About, Dataset, Sample, Split, build, refuse_mistakes

ABOUT = About(
    "Images of your own",
    "CLASS/IMAGE\n"
    "train/CLASS/IMAGE and test/CLASS/IMAGE\n"
    "labels.csv (columns image, expression, subject[, split]) and [images/]IMAGE",
    "nowhere: it is yours",
)
_EXPECTED = "labels.csv (image, expression, subject[, split]) or ROOT/[train|test/]CLASS/IMAGE"

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SPLIT_FOLDERS: dict[str, Split] = {"train": "train", "test": "test"}
_COLUMNS = ("image", "expression", "subject")


def read(root: Path, *, split_seed: int = 0) -> Dataset:
    """Raises Refused: no images, or a `labels.csv` with mistakes (all are named)."""
    return read_as("folder", root, seed=split_seed)


def read_as(
    name: str, root: Path, classes: tuple[str, ...] | None = None, seed: int = 0
) -> Dataset:
    """As `read`, under another name and with a fixed order of classes."""
    table = root / "labels.csv"
    samples = _read_table(table) if table.is_file() else _read_tree(root)
    if not samples:
        raise Refused(
            f"There are no images in {root}. Expected {_EXPECTED}, "
            f"with files ending in {', '.join(sorted(SUFFIXES))}."
        )
    dataset = build(name, samples, classes, seed=seed)
    for split in ("train", "test"):
        if not any(sample.split == split for sample in dataset.samples):
            raise Refused(f"{root} has no {split} images. Expected {_EXPECTED}.")
    return dataset


def _read_table(table: Path) -> list[Sample]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            missing = [c for c in _COLUMNS if c not in (reader.fieldnames or ())]
            lines = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"{table} is no CSV file in UTF-8: {error}. Save it as UTF-8.") from None
    if missing:
        raise Refused(
            f"{table} has no column {', '.join(missing)}. "
            f"Its first line must name {', '.join(_COLUMNS)} (and split, if there is one)."
        )
    samples, mistakes, ids = [], [], set[str]()
    for number, row in lines:
        try:
            sample = _parse_row(table.parent, row)
            if sample.id in ids:
                raise ValueError(f"{sample.id} is listed twice")
            ids.add(sample.id)
            samples.append(sample)
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    with_split = sum(sample.split is not None for sample in samples)
    if 0 < with_split < len(samples):
        mistakes.append(f"{len(samples) - with_split} rows have no split, the others have one")
    refuse_mistakes(table, mistakes)
    return samples


def _parse_row(root: Path, row: dict[str, str | None]) -> Sample:
    image, label = (row["image"] or "").strip(), (row["expression"] or "").strip()
    if not image:
        raise ValueError("the image is empty")
    if not label:
        raise ValueError(f"the expression of {image} is empty")
    inside = PurePosixPath(image)
    if inside.is_absolute() or ".." in inside.parts or "\\" in image or not image.isprintable():
        raise ValueError(f"{image!r} is no plain path below the folder of the table")
    places = (root / inside, root / "images" / inside)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ValueError(f"there is no file {image} in {root} or {root / 'images'}")
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{image} is a link that leads out of {root}")
    split = (row.get("split") or "").strip()
    if split and split not in _SPLIT_FOLDERS:
        raise ValueError(f"the split of {image} is {split!r}, expected train or test")
    subject = (row["subject"] or "").strip()
    return Sample(str(inside), path, label, subject, _SPLIT_FOLDERS.get(split))


def _read_tree(root: Path) -> list[Sample]:
    if all((root / name).is_dir() for name in _SPLIT_FOLDERS):
        levels: list[tuple[Path, Split | None]] = [
            (root / name, split) for name, split in _SPLIT_FOLDERS.items()
        ]
    else:
        levels = [(root, None)]
    return [
        sample
        for level, split in levels
        for folder in sorted(p for p in level.iterdir() if p.is_dir() and p.name[0] != ".")
        for sample in _read_class(root, folder, split)
    ]


def _read_class(root: Path, folder: Path, split: Split | None) -> list[Sample]:
    """The images directly in `folder`; a folder without any (a cache, notes) is no class."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    strange = [p for p in files if not str(p.relative_to(root)).isprintable()]
    if strange:
        raise Refused(f"Rename this file, its name is not plain text: {str(strange[0])!a}.")
    return [Sample(p.relative_to(root).as_posix(), p, folder.name, "", split) for p in files]
