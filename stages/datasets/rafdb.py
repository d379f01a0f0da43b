"""RAF-DB, the single-label subset: one list, the split is in the names.

    ROOT/basic/EmoLabel/list_patition_label.txt       "train_00001.jpg 5"; "patition" is theirs
    ROOT/basic/Image/original/train_00001.jpg         as found on the web
    ROOT/basic/Image/aligned/train_00001_aligned.jpg  100 x 100 pixels, cut out by the authors

15,339 images.  It does not say who is shown.
"""

from __future__ import annotations

import re
from pathlib import Path

from cache.errors import Refused
from stages.datasets.files import Tree, expected, is_dir, lines, notes, own_file, require
from stages.datasets.sample import (
    About,
    Dataset,
    Sample,
    Split,
    build,
    refuse_mistakes,
    short,
    some,
)

_CODES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
_LIST = "basic/EmoLabel/list_patition_label.txt"
_SUFFIX = {"original": "", "aligned": "_aligned"}

ABOUT = About(
    "RAF-DB, real-world affective faces: the seven basic expressions",
    f"{_LIST}\nbasic/Image/original/train_00001.jpg\n"
    "basic/Image/aligned/train_00001_aligned.jpg, for --images aligned",
    "http://www.whdeng.cn/RAF/model1.html (free for research, ask by e-mail)",
    ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise"),
    {
        "train": dict(zip(_CODES, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True)),
        "test": dict(zip(_CODES, (329, 74, 160, 1185, 478, 162, 680), strict=True)),
    },
)


def read(root: Path, *, images: str = "original") -> Dataset:
    """`images`: original or aligned.

    Raises Refused: no list or no images, a list with mistakes, unknown `images`.
    """
    if images not in _SUFFIX:
        raise Refused(f"--images is {images!r}, expected {' or '.join(_SUFFIX)}.")
    require(root, (_LIST,), ABOUT)
    folder = f"basic/Image/{images}"
    _require_images(root, images)
    listed = _read_list(own_file(root, _LIST))
    tree = Tree(root, "basic", "basic/Image", folder)
    there = set(tree.files(folder))
    refuse_mistakes(root, tree.mistakes)
    files = {f"{name}{_SUFFIX[images]}.jpg": label for name, label in listed.items()}
    samples = [
        Sample(f"{folder}/{name}", root / folder / name, label, "", _SPLITS[name.split("_")[0]])
        for name, label in files.items()
    ]
    missing = [name for name in files if name not in there]
    if len(missing) == len(files):
        raise Refused(
            f"{root / folder} has none of the {len(files)} images of {root / _LIST}, "
            f"such as {some(missing, 1)}.\n{expected(ABOUT)}"
        )
    found = {
        "listed images that are not there": missing,
        "files that the list does not name, left out": sorted(there - files.keys()),
    }
    return build("rafdb", samples, ABOUT.classes, notes(found))


def _require_images(root: Path, images: str) -> None:
    if not is_dir(root / "basic/Image" / images):
        others = [name for name in _SUFFIX if is_dir(root / "basic/Image" / name)]
        hint = f" There is {others[0]}: use --images {others[0]}." if others else ""
        raise Refused(f"There is no basic/Image/{images} in {root}.{hint}\n{expected(ABOUT)}")


def _read_list(table: Path) -> dict[str, str]:
    """Name without suffix -> label."""
    labels: dict[str, str] = {}
    mistakes = []
    for number, line in enumerate(lines(table), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"((?:train|test)_[0-9]+)\.jpg\s+([1-7])", line.strip(), re.ASCII)
        if not match:
            shape = '"train_00001.jpg 5" or "test_0001.jpg 4" with a code from 1 to 7'
            mistakes.append(f"line {number}: {line[:80]!a}, expected {shape}")
        elif match[1] in labels:
            mistakes.append(f"line {number}: {short(match[1])}.jpg is listed twice")
        else:
            labels[match[1]] = _CODES[int(match[2]) - 1]
    refuse_mistakes(table, mistakes)
    if not labels:
        raise Refused(f"{table} is empty.")
    return labels
