"""The annotations of AffectNet's two releases, as rows of one kind."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from stages.datasets.files import IMAGE_SUFFIXES, Tree, plain, read_csv
from stages.datasets.sample import Box, Split, refuse_mistakes, short

_CODES = {
    str(code): label
    for code, label in enumerate(
        ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
    )
}
_NO_EXPRESSION = frozenset({"8", "9", "10"})
"""none, uncertain, no face"""

_PATH, _EXPRESSION = "subDirectory_filePath", "expression"
_BOX = ("face_x", "face_y", "face_width", "face_height")
_COLUMNS = (_PATH, *_BOX, "facial_landmarks", _EXPRESSION)
"""The first ones, in the order in which both tables have them (some have no header)."""
_FARTHEST = 1_000_000
"""Pixels; a face box that lies beyond is damaged."""

_UTF32 = {"<": "utf-32-le", ">": "utf-32-be"}
"""numpy's own reader of texts fails on damaged ones in ways that cannot be caught well."""

_IMAGES = ("", "Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images")


class Row(NamedTuple):
    id: str
    file: str
    """Its path below the folder of the release."""
    label: str
    split: Split
    box: Box | None = None


@dataclass
class Release:
    """What one of the two releases says, and which files there are."""

    folder: Path
    """The images lie below it."""
    boxes: bool
    rows: list[Row] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    """Annotated, but with none of the eight expressions."""
    unlisted: list[str] = field(default_factory=list)
    """Image files without an annotation."""
    odd: list[str] = field(default_factory=list)
    """Named nearly as an annotation is, or no file."""


def label_of(code: str) -> str | None:
    """The class; None for an annotation that is no expression.  Raises ValueError: no code."""
    if code in _NO_EXPRESSION:
        return None
    if code not in _CODES:
        raise ValueError(f"the expression is {code[:40]!a}, expected a code from 0 to 10")
    return _CODES[code]


# --- the original release: two tables ---


def original(root: Path, tables: list[Path]) -> Release:
    """From training.csv and validation.csv; a row's id is its path there, wherever images lie.

    Raises Refused: mistakes in the tables, all of them named.
    """
    release = Release(root, boxes=True)
    mistakes: list[str] = []
    seen: set[str] = set()
    splits: tuple[Split, ...] = ("train", "test")
    for table, split in zip(tables, splits, strict=True):
        for number, cells in read_csv(table, (_PATH, *_BOX, _EXPRESSION), _COLUMNS):
            try:
                _add(release, cells, split, seen)
            except ValueError as error:
                mistakes.append(f"{table.name} line {number}: {error}")
    refuse_mistakes(tables[0].parent, mistakes)
    _find_images(release, root, seen)
    return release


def _add(release: Release, cells: dict[str, str], split: Split, seen: set[str]) -> None:
    if _EXPRESSION not in cells:
        raise ValueError(f"{len(cells)} columns, expected at least {len(_COLUMNS)}")
    name = plain(cells[_PATH].strip())
    if name in seen:
        raise ValueError(f"{short(name)} is listed twice")
    seen.add(name)
    label = label_of(cells[_EXPRESSION].strip())
    if label is None:
        release.skipped.append(name)
    else:
        release.rows.append(Row(name, name, label, split, _box([cells[key] for key in _BOX])))


def _box(cells: list[str]) -> Box | None:
    """None: does not parse, has no area, or lies where no image has pixels."""
    try:
        left, top, width, height = numbers = [int(float(cell)) for cell in cells]
    except (ValueError, OverflowError):
        return None
    if width <= 0 or height <= 0 or max(map(abs, numbers)) > _FARTHEST:
        return None
    return left, top, left + width, top + height


def _find_images(release: Release, root: Path, listed: set[str]) -> None:
    """The first place that holds a listed image; each folder is listed once."""
    for place in _IMAGES:
        tree = Tree(root / place)
        present = tree.present(listed)
        refuse_mistakes(tree.root, tree.mistakes)
        if not present.isdisjoint(listed):
            release.folder, release.present = tree.root, present
            strange = present - listed
            release.unlisted = sorted(n for n in strange if n.lower().endswith(IMAGE_SUFFIXES))
            return


# --- the release of eight classes: a file for each annotation ---

_CODE = "_exp.npy"


def eight_classes(root: Path) -> Release:
    """Raises Refused: mistakes in the annotations, all of them named."""
    halves: tuple[tuple[str, Split], ...] = (("train_set", "train"), ("val_set", "test"))
    folders = [f"{half}/{kind}" for half, _ in halves for kind in ("images", "annotations")]
    tree = Tree(root, *(half for half, _ in halves), *folders)
    release = Release(root, boxes=False)
    for half, split in halves:
        images = tree.files(f"{half}/images", (".jpg",))
        codes, folders = tree.both(f"{half}/annotations", (_CODE,))
        stems = [name.removesuffix(_CODE) for name in codes if name.endswith(_CODE)]
        odd = [*folders, *(name for name in codes if not name.endswith(_CODE))]
        release.odd += sorted(f"{half}/annotations/{name}" for name in odd)
        files = {stem: f"{half}/images/{stem}.jpg" for stem in stems}
        there = {f"{half}/images/{name}" for name in images}
        release.present |= there
        release.unlisted += sorted(there.difference(files.values()))
        for stem, code in zip(stems, _codes(root / half / "annotations", stems), strict=True):
            try:
                if isinstance(code, ValueError):
                    raise code
                label = label_of(code)
            except ValueError as error:
                tree.mistake(f"{half}/annotations/{stem}_exp.npy: {error}")
                continue
            if label is None:
                release.skipped.append(files[stem])
            else:
                release.rows.append(Row(files[stem], files[stem], label, split))
    refuse_mistakes(root, tree.mistakes)
    return release


def _codes(folder: Path, stems: list[str]) -> list[str | ValueError]:
    """Read 290,000 small files: in threads, for disks that answer late."""
    chunks = [stems[start : start + 1000] for start in range(0, len(stems), 1000)]

    def read(chunk: list[str]) -> list[str | ValueError]:
        return [_read_code(f"{folder}/{stem}_exp.npy") for stem in chunk]

    with ThreadPoolExecutor(8) as pool:
        return [code for codes in pool.map(read, chunks) for code in codes]


def _read_code(path: str) -> str | ValueError:
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            return _parse_npy(os.read(handle, 4096))
        finally:
            os.close(handle)
    except OSError as error:
        return ValueError(f"cannot be read: {error.strerror}")
    except ValueError as error:
        return error


@lru_cache(maxsize=256)  # there are hardly more contents than classes
def _parse_npy(data: bytes) -> str:
    """The single text or number in a .npy file, as a code.  Never unpickles."""
    file = BytesIO(data)
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    except Exception as error:  # a broken header raises many kinds
        raise ValueError(f"is no .npy file: {str(error)[:80]!a}") from None
    content = file.read()
    if shape != () or dtype.kind not in "SUiuf" or len(content) != dtype.itemsize:
        raise ValueError("is no single text or number")
    if dtype.kind in "SU":
        code = content.decode("ascii" if dtype.kind == "S" else _UTF32[dtype.str[0]], "replace")
        return code.rstrip("\0").strip()
    value = np.frombuffer(content, dtype)[0]
    return str(int(value)) if np.isfinite(value) and value == int(value) else str(value)
