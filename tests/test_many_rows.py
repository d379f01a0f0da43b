"""What keeps ten million rows in bounds gives what the plain way gives."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import schema
from cache.care.verify import verify
from cache.digest import column_digest, text_digest
from cache.files import write_json_lines
from cache.fingerprint import canonical_json
from cache.listing import expected_files, found_files
from cache.reader import Cache
from cache.schema import read_manifest
from cache.store import STORES
from cache.table import Table, misaligned
from stages.extract.crop import rows_digest, sample_columns
from stages.extract.latents import sample_lines
from tests.making import make_cache, nothing


def _samples(rows: int) -> Iterator[dict[str, Any]]:
    return (
        {
            "row": k,
            "id": f"ü/{k}.png",
            "label": "ab"[k % 2],
            "subject": ("", "zoë", "anna", f"p{k // 3}")[k % 4],
            "split": (None, "train", "test", "pretrain")[k % 4],
            "file": f"blake3:{k:064d}",
            **({"stated_box": [k, 0, 1, 2]} if k % 5 else {}),
        }
        for k in range(rows)
    )


@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, 2000, 2500])
def test_the_digest_of_rows_is_that_of_their_json(rows: int) -> None:
    keys = ("id", "file", "label", "subject", "split", "stated_box")
    listed = [[s[k] for k in keys if k in s] for s in _samples(rows)]
    assert rows_digest(_samples(rows)) == text_digest(canonical_json({"rows": listed}))


def test_columns_of_a_table() -> None:
    columns = sample_columns(_samples(40), ("a", "b"))
    rows = list(_samples(40))
    names = sorted({s["subject"] for s in rows} - {""})
    assert {name: v.dtype.name for name, v in columns.items()} == {
        "label": "int16", "split": "uint8", "subject": "int32",
    }  # fmt: skip
    assert columns["label"].tolist() == [k % 2 for k in range(40)]
    assert columns["split"].tolist() == [(0, 0, 1, 2)[k % 4] for k in range(40)]
    assert columns["subject"].tolist() == [
        names.index(s["subject"]) if s["subject"] else -1 for s in rows
    ]


def test_lines_of_latents_are_those_of_their_crops() -> None:
    crops = [{**s, "status": "found"} for s in _samples(9)]
    found = list(sample_lines(iter(crops), np.array([1, 2, 5, 8])))
    assert [line["row"] for line in found] == [0, 1, 2, 3]
    assert [line["crop"] for line in found] == [1, 2, 5, 8]
    assert [line["id"] for line in found] == [crops[k]["id"] for k in (1, 2, 5, 8)]


def test_a_table_is_written_and_read_without_being_held(tmp_path: Path) -> None:
    """20,000 lines of 2 kB: 40 MB."""
    many = ({"row": k, "reason": "x" * 2000} for k in range(20_000))
    tracemalloc.start()
    try:
        write_json_lines(tmp_path / "t", many)
        total = sum(len(row["reason"]) for row in schema.iter_lines(tmp_path / "t"))
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()
    assert total == 40_000_000
    with (tmp_path / "t").open() as lines:
        assert json.loads(next(lines)) == {"row": 0, "reason": "x" * 2000}


@pytest.mark.parametrize("store", STORES)
def test_side_columns_in_several_pieces(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of more than 16,777,216 rows; read by whoever has no idea of that number."""
    rows = np.arange(22, dtype=np.float32).reshape(11, 2)
    make_cache(tmp_path / "whole", store, rows)
    monkeypatch.setattr(schema, "_SIDE_ROWS", 4)
    make_cache(tmp_path / "cut", store, rows)
    assert not verify(tmp_path / "cut", nothing).faults
    manifest = read_manifest(tmp_path / "cut")
    assert manifest.content == read_manifest(tmp_path / "whole").content
    assert expected_files(manifest) == found_files(tmp_path / "cut")[0]
    if store == "zarr":
        assert {p.name for p in (tmp_path / "cut/data.zarr/digest/c").iterdir()} == {"0", "1", "2"}
    with Cache(tmp_path / "cut") as cache:
        assert np.array_equal(cache.bulk(), rows)
        for name in ("label", "subject", "split", "digest"):
            assert column_digest(cache.side(name)) == manifest.columns[name].digest


def _plainly_wrong(names: list[str], values: list[int], kind: str) -> list[int]:
    """A subject is the rank of its name, name by name."""
    first = {name: values[names.index(name)] for name in names}
    bad, last = set(), -1
    for name in sorted({*names} - {""}):
        if first[name] <= last or (kind == "crops" and first[name] != last + 1):
            bad.add(name)
        last = max(last, first[name])
    return [
        k
        for k, name in enumerate(names)
        if values[k] != first[name] or name in bad or (name == "" and values[k] != -1)
    ]


@pytest.mark.parametrize("kind", ["crops", "latents"])
def test_subjects_that_are_not_the_rank_of_their_name(kind: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        names = random.choice(["", "a", "b", "c", "d"], size=8).tolist()
        ranks = {name: k for k, name in enumerate(sorted({*names} - {""}))}
        values = np.array([ranks.get(name, -1) for name in names], dtype=np.int32)
        for k in range(int(random.integers(0, 3))):
            values[random.integers(0, 8)] = random.integers(-1, 6) + k
        table = Table(rows=8)
        for name in names:
            table.subject.append(table.subjects.setdefault(name, len(table.subjects)))
        found = misaligned(table, "subject", values, kind)
        assert found.tolist() == _plainly_wrong(names, values.tolist(), kind)
