"""What every export needs of a cache: where it comes from, rows a shard at a time, the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from cache.reader import Cache
from cache.schema import SPLITS, Manifest, parse_json
from cache.store import Array

KEY = "lgr_pipe"
"""Under it, in a header, lies what `about` says."""
_FORMAT, _VERSION = "lgr-pipe export", 1
_KEPT = ("label", "split", "status", "crop")
"""Fields of the table that name no file and nobody."""

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Format:
    """How a cache is written for other programs."""

    write: Callable[[Cache, Path, bool, Tick], None]
    """(cache, file or folder to make, with names, tick a shard)"""
    claim: Callable[[Path], dict[str, Any] | None]
    """What a file or folder says of itself, as `about` has it; None: none of this format."""
    folder: bool = False
    """It is a folder, not one file."""


def about(manifest: Manifest, to: str, *, names: bool) -> dict[str, Any]:
    """Where an export comes from: the cache's manifest and how it was written, plain JSON.

    Without names the digests go that could tell whether a guessed name is right.
    """
    said = manifest.model_dump(mode="json", exclude=None if names else {"digest", "samples_digest"})
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "to": to,
        "names": names,
        "splits": list(SPLITS),
        "cache": said,
    }


def claimed(raw: bytes, to: str) -> dict[str, Any] | None:
    """`about`, from JSON of whoever wrote it; None: something else."""
    try:
        said = parse_json(raw)
    except ValueError:
        return None
    ours = isinstance(said, dict) and (said.get("format"), said.get("to")) == (_FORMAT, to)
    return said if ours else None


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def blocks(cache: Cache, tick: Tick) -> Iterator[Array]:
    """All crops or latents, a shard at a time, every row checked; little-endian, C order."""
    manifest = cache.manifest
    for start in range(0, manifest.rows, manifest.shard_rows):
        rows = cache.bulk_rows(start, min(start + manifest.shard_rows, manifest.rows))
        yield plain(rows)
        tick(1)


def plain(values: Array) -> Array:
    """Little-endian, C order; the same memory where it is so already."""
    return values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)


def samples(cache: Cache, *, names: bool) -> Iterator[dict[str, Any]]:
    """The sample table, a row at a time, checked against the manifest.

    Without names: ids are row numbers, subjects the numbers of column
    `subject`, and every field goes that could name a file.

    Raises:
        CacheDamagedError: the table is missing or not what was written.
    """
    if names:
        yield from cache.lines()
        return
    # The table of a stranger may have more lines, of which `lines` tells after the last.
    subjects = chain(cache.side("subject").tolist(), repeat(-1))
    for number, (row, subject) in enumerate(zip(cache.lines(), subjects, strict=False)):
        yield {
            "row": number,
            "id": str(number),
            "subject": str(subject) if subject >= 0 else "",
        } | {key: row[key] for key in _KEPT if key in row}


def json_lines(cache: Cache, *, names: bool) -> Iterator[bytes]:
    """`samples` as lines of JSON; with names exactly the bytes of the cache's own table."""
    for row in samples(cache, names=names):
        # A lone surrogate becomes its JSON escape: UTF-8 has none.
        text = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        yield text.encode("utf-8", "backslashreplace")
