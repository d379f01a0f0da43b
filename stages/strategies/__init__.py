"""Strategies: one file an algorithm; the file's name is the name on the command line.

A name's "+" is "_" in the file name (lgr+d: lgr_d.py).  A strategy file is a
header (paper, idea, cost, known bias), a frozen `Options` dataclass whose
fields become command-line options, and the class `Method`.  Putting the file
here is all there is to adding one.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from cache.errors import Refused


def names() -> list[str]:
    """All strategies.  Imports none of them."""
    return sorted(info.name.replace("_", "+") for info in pkgutil.iter_modules(__path__))


def module(name: str) -> ModuleType:
    """The strategy's file.

    Raises:
        Refused: there is none of that name.
    """
    if name not in names():
        raise Refused(f"Unknown strategy {name!r}. Known: {', '.join(names())}.")
    return importlib.import_module(f"stages.strategies.{name.replace('+', '_')}")
