"""The embedded data set: faces drawn by `lgr-pipe draw`, eight expressions.

The classes stand in the order in which the LGR paper lists them (section
IV-B), so that four tasks are anger-happiness, sadness-surprise, disgust-fear
and contempt-neutral.
"""

from __future__ import annotations

from pathlib import Path

from cache.errors import Refused
from stages.datasets import folder
from stages.datasets.files import is_file
from stages.datasets.sample import About, Dataset
from stages.draw.expressions import EXPRESSIONS

ABOUT = About(
    "Faces drawn by lgr-pipe, the embedded data set",
    "labels.csv, images/ and drawn.json, as lgr-pipe draw writes them",
    "make it: lgr-pipe draw --out DIR",
    EXPRESSIONS,
)


def read(root: Path) -> Dataset:
    """Raises Refused: nothing was drawn into `root`."""
    if not is_file(root / "labels.csv"):
        raise Refused(f"There is no labels.csv in {root}. Make it: lgr-pipe draw --out {root}")
    return folder.read_as("drawn", root, EXPRESSIONS)
