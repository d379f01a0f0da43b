"""Who is drawn, how often, and where it is written.

OUT/images/s000_anger_0.png    subject 0, first take
OUT/labels.csv                 image, expression, subject, split
OUT/drawn.json                 how it was drawn: marks the folder as ours
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.errors import CacheExistsError, Refused
from cache.files import put_in_place, write_json, write_text
from cache.fingerprint import differences
from stages.draw.expressions import EXPRESSIONS, pose_muscles
from stages.draw.face import draw_subject, draw_take, paint

VERSION = 1
"""Raise when the pictures change; a test holds their digest."""
MARKER = "drawn.json"
TAKES = 4
"""Pictures of one subject with one expression."""
WEAKEST = 0.6
"""Expressions are drawn with an intensity between this and 1."""
TEST_SHARE = 0.3


def faces(per_class: int, seed: int) -> Iterator[tuple[str, str, str, NDArray[np.uint8]]]:
    """(name, expression, subject, uint8 (240, 240, 3)) for every picture.

    Each subject has its own random stream, so a larger set begins with the
    same people.
    """
    for subject_index in range(-(-per_class // TAKES)):
        rng = Random(f"lgr-pipe drawn {VERSION} {seed} {subject_index}")
        subject = draw_subject(rng)
        name = f"s{subject_index:03d}"
        for take_index in range(TAKES):
            for expression in EXPRESSIONS:
                intensity = WEAKEST + (1 - WEAKEST) * rng.random()
                take = draw_take(pose_muscles(expression, intensity, rng), rng)
                if subject_index * TAKES + take_index < per_class:
                    image = f"{name}_{expression}_{take_index}.png"
                    yield image, expression, name, paint(subject, take)


def draw(
    out: Path, per_class: int, seed: int, *, overwrite: bool, tick: Callable[[int], None]
) -> int:
    """Write the data set; returns the number of new pictures.  `tick(1)` after each.

    Drawn next to `out` and put in place by one rename.  If `out` is this very
    data set already, nothing is done.

    Raises:
        CacheExistsError: `out` holds something else.
        Refused: too few pictures for a train and a test subject.
    """
    if per_class <= TAKES:
        raise Refused(
            f"--per-class must be at least {TAKES + 1}, got {per_class}: a subject has {TAKES} "
            "pictures of each expression, and train and test need different subjects."
        )
    about = {"format": "lgr-pipe drawn", "version": VERSION, "per_class": per_class, "seed": seed}
    out = out.resolve()
    if _is_taken(out, about, overwrite=overwrite):
        return 0
    work = out.parent / f".{out.name}.work-draw"
    if work.exists():  # an interrupted drawing; a new one takes seconds
        shutil.rmtree(work)
    (work / "images").mkdir(parents=True)
    subjects = -(-per_class // TAKES)
    first_test = subjects - max(1, round(TEST_SHARE * subjects))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("image", "expression", "subject", "split"))
    count = 0
    for name, expression, subject, pixels in faces(per_class, seed):
        Image.fromarray(pixels).save(work / "images" / name)
        split = "train" if int(subject[1:]) < first_test else "test"
        writer.writerow((f"images/{name}", expression, subject, split))
        count += 1
        tick(1)
    write_text(work / "labels.csv", table.getvalue())
    write_json(work / MARKER, about)
    put_in_place(work, out, work.with_name(f".{out.name}.work-replaced"))
    return count


def _is_taken(out: Path, about: dict[str, object], *, overwrite: bool) -> bool:
    """True if `out` is what would be drawn, False if it is free (or may be replaced)."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    marker = out / MARKER
    if not marker.is_file():
        raise CacheExistsError(f"{out} exists already and was not drawn: choose another --out.")
    try:
        found = json.loads(marker.read_bytes())
    except ValueError:
        raise CacheExistsError(f"{marker} is damaged: remove {out} and draw again.") from None
    if found == about:
        return True
    if not overwrite:
        lines = "\n  ".join(differences(about, found))
        raise CacheExistsError(
            f"{out} exists already and was drawn otherwise:\n  {lines}\n"
            "Add --overwrite to replace it, or choose another --out."
        )
    return False


def contact_sheet(per_class: int, seed: int, rows: int = 4) -> Image.Image:
    """Four subjects, one a row, with their first take of each expression, half size."""
    firsts = (pixels for name, _, _, pixels in faces(per_class, seed) if name.endswith("_0.png"))
    some = list(islice(firsts, rows * len(EXPRESSIONS)))
    width = len(EXPRESSIONS)
    lines = [np.hstack(some[k : k + width]) for k in range(0, len(some), width)]
    return Image.fromarray(np.vstack(lines)).reduce(2)
