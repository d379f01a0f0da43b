"""In what do two caches differ?  Rows are matched by their ids, not by their places.

Digests tell which rows differ; only these are read, a shard of each cache at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheMismatchError
from cache.fingerprint import Settings, canonical_json
from cache.reader import Cache

Tick = Callable[[int], None]
Rows = NDArray[np.int64]
_SAID = ("label", "split", "subject", "status")
_ABSENT = "(absent)"


@dataclass
class Diff:
    """Everything in which cache b is not cache a."""

    same_content: bool
    """Equal rows in equal order, of equal meaning: ids, labels, splits, subjects, statuses."""
    settings: list[tuple[str, Any, Any]] = field(default_factory=list)
    """(dotted field, in a, in b)"""
    classes: tuple[list[str], list[str]] | None = None
    """Where they differ."""
    only_a: list[str] = field(default_factory=list)
    """Ids of rows that the other has not."""
    only_b: list[str] = field(default_factory=list)
    said: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    """(id, field, in a, in b) of rows that are in both."""
    moved: int = 0
    """Rows that are in both, at other places."""
    columns: list[str] = field(default_factory=list)
    """Columns whose digests differ."""
    values: int = 0
    """Rows in both whose crops or latents differ."""
    shapes: tuple[str, str] | None = None
    """Of a row, with its type, where they differ: if in shape, values are not compared."""
    largest: float | None = None
    """Largest absolute difference of two finite values; None: none was compared."""
    infinite: int = 0
    """Rows of `values` with NaN or infinity on a side."""


def differing(a: Settings, b: Settings, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted field, in a, in b) of all that differs."""
    found = []
    for key in sorted(a.keys() | b.keys()):
        left, right = a.get(key, _ABSENT), b.get(key, _ABSENT)
        if isinstance(left, dict) and isinstance(right, dict):
            found += differing(left, right, f"{prefix}{key}.")
        elif canonical_json({"": left}) != canonical_json({"": right}):
            found.append((f"{prefix}{key}", left, right))
    return found


def diff(a: Path, b: Path, tick: Tick) -> Diff:
    """Compare two finished caches; `tick` counts rows whose values were compared.

    Raises:
        CacheMismatchError: one holds crops, the other latents.
        CacheDamagedError: one cannot be read.
    """
    with Cache(a) as left, Cache(b) as right:
        one, two = left.manifest, right.manifest
        if one.kind != two.kind:
            raise CacheMismatchError(
                f"{a} holds {one.kind}, {b} holds {two.kind}: there is nothing to compare."
            )
        found = Diff(one.content == two.content, differing(one.settings, two.settings))
        found.columns = sorted(
            name
            for name in one.columns.keys() | two.columns.keys()
            if one.columns.get(name) != two.columns.get(name)
        )
        if one.classes != two.classes:
            found.classes = list(one.classes), list(two.classes)
        common = (np.arange(one.rows), np.arange(two.rows))
        if one.samples_digest != two.samples_digest:
            common = _tables(found, left, right)
        found.same_content &= not (found.classes or found.said or found.only_a or found.moved)
        if not found.same_content:
            _values(found, left, right, *common, tick)
    return found


def _places(table: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
    """(id, how many rows of this id came before) -> row."""
    seen: Counter[str] = Counter()
    places = {}
    for row, sample in enumerate(table):
        name = str(sample.get("id"))
        places[name, seen[name]] = row
        seen[name] += 1
    return places


def _tables(found: Diff, left: Cache, right: Cache) -> tuple[Rows, Rows]:
    """Compare the sample tables; the rows of each cache that are in both, pair by pair."""
    tables = left.samples(), right.samples()
    places = _places(tables[0]), _places(tables[1])
    found.only_a = [key[0] for key in places[0] if key not in places[1]]
    found.only_b = [key[0] for key in places[1] if key not in places[0]]
    pairs = [(row, places[1][key]) for key, row in places[0].items() if key in places[1]]
    for row, other in pairs:
        one, two = tables[0][row], tables[1][other]
        found.said += [
            (str(one.get("id")), name, one.get(name, _ABSENT), two.get(name, _ABSENT))
            for name in _SAID
            if one.get(name, _ABSENT) != two.get(name, _ABSENT)
        ]
    found.moved = sum(row != other for row, other in pairs)
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _values(found: Diff, left: Cache, right: Cache, rows: Rows, others: Rows, tick: Tick) -> None:
    one, two = (c.manifest.columns[c.manifest.bulk] for c in (left, right))
    if (one.shape[1:], one.dtype) != (two.shape[1:], two.dtype):
        found.shapes = _words(one.shape[1:], one.dtype), _words(two.shape[1:], two.dtype)
    unequal = (left.side("digest")[rows] != right.side("digest")[others]).any(axis=1)
    rows, others = rows[unequal], others[unequal]
    found.values = len(rows)
    if one.shape[1:] != two.shape[1:]:
        return
    sizes = left.manifest.shard_rows, right.manifest.shard_rows
    held = rows // sizes[0], others // sizes[1]
    for shard in np.unique(held[0]):
        block = _shard(left, int(shard))
        for other in np.unique(held[1][held[0] == shard]):
            which = (held[0] == shard) & (held[1] == other)
            _compare(
                found,
                block[rows[which] - shard * sizes[0]],
                _shard(right, int(other))[others[which] - other * sizes[1]],
            )
            tick(int(which.sum()))


def _words(shape: tuple[int, ...], dtype: str) -> str:
    return f"{dtype} {' x '.join(map(str, shape))}"


def _shard(cache: Cache, shard: int) -> NDArray[Any]:
    size = cache.manifest.shard_rows
    return cache.bulk_rows(shard * size, min((shard + 1) * size, cache.manifest.rows))


def _compare(found: Diff, one: NDArray[Any], two: NDArray[Any]) -> None:
    # Row by row: a shard of crops as float64 would be eight times as large.
    for a, b in zip(one, two, strict=True):
        with np.errstate(invalid="ignore"):
            away = np.abs(a.astype(np.float64) - b.astype(np.float64))
        finite = away[np.isfinite(away)]
        found.infinite += int(len(finite) < away.size)
        if len(finite):
            found.largest = max(found.largest or 0.0, float(finite.max()))
