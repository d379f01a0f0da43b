"""A folder of plain arrays.

    latents.npy (or crops.npy), label.npy, split.npy, ...   one file a column
    samples.jsonl    one line a row
    export.json      where it comes from: the cache's manifest
    README.txt       how to read it

Not named manifest.json, so that nothing takes it for a cache.  Rows are
streamed, not written through a memory map: on a full disk a map ends in a
signal, a write in an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import numpy as np

from cache.files import write_json
from cache.reader import Cache
from cache.schema import MANIFEST_LIMIT, SAMPLES, SPLITS
from cache.share.export_rows import Format, Tick, about, blocks, claimed, json_lines, plain
from cache.store import little_endian

ABOUT, README = "export.json", "README.txt"


def write(cache: Cache, out: Path, names: bool, tick: Tick) -> None:
    """Fill the folder `out`, which must not be there yet."""
    out.mkdir()
    manifest = cache.manifest
    for name in sorted(manifest.columns.keys() - {manifest.bulk}):
        np.save(out / f"{name}.npy", plain(cache.side(name)), allow_pickle=False)
    with (out / f"{manifest.bulk}.npy").open("wb") as handle:
        _header(
            handle, manifest.columns[manifest.bulk].dtype, manifest.columns[manifest.bulk].shape
        )
        for rows in blocks(cache, tick):
            handle.write(rows.data)
    with (out / SAMPLES).open("wb") as handle:
        handle.writelines(json_lines(cache, names=names))
    write_json(out / ABOUT, about(manifest, "npy", names=names))
    (out / README).write_text(_readme(cache, names), encoding="utf-8")


def _header(handle: IO[bytes], dtype: str, shape: tuple[int, ...]) -> None:
    """Of NumPy's own format, as `np.save` writes it."""
    said: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(little_endian(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(handle, said)


def claim(out: Path) -> dict[str, Any] | None:
    """What export.json says; None: `out` is no such folder, or something else lies in it."""
    path = out / ABOUT
    if not path.is_file() or path.stat().st_size > MANIFEST_LIMIT:
        return None
    known = {ABOUT, README, SAMPLES}
    for found in out.iterdir():
        if not found.is_file() or (found.suffix != ".npy" and found.name not in known):
            return None
    return claimed(path.read_bytes(), "npy")


def _readme(cache: Cache, names: bool) -> str:
    manifest = cache.manifest
    bulk = manifest.columns[manifest.bulk]
    what = "pictures of faces" if manifest.kind == "crops" else "features of pictures of faces"
    split = ", ".join(f"{k} is {name}" for k, name in enumerate(SPLITS))
    who = (
        "File names and people's names or numbers are in it."
        if names
        else "Names were left out: ids are row numbers, subjects are numbers."
    )
    return f"""\
{manifest.rows} {manifest.kind} of the data set {json.dumps(manifest.info.dataset)}: {what}, \
written by lgr-pipe cache export.

Every .npy file is one column; position k in each of them is the same picture.

  {manifest.bulk}.npy  {bulk.dtype}, {" x ".join(map(str, bulk.shape))}, rows first
  label.npy    class of each row, a position in "classes" in {ABOUT}
  split.npy    {split}
  subject.npy  number of the person, -1 where it is not known
  digest.npy   blake3 of the bytes of each row of {manifest.bulk}.npy

{SAMPLES} has one line of JSON a row: id, label, subject, split and more.
{who}
{ABOUT} says where it comes from: settings, classes, fingerprint {manifest.fingerprint}.

In Python:

  import json
  import numpy as np

  {manifest.bulk} = np.load("{manifest.bulk}.npy", mmap_mode="r", allow_pickle=False)
  labels = np.load("label.npy", allow_pickle=False)
  classes = json.load(open("{ABOUT}", encoding="utf-8"))["cache"]["classes"]
"""


FORMAT = Format(write, claim, folder=True)
