"""HDF5 files from strangers: links, virtual and external data, types, filters, growth."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.hostile import SECRET, refused
from tests.test_cache_verify import make


def _replaced(path: Path, **how: Any) -> None:
    with h5py.File(path / "data.h5", "r+") as file:
        del file["label"]
        file.create_dataset("label", **how)


def _enum() -> Any:
    return h5py.enum_dtype({"A": 0, "B": 1}, basetype="<i2")


def _virtual(path: Path) -> None:
    """Whoever asks it for its shape opens the other file, here a pipe."""
    os.mkfifo(path.parent / "pipe.h5")
    layout = h5py.VirtualLayout(shape=(20,), maxshape=(None,), dtype="<i2")
    source = h5py.VirtualSource(path.parent / "pipe.h5", "x", shape=(20,), maxshape=(None,))
    layout[0 : h5py.UNLIMITED] = source[0 : h5py.UNLIMITED]
    with h5py.File(path / "data.h5", "r+", libver="latest") as file:
        del file["label"]
        file.create_virtual_dataset("label", layout)


def _linked(path: Path, link: Any) -> None:
    with h5py.File(path / "data.h5", "r+") as file:
        del file["label"]
        file["label"] = link


def _cycle(path: Path) -> None:
    with h5py.File(path / "data.h5", "r+") as file:
        del file["label"]
        file["label"] = file["/"]


def _unlimited(path: Path) -> None:
    """Chunks of 2 GB, of which the library keeps one; nothing of them is on the disk."""
    _replaced(path, shape=(20,), maxshape=(None,), dtype="<i2", chunks=(1 << 30,))


HDF5: dict[str, tuple[Callable[[Path], object], str]] = {
    "external link": (lambda p: _linked(p, h5py.ExternalLink("/a.h5", "/x")), "no array inside"),
    "soft link": (lambda p: _linked(p, h5py.SoftLink("/split")), "no array inside"),
    "group in a circle": (_cycle, "no array inside"),
    "virtual": (_virtual, "no array inside"),
    "external storage": (
        lambda p: _replaced(p, shape=(20,), dtype="<i2", external=[("/etc/passwd", 0, 40)]),
        "no array inside",
    ),
    "text": (lambda p: _replaced(p, data=[SECRET] * 20), "holds what no cache"),
    "lists": (
        lambda p: _replaced(p, shape=(20,), dtype=h5py.vlen_dtype(np.int16)), "holds what no cache"
    ),
    "references": (lambda p: _replaced(p, shape=(20,), dtype=h5py.ref_dtype), "holds what no"),
    "struct": (lambda p: _replaced(p, shape=(20,), dtype="i2,i4"), "holds what no cache"),
    "enum": (lambda p: _replaced(p, shape=(20,), dtype=_enum()), "holds what no cache"),
    "opaque": (lambda p: _replaced(p, shape=(20,), dtype="V2"), "holds what no cache"),
    "gzip": (
        lambda p: _replaced(p, data=np.zeros(20, "<i2"), chunks=(20,), compression="gzip"),
        "filtered as no cache of ours",
    ),
    "growing": (_unlimited, "or could grow"),
    "no shape": (lambda p: _replaced(p, data=np.int16(3)), r"label of \(\) is cut"),
    "empty": (lambda p: _replaced(p, data=h5py.Empty("<i2")), "not read"),
    "absurd": (
        lambda p: _replaced(p, shape=(1 << 40,), dtype="<i2", chunks=(1 << 20,)), "0 are there"
    ),
    "cut off": (lambda p: os.truncate(p / "data.h5", 3000), "cannot be opened"),
    "no hdf5": (lambda p: (p / "data.h5").write_text(SECRET), "cannot be opened"),
}  # fmt: skip


@pytest.mark.parametrize("name", HDF5)
def test_an_hdf5_file_that_is_none_of_ours(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "c", "hdf5")
    harm, says = HDF5[name]
    harm(path)
    refused(path, says)
