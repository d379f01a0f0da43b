"""Data sets: one module per layout; the module's name is the name on the command line.

Each module has `LAYOUT` (one sentence) and `read(root) -> Dataset`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from cache.errors import Refused
from stages.datasets.sample import Dataset

NAMES = ("drawn", "folder")


def read(name: str, root: Path) -> Dataset:
    """Read the data set `name` that lies in the folder `root`.

    Raises:
        Refused: unknown name, no such folder, nothing in it, or a table with mistakes.
    """
    if name not in NAMES:
        raise Refused(f"Unknown data set {name!r}. Known: {', '.join(NAMES)}.")
    if not root.is_dir():
        hint = f" Make it: lgr-pipe draw --out {root}" if name == "drawn" else ""
        raise Refused(f"There is no folder {root}.{hint}")
    dataset: Dataset = importlib.import_module(f"stages.datasets.{name}").read(root)
    return dataset
