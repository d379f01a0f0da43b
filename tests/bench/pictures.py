"""Pictures of faces to measure with: drawn ones, or those of a folder that is named."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from PIL import Image

from stages.draw.dataset import faces

VARIABLE = "LGR_PIPE_FACES"
"""Names a folder of photographs, laid out as data set `folder`."""
SIDE = 350
"""Pixels of a drawn one."""


def pictures(out: Path, count: int) -> tuple[Path, str]:
    """A folder of at least `count` JPEG files, or the named one; and what is in it, in words."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named), f"photographs of ${VARIABLE}"
    for name, expression, _, pixels in islice(faces(-(-count // 8), 0), count):
        folder = out / expression
        folder.mkdir(parents=True, exist_ok=True)
        large = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        large.save(folder / f"{Path(name).stem}.jpg", quality=92)
    return out, f"drawn faces, JPEG of {SIDE} x {SIDE}"
