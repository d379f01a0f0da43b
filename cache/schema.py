"""What a cache holds: columns, and the manifest that says so.

    manifest.json    written last; its presence says "complete"
    samples.jsonl    one line per row: id, label, subject, split, ...
    provenance.json  when, where, with which versions: never compared; and the digest of each file
    data.zarr/ | data.h5

A cache has exactly one *bulk* column (crops or latents), sharded, and a few
small *side* columns, one value or a few per row.  Column `digest` holds the
blake3 of every bulk row, so that a damaged row can be named; the manifest has
that of every shard's rows, with which all of them are compared quickly.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from cache.digest import DIGEST_BYTES, text_digest
from cache.errors import CacheDamagedError, CacheMissingError, CacheUnfinishedError, damage_in
from cache.fingerprint import Settings, canonical_json, fingerprint, short
from cache.limits import (
    ClassNames,
    Count,
    Digest,
    Dtype,
    Finite,
    Length,
    Words,
    check_line,
    validated,
)
from cache.plain import read_plain, refuse_strange_file
from cache.printable import printable
from cache.remote.url import SCHEMES
from cache.source import Place

SCHEMA: Literal[2] = 2
_SHARD_ROWS = (256, 4096)
_SHARD_BYTES = 8 << 20
_CHUNK_ROWS, _CHUNK_BYTES = 64, 1 << 20
_SIDE_ROWS = 1 << 24
"""Of a side column, that are compressed together: 0.5 GB of digests; codecs end at 2 GB."""

MANIFEST = "manifest.json"
SAMPLES = "samples.jsonl"
PROVENANCE = "provenance.json"
CACHE_NAMES = r"manifest\.json|samples\.jsonl|provenance\.json|data\.h5|data\.zarr(?:/.+)?"
"""Whatever lies in the folder of a cache, whole or not, as a regular expression."""
MANIFEST_LIMIT = 16_000_000  # bytes; a larger one is not read: parsed, it takes 20 times that
MOST_DIGESTS = 1 << 16
"""Shards whose digests are listed, 5 MB of text; a cache of more is checked row by row."""
_NESTING = 64  # levels of JSON; what is deeper is refused
_LINE_LIMIT = 1 << 20  # bytes of a line in the sample table
MOST_SHARD, _MOST_SIDE = 1 << 30, 1 << 12
"""Bytes of a shard, and of a side column's row: readers hold one at a time."""

Kind = Literal["crops", "latents"]
SPLITS = ("train", "test", "pretrain")
"""Column `split` holds the position in this tuple; pretrain rows are for the root alone."""


def shard_rows_for(row_bytes: int) -> int:
    """Rows in a unit of work (what an interruption can lose at most): about 8 MB.

    >>> shard_rows_for(100 * 100 * 3), shard_rows_for(128 * 4)
    (256, 4096)
    """
    rows, most = _SHARD_ROWS
    while rows > 16 and rows * row_bytes > 4 * _SHARD_BYTES:  # crops of a thousand pixels
        rows //= 2
    while rows < most and 2 * rows * row_bytes <= _SHARD_BYTES:
        rows *= 2
    return rows


def chunk_rows_for(shard_rows: int, row_bytes: int) -> int:
    """Rows that are compressed together: 64, more where rows are small; divides the shard."""
    rows = min(_CHUNK_ROWS, shard_rows)
    while shard_rows % (2 * rows) == 0 and 2 * rows * row_bytes <= _CHUNK_BYTES:
        rows *= 2
    return rows


def side_rows_for(rows: int) -> int:
    """Rows in a piece of a side column, which few caches have more than one of."""
    return min(rows, _SIDE_ROWS)


class Column(BaseModel):
    """One array of a cache; `shape` includes the rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Dtype
    shape: tuple[Length, ...] = Field(min_length=1, max_length=5)
    digest: Digest

    @property
    def nbytes(self) -> int:
        """Of all values, as if nothing was compressed."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def column(dtype: str, shape: tuple[int, ...], digest: str) -> Column:
    """Raises pydantic.ValidationError: a dtype that no cache holds."""
    return Column.model_validate({"dtype": dtype, "shape": shape, "digest": digest})


