"""Data sets: one module per layout; `-` in a name is `_` in its module's.

Each module has `ABOUT` (what it is and where to ask for it) and
`read(root, *, options) -> Dataset`; its keyword arguments are its options.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from cache.errors import Refused
from stages.datasets.files import expected, is_dir
from stages.datasets.sample import About, Dataset

NAMES = (
    "ckplus",
    "rafdb",
    "affectnet",
    "mnist",
    "fashion-mnist",
    "cifar10",
    "cifar100",
    "folder",
    "drawn",
)


def module(name: str) -> ModuleType:
    """Raises Refused: unknown name."""
    if name not in NAMES:
        raise Refused(f"Unknown data set {name!r}. Known: {', '.join(NAMES)}.")
    return importlib.import_module(f"stages.datasets.{name.replace('-', '_')}")


def options(name: str) -> dict[str, Any]:
    """The options of a data set and their defaults."""
    parameters = inspect.signature(module(name).read).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def read(name: str, root: Path, **given: Any) -> Dataset:
    """Read the data set `name` that lies in the folder `root`.

    Raises:
        Refused: unknown name or option, no such folder, nothing in it, a table
            with mistakes, nothing to train on or nothing to test on.
    """
    known = options(name)
    strange = sorted(given.keys() - known.keys())
    if strange:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in known)
        raise Refused(
            f"The data set {name} has no option --{strange[0].replace('_', '-')}. "
            + (f"It has {flags}." if flags else "It has none of its own.")
        )
    if not is_dir(root) and not given.get("download"):
        hint = f" Make it: lgr-pipe draw --out {root}" if name == "drawn" else ""
        raise Refused(f"There is no folder {root}.{hint}")
    layout = module(name)
    dataset: Dataset = layout.read(root, **given)
    _require_both_splits(dataset, root, layout.ABOUT)
    return dataset


def _require_both_splits(dataset: Dataset, root: Path, about: About) -> None:
    missing = {"train", "test"} - {sample.split for sample in dataset.samples}
    if not missing:
        return
    subjects = {sample.subject for sample in dataset.samples}
    hint = (
        " All images show one subject; a split by subject needs two."
        if len(subjects) == 1 and subjects != {""}
        else ""
    )
    raise Refused(f"{root} has no {min(missing)} images.{hint}\n{expected(about)}")
