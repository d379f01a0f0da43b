"""One safetensors file: every column a tensor, the sample table too.

    label, latents, split, ...   the columns
    samples_jsonl                uint8: the sample table, JSON lines in UTF-8
    metadata                     fingerprint, content, classes and splits (JSON lists), and under
                                 lgr_pipe all of the cache's manifest

The table is a tensor because a header may have 100 MB, a table more.  The
library writes only what it has in memory as a whole; the format (length of
the header, header, bytes) is simple enough to be streamed.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np

from cache.errors import CacheDamagedError, Refused
from cache.reader import Cache
from cache.schema import SPLITS
from cache.share.export_rows import (
    KEY,
    Format,
    Tick,
    about,
    blocks,
    claimed,
    json_lines,
    json_text,
    plain,
)

TABLE = "samples_jsonl"
_TYPES = {
    "uint8": "U8", "int16": "I16", "int32": "I32", "int64": "I64", "float16": "F16",
    "float32": "F32",
}  # fmt: skip
HEADER_LIMIT = 100_000_000  # bytes: the library refuses to read more


def write(cache: Cache, out: Path, names: bool, tick: Tick) -> None:
    """Make the file `out`; the table waits beside it, as its length stands in the header."""
    manifest = cache.manifest
    if TABLE in manifest.columns:
        raise CacheDamagedError(f"{cache.path} has a column {TABLE}, as no cache of ours has.")
    table = out.with_name(f"{out.name}.{TABLE}")
    with table.open("wb") as handle:
        handle.writelines(json_lines(cache, names=names))
    shapes = {name: (c.dtype, c.shape) for name, c in manifest.columns.items()}
    shapes[TABLE] = ("uint8", (table.stat().st_size,))
    # Wide types first, so that each tensor is aligned, as the library has it.
    order = sorted(shapes, key=lambda n: (-np.dtype(shapes[n][0]).itemsize, n))
    with out.open("wb") as handle:
        handle.write(_header(cache, {name: shapes[name] for name in order}, names))
        for name in order:
            _tensor(handle, cache, name, table, tick)
    table.unlink()


def _tensor(handle: IO[bytes], cache: Cache, name: str, table: Path, tick: Tick) -> None:
    if name == cache.manifest.bulk:
        for rows in blocks(cache, tick):
            handle.write(rows.data)
    elif name == TABLE:
        with table.open("rb") as source:
            shutil.copyfileobj(source, handle, 1 << 20)
    else:
        handle.write(plain(cache.side(name)).data)


def _header(cache: Cache, shapes: dict[str, tuple[str, tuple[int, ...]]], names: bool) -> bytes:
    manifest = cache.manifest
    said: dict[str, Any] = {
        "__metadata__": {
            "fingerprint": manifest.fingerprint,
            "content": manifest.content,
            "kind": manifest.kind,
            "classes": json_text(manifest.classes),
            "splits": json_text(SPLITS),
            KEY: json_text(about(manifest, "safetensors", names=names)),
        }
    }
    place = 0
    for name, (dtype, shape) in shapes.items():
        end = place + math.prod(shape) * np.dtype(dtype).itemsize
        said[name] = {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [place, end]}
        place = end
    raw = json_text(said).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > HEADER_LIMIT:
        raise Refused(
            f"The manifest of {cache.path} is too large for a safetensors header "
            f"({len(raw)} bytes, at most {HEADER_LIMIT}): use --to npy or --to zip."
        )
    return len(raw).to_bytes(8, "little") + raw


def claim(out: Path) -> dict[str, Any] | None:
    """What the metadata say; None: no safetensors file, or not of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(out, framework="np") as file:
            said = (file.metadata() or {}).get(KEY, "")
    except (SafetensorError, OSError, ValueError):
        return None
    return claimed(said.encode("utf-8", "backslashreplace"), "safetensors")


FORMAT = Format(write, claim)
