"""Pictures for a page that would become too large with drawings alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

from markupsafe import Markup

_FINE, _COARSE = (110, 64), (75, 16)
"""Dots an inch and colours, as far as they can be read; the whole picture lies in figures/."""


def inline(png: bytes, label: str, *, coarse: bool = False) -> str:
    """A small <img> of a figure drawn with 200 dots an inch; it stays light in the dark."""
    from PIL import Image

    dots, colours = _COARSE if coarse else _FINE
    with Image.open(io.BytesIO(png)) as whole:
        size = (whole.width * dots // 200, whole.height * dots // 200)
        small = whole.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize(colours)
        width, height = whole.width * 96 // 200, whole.height * 96 // 200
    out = io.BytesIO()
    small.save(out, format="PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">').format(
        data, label, width, height
    )


def elsewhere(name: str) -> str:
    return Markup(
        '<p>Too large for this page: <a href="figures/{0}.svg">figures/{0}.svg</a></p>'
    ).format(name)


def fit(pictures: dict[str, str], room: int, smaller: Callable[[str, str], str]) -> None:
    """Replace pictures, largest first, until all have at most `room` bytes together.

    `smaller(name, picture)` gives a smaller form, or an equal one where there is none.
    """
    left = room - sum(len(picture.encode()) for picture in pictures.values())
    while left < 0:
        before = left
        for name in sorted(pictures, key=lambda name: (-len(pictures[name]), name)):
            new = smaller(name, pictures[name])
            left += len(pictures[name].encode()) - len(new.encode())
            pictures[name] = new
            if left >= 0:
                return
        if left == before:
            return
