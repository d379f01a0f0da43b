"""What the maker of a unit notes in its record, for whoever publishes the cache."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cache.limits import Digest, Finite, Words
from cache.parts import Parts
from stages.extract.faces import Status

_Pixel = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]


class _Note(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CropNote(_Note):
    """One value of each row."""

    status: list[Status]
    box: list[tuple[_Pixel, _Pixel, _Pixel, _Pixel]]
    reason: list[Annotated[str, Field(max_length=1 << 16)]]


class LatentNote(_Note):
    device: Words
    low: Finite | None
    """The lowest value.  None: the unit keeps no row."""
    high: Finite | None
    crops: Digest
    """Of the crops that the root has seen."""


def crop_note(parts: Parts, unit: int) -> CropNote:
    """Raises CacheDamagedError: it does not say one thing of each row."""
    kept, note = parts.kept(unit, CropNote)
    rows = len(parts.plan.rows_of(unit))
    if not kept == len(note.status) == len(note.box) == len(note.reason) == rows:
        raise parts.damaged(unit, f"it is not about {rows} rows")
    return note


def latent_note(parts: Parts, unit: int, rows: int) -> LatentNote:
    """`rows`: those that the unit must keep.  Raises CacheDamagedError: it keeps others."""
    kept, note = parts.kept(unit, LatentNote)
    if kept != rows or (note.low is None) != (rows == 0) or (note.high is None) != (rows == 0):
        raise parts.damaged(unit, f"it is not about {rows} rows")
    return note