class TrainedOn(BaseModel):
    """What a root has seen before: if it knows the classes of a task, that is leakage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field(max_length=200)
    """In words, as tables show it."""
    classes: Count
    names: tuple[Annotated[str, Field(max_length=200)], ...] = Field(default=(), max_length=100_000)
    """The classes by name, where they are known."""
    crops: str = Field(default="", max_length=200)
    """Fingerprint of the crop cache that it was trained on."""
    rows: Count = 0


class Info(BaseModel):
    """For readers: what was done, in words and numbers.  All but the first two: latents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Words
    images: dict[Words, Count] = Field(default_factory=dict, max_length=64)
    """How many images have which status (stages/extract/faces.py)."""
    backbone: Words = ""
    weights: Words = ""
    """In words, as tables show it."""
    root_macs: Count | None = None
    """Multiply-accumulates of the root for one crop."""
    pretrained: bool = False
    trained_on: TrainedOn | None = None
    """None: of a random root, and of a file that does not say."""
    value_range: tuple[Finite, Finite] | None = None
    """Bounds of all possible values, where there are any: a generator's output must fit."""
    observed_range: tuple[Finite, Finite] | None = None
    calibration: dict[Words, str | int] | None = Field(default=None, max_length=16)
    """Of random weights: mean and deviation that were divided out, base64 of float32."""
    crops: dict[str, Any] | None = None
    """Of latents: the settings of the crop cache, whose fingerprint is in the latents' own; None:
    made before this was kept."""
    dataset_options: dict[Words, int | Words] | None = Field(default=None, max_length=64)
    """What of the data set was asked for, beside its name; None: made before this was kept."""

    @model_serializer(mode="wrap")
    def _as_it_was(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Manifests that were made before a field was there keep their digest."""
        said: dict[str, Any] = dump(self)
        late = ("crops", "dataset_options")
        return {k: v for k, v in said.items() if k not in late or v is not None}


class Manifest(BaseModel):
    """All that a reader must know before it touches an array."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["lgr-pipe cache"] = "lgr-pipe cache"
    schema_version: Literal[2] = SCHEMA
    kind: Kind
    fingerprint: Words
    """Digest of `settings`."""
    settings: dict[str, Any]
    """Everything that decides the content."""
    store: Literal["zarr", "hdf5"]
    rows: Length
    shard_rows: Length
    bulk: Words
    """Name of the sharded column."""
    columns: dict[Words, Column] = Field(max_length=32)
    content: Digest
    """Digest over all columns' digests: equal for equal rows, whatever the store."""
    samples_digest: Digest
    shard_digests: tuple[Digest, ...] | None = Field(default=None, max_length=MOST_DIGESTS)
    """Of the rows of each shard: to compare a megabyte at a time is several times as fast as row
    by row.  None: too many, or made before this was kept."""
    classes: ClassNames
    """Label k is `classes[k]`."""
    info: Info
    digest: str = ""
    """Of the whole manifest but this line."""

    @model_serializer(mode="wrap")
    def _as_it_was(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Manifests that were made before a field was there keep their digest."""
        said: dict[str, Any] = dump(self)
        return {k: v for k, v in said.items() if k != "shard_digests" or v is not None}

    def sealed(self) -> Manifest:
        """The same with its digest filled in."""
        return self.model_copy(update={"digest": self._own_digest()})

    def _own_digest(self) -> str:
        return text_digest(canonical_json(self.model_dump(mode="json", exclude={"digest"})))

    @property
    def shards(self) -> int:
        """Of the bulk column; the last may have fewer rows."""
        return -(-self.rows // self.shard_rows)

    @property
    def intact(self) -> bool:
        return self.digest == self._own_digest()


def attributes(
    fingerprint: str, settings: Settings, classes: tuple[str, ...], info: Info
) -> dict[str, str]:
    """What a store says of itself to whoever opens it without lgr-pipe: JSON under one name."""
    about = {
        "fingerprint": fingerprint,
        "settings": settings,
        "classes": classes,
        "info": info.model_dump(mode="json", exclude={"calibration", "crops"}),
    }
    return {"lgr_pipe": json.dumps(about)}


def content_digest(columns: dict[str, Column]) -> str:
    lines = [f"{name} {c.dtype} {c.shape} {c.digest}" for name, c in sorted(columns.items())]
    return text_digest("\n".join(lines))


def read_manifest(folder: Place) -> Manifest:
    """The manifest of a complete cache.

    Raises:
        CacheMissingError: no such folder.
        CacheUnfinishedError: no manifest in it.
        CacheDamagedError: a manifest that does not parse or contradicts itself.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        work = scratch_folders(folder) if isinstance(folder, Path) else []
        if work:
            raise CacheUnfinishedError(
                f"{folder} is not finished: its work so far is in {work[0]}. "
                "Run the same crop or extract command again to finish it."
            )
        url = str(folder).partition(":/")[0] in SCHEMES  # a Path makes one slash of two
        hint = "; train and lgr-pipe cache info, verify and convert read URLs" if url else ""
        raise CacheMissingError(f"There is no cache at {folder}: no such folder{hint}.")
    if not path.is_file():
        raise CacheUnfinishedError(
            f"{folder} holds no {MANIFEST}, so it is no finished cache. "
            "Run the crop or extract command that makes it again."
        )
    with damage_in(folder):
        try:
            manifest = validated(Manifest, parse_json(read_plain(path, MANIFEST_LIMIT)))
            _check_consistency(manifest, path)
        except ValueError as error:
            raise CacheDamagedError(
                f"{path} is not a manifest of schema {SCHEMA}: {printable(error)}"
            ) from None
    return manifest


def _check_consistency(manifest: Manifest, path: Place) -> None:
    if not manifest.intact:
        raise CacheDamagedError(f"{path} does not have its digest: it was changed or damaged.")
    if fingerprint(manifest.settings) != manifest.fingerprint:
        raise CacheDamagedError(f"{path}: the fingerprint does not belong to the settings in it.")
    crops = manifest.info.crops
    if crops is not None and fingerprint(crops) != manifest.settings.get("crops"):
        raise CacheDamagedError(f"{path}: the settings of its crops are not those of its crops.")
    if content_digest(manifest.columns) != manifest.content:
        raise CacheDamagedError(f"{path}: the content digest does not belong to its columns.")
    needed = {manifest.bulk, "digest", "label", "subject", "split"}
    if not needed <= manifest.columns.keys():
        missing = ", ".join(sorted(needed - manifest.columns.keys()))
        raise CacheDamagedError(f"{path}: column {missing} is not listed.")
    for name, column in manifest.columns.items():
        if not (name.isidentifier() and name.isascii()):
            raise CacheDamagedError(f"{path}: {name!r} is no name for a column.")
        if column.shape[0] != manifest.rows:
            raise CacheDamagedError(
                f"{path}: column {name} has shape {column.shape}, the cache {manifest.rows} rows."
            )
    _check_shapes(manifest, path)
    _check_sizes(manifest, path)
    listed = manifest.shard_digests
    if listed is not None and len(listed) != manifest.shards:
        raise CacheDamagedError(
            f"{path} lists digests of {len(listed)} shards, the cache has {manifest.shards}."
        )


def _check_shapes(manifest: Manifest, path: Place) -> None:
    """Columns that every reader uses have the shapes that it counts on."""
    if manifest.bulk != manifest.kind:
        raise CacheDamagedError(f"{path}: the bulk column is not {manifest.kind}.")
    rest: dict[str, tuple[int, ...]] = {"digest": (DIGEST_BYTES,)}
    rest |= dict.fromkeys(("label", "subject", "split", "row", "status"), ())
    rest["box"] = (4,)
    for name, column in manifest.columns.items():
        plain = column.dtype.startswith("int") or column.dtype == "uint8"
        if name in rest and not (plain and column.shape[1:] == rest[name]):
            raise CacheDamagedError(
                f"{path}: column {name} cannot be {column.dtype} {column.shape}."
            )


def refuse_rows_without_lines(manifest: Manifest, folder: Place) -> None:
    """A row has a line in the sample table: what states more rows than can have one lies.

    Raises:
        CacheDamagedError: it does, or there is no table.
    """
    path = folder / SAMPLES
    size = refuse_strange_file(path, sys.maxsize)
    if size < manifest.rows * len("{}\n"):
        raise CacheDamagedError(f"{path} has {size} bytes: not {manifest.rows} rows.")


def _check_sizes(manifest: Manifest, path: Place) -> None:
    """No shard and no row is larger than any that is written: memory stays bounded."""
    for name, column in manifest.columns.items():
        row = math.prod(column.shape[1:]) * np.dtype(column.dtype).itemsize
        bulk = name == manifest.bulk
        most = MOST_SHARD if bulk else _MOST_SIDE
        size = row * min(manifest.shard_rows, manifest.rows) if bulk else row
        if size > most:
            what = "a shard" if bulk else "a row"
            raise CacheDamagedError(
                f"{path}: {what} of column {name} would have {size} bytes, more than {most}."
            )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # 1e999 is grammatical
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def parse_json(raw: bytes) -> Any:
    """JSON of a stranger: UTF-8, no NaN or infinity, no deep nesting, no half characters.

    Raises:
        ValueError: it is none.
    """
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _refuse_deep(value)
    if b"\\ud" in raw or b"\\uD" in raw:  # surrogates; ours are written as they are
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character") from None
    return value


def _refuse_deep(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_NESTING):
        held = [v.values() if isinstance(v, dict) else v for v in level]
        level = [v for inner in held for v in inner if isinstance(v, dict | list)]  # next level
        if not level:
            return
    raise ValueError("it is nested too deeply")


def iter_lines(path: Place) -> Iterator[dict[str, Any]]:
    """The rows of a sample table, a file of JSON lines, one at a time.

    Raises:
        CacheDamagedError: a line that is too long, no JSON object, or states what no row of ours
            does (limits.py).
    """
    refuse_strange_file(path, sys.maxsize)
    with path.open("rb") as handle:
        number = 0
        while line := handle.readline(_LINE_LIMIT + 1):
            number += 1
            if line == b"\n":
                continue
            try:
                if len(line) > _LINE_LIMIT:
                    raise ValueError(f"it has more than {_LINE_LIMIT} bytes")
                row = parse_json(line)
                if not isinstance(row, dict):
                    raise ValueError("it is no JSON object")
                check_line(row)
            except ValueError as error:
                raise CacheDamagedError(f"{path}, line {number}: {error}") from None
            yield row


def read_lines(path: Place) -> list[dict[str, Any]]:
    """A whole sample table."""
    return list(iter_lines(path))


def scratch_folder(out: Path, key: str, unit_rows: int) -> Path:
    """Where the cache with the fingerprint `key` is made: next to `out`, on the same file system.

    Whatever else decides how the parts look is in the name too, so that work of
    another version is never mixed in.
    """
    out = out.resolve()
    return out.parent / f".{out.name}.work-{short(key)}.{unit_rows}.{SCHEMA}"


def scratch_folders(out: Path, key: str | None = None) -> list[Path]:
    """Work in progress for `out`: all of it, or that on the fingerprint `key`."""
    out = out.resolve()
    wanted = f".{out.name}.work-{short(key) if key else ''}"
    if not out.parent.is_dir():
        return []
    return sorted(path for path in out.parent.iterdir() if path.name.startswith(wanted))
