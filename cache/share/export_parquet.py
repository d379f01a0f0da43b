"""One Parquet file: one row a sample, one row group a shard.

row, id, label, subject, split, status   the sample table; label, split by name
latent                                   fixed-size list of float32 or float16
crop                                     raw uint8, shape in the metadata: (N, H, W, 3)
box, crop_row, ...                       further columns of the cache
metadata                                 under lgr_pipe, JSON: the cache's manifest
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from cache.errors import Refused
from cache.reader import Cache
from cache.schema import SPLITS
from cache.share.export_rows import (
    KEY,
    Format,
    Tick,
    about,
    blocks,
    claimed,
    json_text,
    plain,
    samples,
)
from cache.store import Array

_TEXTS = ("id", "label", "subject", "split", "status")
_TOLD = ("label", "subject", "split", "status", "digest")
"""Columns that stand in the table by name, and the digests of raw bytes."""
_RENAMED = {"row": "crop_row", "crops": "crop", "latents": "latent"}


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Refused("--to parquet needs pyarrow: pip install 'lgr-pipe[parquet]'.") from None
    return pyarrow, pyarrow.parquet


def write(cache: Cache, out: Path, names: bool, tick: Tick) -> None:
    """Make the file `out`, a shard in memory at a time."""
    pa, parquet = _arrow()
    manifest = cache.manifest
    sides = {n: plain(cache.side(n)) for n in sorted(manifest.columns.keys() - {manifest.bulk})}
    table = samples(cache, names=names)
    schema = _schema(pa, cache, sides, names)
    options = {
        "use_dictionary": ["label", "subject", "split", "status"],
        "compression": dict.fromkeys(_TEXTS, "zstd"),  # latents and pixels do not get smaller
        "write_statistics": ["row", *_TEXTS],
    }
    with parquet.ParquetWriter(out, schema, **options) as writer:
        start = 0
        for rows in blocks(cache, tick):
            span = slice(start, start + len(rows))
            texts = _texts(cache, list(islice(table, len(rows))), sides, span)
            arrays = [pa.array(range(span.start, span.stop), pa.int64())]
            arrays += [pa.array(texts[name], pa.string()) for name in _TEXTS]
            arrays += [_column(pa, sides[name][span]) for name in sides if name not in _TOLD]
            arrays.append(_column(pa, rows))
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=len(rows))
            start = span.stop
        for _ in table:  # its end tells whether it has as many rows
            pass


def _texts(
    cache: Cache, table: list[dict[str, Any]], sides: dict[str, Array], span: slice
) -> dict[str, list[str]]:
    classes = cache.manifest.classes
    return {
        "id": [_text(row.get("id", "")) for row in table],
        "label": [_text(classes[k]) for k in sides["label"][span].tolist()],
        "subject": [_text(row.get("subject", "")) for row in table],
        "split": [SPLITS[k] for k in sides["split"][span].tolist()],
        "status": [_text(row.get("status", "")) for row in table],
    }


def _text(value: object) -> str:
    """UTF-8 has no lone surrogates."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _schema(pa: Any, cache: Cache, sides: dict[str, Array], names: bool) -> Any:
    manifest = cache.manifest
    bulk = manifest.columns[manifest.bulk]
    fields = [pa.field("row", pa.int64(), nullable=False)]
    fields += [pa.field(name, pa.string(), nullable=False) for name in _TEXTS]
    kinds = {n: (v.dtype.name, v.shape) for n, v in sides.items() if n not in _TOLD}
    kinds[manifest.bulk] = (bulk.dtype, bulk.shape)
    taken = {field.name for field in fields}
    for name, (dtype, shape) in kinds.items():
        shown = _RENAMED.get(name, name)
        if shown in taken:
            raise Refused(f"{cache.path} has a column {name} that is none of ours; not exported.")
        taken.add(shown)
        fields.append(pa.field(shown, _type(pa, dtype, shape), nullable=False))
    said = {
        KEY: json_text(about(manifest, "parquet", names=names)),
        "shape": json_text(bulk.shape),
        "dtype": bulk.dtype,
        "classes": json_text(manifest.classes),
    }
    return pa.schema(fields, metadata=said)


def _type(pa: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    value = pa.from_numpy_dtype(dtype)
    if len(shape) == 1:
        return value
    if len(shape) == 2:
        return pa.list_(pa.field("element", value, nullable=False), shape[1])
    return pa.binary()


def _column(pa: Any, rows: Array) -> Any:
    """As `_type` says: a value, a fixed-size list, or the raw bytes of each row."""
    if rows.ndim == 1:
        return pa.array(rows)
    kind = _type(pa, rows.dtype.name, rows.shape)
    if rows.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=kind)
    return pa.array((row.tobytes() for row in rows), kind)


def claim(out: Path) -> dict[str, Any] | None:
    """What the metadata say; None: no Parquet file, or not of ours."""
    pa, parquet = _arrow()
    try:
        said = (parquet.read_schema(out).metadata or {}).get(KEY.encode(), b"")
    except (pa.ArrowException, OSError, ValueError):
        return None
    return claimed(said, "parquet")


FORMAT = Format(write, claim)
