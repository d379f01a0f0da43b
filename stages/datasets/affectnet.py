"""AffectNet, either release, with the large classes thinned out for training.

The original release (boxes of the faces, images as found on the web):

    ROOT/[Manually_Annotated_file_lists/]training.csv and validation.csv
    ROOT/[[Manually_Annotated/]Manually_Annotated_Images/]389/NAME.jpg

The release of eight classes (faces cut out; its val_set is known to hold
3,999 images, not 4,000):

    ROOT/train_set/images/0.jpg, ROOT/train_set/annotations/0_exp.npy
    ROOT/val_set/images/0.jpg,   ROOT/val_set/annotations/0_exp.npy

Validation is the test set, as in all published work: its test set is not
given out.  At most 15,000 training images a class are taken, chosen by their
ids alone, so that missing files and other classes change nothing.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from cache.errors import Refused
from stages.datasets.affectnet_files import Release, Row, eight_classes, original
from stages.datasets.files import (
    elsewhere,
    expected,
    is_dir,
    is_file,
    notes,
    own_file,
    require,
)
from stages.datasets.sample import About, Dataset, Sample, build, hash_order, some

_TRAIN = {
    "neutral": 15_000,
    "anger": 15_000,
    "contempt": 3_750,
    "disgust": 3_803,
    "fear": 6_378,
    "happiness": 15_000,
    "sadness": 15_000,
    "surprise": 14_090,
}

ABOUT = About(
    "AffectNet, faces in the wild: eight expressions, validation as the test set",
    "training.csv and validation.csv, or in Manually_Annotated_file_lists/\n"
    "Manually_Annotated_Images/389/NAME.jpg, or in Manually_Annotated/, or 389/NAME.jpg\n"
    "or, the release of eight classes:\n"
    "train_set/images/0.jpg and train_set/annotations/0_exp.npy\n"
    "val_set/images/0.jpg and val_set/annotations/0_exp.npy",
    "https://mohammadmahoor.com/pages/databases/affectnet/ (free for research, an agreement "
    "to sign)",
    tuple(_TRAIN),
    {"train": _TRAIN, "test": dict.fromkeys(_TRAIN, 500)},
)

_LISTS = "Manually_Annotated_file_lists"
_TABLES = ("training.csv", "validation.csv")
_FOLDERS = ("train_set/images", "train_set/annotations", "val_set/images", "val_set/annotations")
_SIGNS = ("train_set", _LISTS, "training.csv")
"""One of them lies below the root of a release."""


def read(root: Path, *, split_seed: int = 0, max_per_class: int = 15_000) -> Dataset:
    """`max_per_class`: training images at most; 0 takes all.

    Raises Refused: neither release, or both; annotations with mistakes; no images.
    """
    if max_per_class < 0:
        raise Refused(f"--max-per-class is {max_per_class}, expected 0 (all) or more.")
    release = _release(root)
    rows = _thin_out(release.rows, max_per_class, split_seed)
    if not rows:
        raise Refused(f"No image in {root} is annotated with an expression.\n{expected(ABOUT)}")
    missing = [row.id for row in rows if row.file not in release.present]
    if len(missing) == len(rows):
        raise Refused(
            f"There is none of the {len(rows)} annotated images in {release.folder}, "
            f"such as {some(missing, 1)}.\n{expected(ABOUT)}"
        )
    samples = [
        Sample(row.id, release.folder / row.file, row.label, "", row.split, row.box) for row in rows
    ]
    dropped = {row.id for row in release.rows} - {row.id for row in rows}
    found = {
        "images annotated as none, uncertain or no face, left out": release.skipped,
        f"training images beyond {max_per_class} a class, left out": sorted(dropped),
        "annotated images that are not there": missing,
        "images without a usable face box": [
            row.id for row in rows if release.boxes and row.box is None
        ],
        "images without an annotation, left out": release.unlisted,
        "odd annotations, folders or not named as 0_exp.npy, left out": release.odd,
    }
    return build("affectnet", samples, ABOUT.classes, notes(found))


def _release(root: Path) -> Release:
    eight = [name for name in ("train_set", "val_set") if is_dir(root / name)]
    tables = [
        place for place in (root, root / _LISTS) if any(is_file(place / name) for name in _TABLES)
    ]
    if len(tables) + bool(eight) > 1:
        places = ", ".join([*eight, *(str(place) for place in tables)])
        raise Refused(f"{root} holds AffectNet more than once ({places}). Leave only one there.")
    if eight:
        require(root, _FOLDERS, ABOUT)
        return eight_classes(root)
    if tables:
        require(tables[0], _TABLES, ABOUT)
        return original(root, [own_file(tables[0], name) for name in _TABLES])
    hint = next(filter(None, (elsewhere(root, (sign,)) for sign in _SIGNS)), "")
    raise Refused(
        f"There is neither training.csv nor train_set in {root}.{hint}\n{expected(ABOUT)}"
    )


def _thin_out(rows: list[Row], most: int, seed: int) -> list[Row]:
    """At most so many training rows of each class."""
    if not most:
        return rows
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.split == "train":
            classes[row.label].append(row.id)
    kept = {
        name
        for ids in classes.values()
        for name in (hash_order(ids, seed)[:most] if len(ids) > most else ids)
    }
    return [row for row in rows if row.split != "train" or row.id in kept]
