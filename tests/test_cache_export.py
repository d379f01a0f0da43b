"""Exports, opened by the plain libraries; never half, never crops or names unasked."""

from __future__ import annotations

import filecmp
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from blake3 import blake3
from safetensors import safe_open
from safetensors.numpy import load_file

from cache.reader import Cache
from cache.schema import MANIFEST, SAMPLES, read_manifest
from cache.share import export_safetensors
from cache.share.export import FORMATS, export
from cache.share.export_rows import samples
from cache.store import STORES
from tests.command import Run
from tests.making import make_cache, nothing
from tests.test_cache_verify import make

NAMES = ("anna", "bert", ".png")


def _ok(done: Any, code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout) + str(done.stderr)


def _values(kind: str) -> np.ndarray:
    """What `make` puts into a cache, drawn again."""
    rng = np.random.default_rng(7)
    latents = rng.random((20, 24), dtype=np.float32)
    return latents if kind == "latents" else rng.integers(0, 255, (20, 8, 8, 3), dtype=np.uint8)


def _export(source: Path, out: Path, to: str, **options: bool) -> bool:
    wanted = {"crops": True, "names": True, "overwrite": False} | options
    return export(source, out, to, tick=nothing, **wanted)


def _bytes(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["latents", "crops"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_npy_opens_with_numpy(tmp_path: Path, store: str, kind: Any) -> None:
    source, out = make(tmp_path / "a", store, kind=kind), tmp_path / "out"
    assert _export(source, out, "npy")
    rows = np.load(out / f"{kind}.npy", mmap_mode="r", allow_pickle=False)
    assert isinstance(rows, np.memmap)
    assert rows.dtype == _values(kind).dtype
    assert np.array_equal(rows, _values(kind))
    assert np.load(out / "label.npy").tolist() == [0, 1] * 10
    digests = np.load(out / "digest.npy")
    assert [d.tobytes() for d in digests] == [blake3(r.tobytes()).digest() for r in rows]
    assert (out / SAMPLES).read_bytes() == (source / SAMPLES).read_bytes()
    said = json.loads((out / "export.json").read_text())
    assert said["cache"] == json.loads((source / MANIFEST).read_text())
    text = (out / "README.txt").read_text()
    code = text.partition("In Python:")[2].replace("\n  ", "\n")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + "\nprint(labels.sum(), classes)"],
        cwd=out, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "10 ['calm', 'tense']\n"


def test_an_export_is_no_cache(tmp_path: Path, here: Run) -> None:
    source = make(tmp_path / "a", "zarr")
    _export(source, tmp_path / "out", "npy")
    listed = json.loads(_ok(here("cache", "ls", tmp_path, "--json")))
    assert [entry["path"] for entry in listed] == [str(source)]


def test_safetensors_opens_with_its_library(tmp_path: Path, store: str, kind: Any) -> None:
    source, out = make(tmp_path / "a", store, kind=kind), tmp_path / "out.safetensors"
    assert _export(source, out, "safetensors")
    found = load_file(out)
    manifest = read_manifest(source)
    assert found.keys() == manifest.columns.keys() | {"samples_jsonl"}
    assert np.array_equal(found[kind], _values(kind))
    with Cache(source) as cache:
        for name in manifest.columns.keys() - {kind}:
            assert found[name].dtype == cache.side(name).dtype
            assert np.array_equal(found[name], cache.side(name))
    assert found["samples_jsonl"].tobytes() == (source / SAMPLES).read_bytes()
    with safe_open(out, framework="np") as file:
        said = file.metadata()
    assert (said["fingerprint"], said["content"]) == (manifest.fingerprint, manifest.content)
    assert json.loads(said["classes"]) == ["calm", "tense"]
    assert json.loads(said["lgr_pipe"])["cache"]["settings"] == manifest.settings
    raw = out.read_bytes()
    assert (8 + int.from_bytes(raw[:8], "little")) % 8 == 0, "tensors are not aligned"


def test_parquet_opens_with_pyarrow(tmp_path: Path, store: str, kind: Any) -> None:
    source, out = make(tmp_path / "a", store, kind=kind), tmp_path / "out.parquet"
    assert _export(source, out, "parquet")
    file = pyarrow.parquet.ParquetFile(out)
    assert [file.metadata.row_group(k).num_rows for k in range(3)] == [8, 8, 4]
    table = file.read()
    rows = [json.loads(line) for line in (source / SAMPLES).read_text().splitlines()]
    for name in ("row", "id", "label", "subject", "split", "status"):
        assert table[name].to_pylist() == [row[name] for row in rows], name
    said = json.loads(table.schema.metadata[b"shape"])
    if kind == "latents":
        assert (
            str(table.schema.field("latent").type) == "fixed_size_list<element: float not null>[24]"
        )
        found = np.stack(table["latent"].to_pylist()).astype(np.float32)
        assert table["crop_row"].to_pylist() == [row["crop"] for row in rows]
    else:
        pixels = b"".join(table["crop"].to_pylist())
        found = np.frombuffer(pixels, dtype=table.schema.metadata[b"dtype"].decode()).reshape(said)
    assert np.array_equal(found, _values(kind))
    assert said == list(_values(kind).shape)
    assert json.loads(table.schema.metadata[b"lgr_pipe"])["cache"]["store"] == store


@pytest.mark.parametrize("to", FORMATS)
def test_half_precision_stays_so(tmp_path: Path, to: str) -> None:
    rows = np.random.default_rng(0).random((9, 5)).astype(np.float16)
    make_cache(tmp_path / "a", "zarr", rows)
    out = tmp_path / "out"
    _export(tmp_path / "a", out, to)
    if to == "npy":
        found = np.load(out / "latents.npy")
    elif to == "safetensors":
        found = load_file(out)["latents"]
    elif to == "parquet":
        column = pyarrow.parquet.read_table(out)["latent"].combine_chunks()
        found = column.flatten().to_numpy().reshape(9, 5)
    else:
        with zipfile.ZipFile(out) as file:
            file.extractall(tmp_path / "unzipped")
        with Cache(next((tmp_path / "unzipped").iterdir())) as cache:
            found = cache.bulk()
    assert found.dtype == np.float16
    assert np.array_equal(found, rows)


def test_the_same_cache_gives_the_same_zip(tmp_path: Path, store: str) -> None:
    source = make(tmp_path / "a", store)
    shutil.copytree(source, tmp_path / "elsewhere" / "b", copy_function=shutil.copyfile)
    os.utime(tmp_path / "elsewhere" / "b" / MANIFEST, (10**9, 10**9))
    (tmp_path / "elsewhere" / "b" / SAMPLES).chmod(0o600)
    _export(source, tmp_path / "a.zip", "zip")
    _export(tmp_path / "elsewhere" / "b", tmp_path / "b.zip", "zip")
    assert filecmp.cmp(tmp_path / "a.zip", tmp_path / "b.zip", shallow=False)
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert file.testzip() is None
        entries = file.infolist()
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert [e.filename for e in entries] == sorted(e.filename for e in entries)
    start = f"latents-{read_manifest(source).fingerprint.partition(':')[2][:12]}/"
    for entry in entries:
        assert (source / entry.filename.removeprefix(start)).is_file()


@pytest.mark.parametrize("to", FORMATS)
def test_crops_are_not_shared_unasked(tmp_path: Path, here: Run, to: str) -> None:
    source = make(tmp_path / "a", "hdf5", kind="crops")
    for words in ((), ("--no-crops",)):
        said = _ok(here("cache", "export", source, tmp_path / "out", "--to", to, *words), 2)
        assert "faces, which are personal data" in said
        assert "add --crops" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]
    _ok(here("cache", "export", source, tmp_path / "out", "--to", to, "--crops"))


def test_no_names(tmp_path: Path, here: Run, kind: Any) -> None:
    source = make(tmp_path / "a", "zarr", kind=kind)
    words = ("cache", "export", source)
    for to in FORMATS[:2]:
        out = tmp_path / to
        _ok(here(*words, out, "--to", to, "--no-names", "--crops"))
        for name, raw in _bytes(out).items():
            assert not [word for word in NAMES if word.encode() in raw], name
            assert read_manifest(source).samples_digest.encode() not in raw
    rows = [json.loads(line) for line in (tmp_path / "npy" / SAMPLES).read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(k) for k in range(20)]
    numbers = np.load(tmp_path / "npy" / "subject.npy")
    assert [row["subject"] for row in rows] == [str(n) if n >= 0 else "" for n in numbers]
    assert {row["label"] for row in rows} == {"calm", "tense"}
    _ok(here(*words, tmp_path / "p", "--to", "parquet", "--no-names", "--crops"))
    table = pyarrow.parquet.read_table(tmp_path / "p")
    assert table["id"].to_pylist() == [row["id"] for row in rows]
    assert table["subject"].to_pylist() == [row["subject"] for row in rows]
    said = _ok(here(*words, tmp_path / "z", "--to", "zip", "--no-names", "--crops"), 2)
    assert "use --to npy" in said
    assert not (tmp_path / "z").exists()


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_there_already(tmp_path: Path, here: Run, to: str) -> None:
    a, b = make(tmp_path / "a", "zarr"), make(tmp_path / "b", "zarr", settings={"seed": 1})
    out = tmp_path / "out"
    words = ("cache", "export")
    said = json.loads(_ok(here(*words, a, out, "--to", to, "--json")))
    assert said["made"] is True
    assert said["bytes"] == sum(map(len, _bytes(out).values()))
    before = _bytes(out)
    assert "nothing to do" in _ok(here(*words, a, out, "--to", to))
    assert "another export: add --overwrite" in _ok(here(*words, b, out, "--to", to), 2)
    assert _bytes(out) == before
    _ok(here(*words, b, out, "--to", to, "--overwrite"))
    _export(b, tmp_path / "fresh", to)
    assert _bytes(out) == _bytes(tmp_path / "fresh") != before
    victim = out / "latents.npy" if to == "npy" else out
    raw = bytearray(victim.read_bytes())
    raw[-30 if to == "npy" else len(raw) // 2] ^= 1
    victim.write_bytes(raw)
    said = _ok(here(*words, b, out, "--to", to), 2)
    assert "its bytes are others" in said or "is no" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "fresh", "out"]


@pytest.mark.parametrize("to", FORMATS)
def test_other_things_are_never_replaced(tmp_path: Path, here: Run, to: str) -> None:
    a, file, folder = make(tmp_path / "a", "zarr"), tmp_path / "file", tmp_path / "folder"
    file.write_bytes(b"PK" + b"thesis" * 1000)
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    _export(a, tmp_path / "npy", "npy")
    (tmp_path / "npy" / "mine.txt").write_text("x")
    for out in (file, folder, tmp_path / "npy", a, a / "in"):
        words = ("cache", "export", a, out, "--to", to, "--overwrite")
        assert "choose another" in _ok(here(*words), 2), out
    assert file.stat().st_size == 6002
    assert (tmp_path / "npy" / "mine.txt").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert "must be npy, safetensors" in _ok(here("cache", "export", a, file, "--to", "csv"), 2)


@pytest.mark.parametrize("to", FORMATS)
def test_a_damaged_cache_is_not_exported(tmp_path: Path, here: Run, to: str) -> None:
    a = make(tmp_path / "a", "zarr")
    chunk = a / "data.zarr" / "latents" / "c" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9] + b"123456789")
    _ok(here("cache", "export", a, tmp_path / "out", "--to", to), 2)
    b = make(tmp_path / "b", "hdf5")
    (b / SAMPLES).write_text((b / SAMPLES).read_text().replace("anna", "otto"))
    _ok(here("cache", "export", b, tmp_path / "out", "--to", to), 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_table_of_another_length_is_damage(tmp_path: Path) -> None:
    a = make(tmp_path / "a", "zarr")
    with Cache(a) as cache:
        cache.manifest = cache.manifest.model_copy(update={"rows": 19})
        found = samples(cache, names=True)
        with pytest.raises(Exception, match="the cache has 19"):
            list(found)


def test_a_full_disk_is_a_sentence(tmp_path: Path, here: Run) -> None:
    rows = np.random.default_rng(0).random((256, 1000), dtype=np.float32)
    make_cache(tmp_path / "a", "hdf5", rows, shard_rows=64)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for to in FORMATS:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, before[1]))
        try:
            done = here("cache", "export", tmp_path / "a", tmp_path / "out", "--to", to)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "make room and run it again" in _ok(done, 1), to
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("to", ["npy", "safetensors"])
def test_memory_is_a_shard_not_a_cache(tmp_path: Path, to: str) -> None:
    rows = np.zeros((2048, 1024), dtype=np.float32)  # 8.4 MB, a shard has 0.26
    make_cache(tmp_path / "a", "hdf5", rows, shard_rows=64)
    tracemalloc.start()
    try:
        _export(tmp_path / "a", tmp_path / "out", to)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def test_parquet_says_what_it_needs(
    tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make(tmp_path / "a", "zarr")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = _ok(here("cache", "export", a, tmp_path / "out", "--to", "parquet"), 2)
    assert "pip install 'lgr-pipe[parquet]'" in said


def test_a_header_that_is_too_large(
    tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make(tmp_path / "a", "zarr")
    monkeypatch.setattr(export_safetensors, "HEADER_LIMIT", 1000)
    said = _ok(here("cache", "export", a, tmp_path / "out", "--to", "safetensors"), 2)
    assert "use --to npy" in said


KILLED = """
import os, signal, sys
from pathlib import Path
from cache import beside
from cache.share import export as room
left = int(sys.argv[3])
def one_less(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
rename, put = Path.rename, beside.put
def counted_rename(self, target):
    one_less()
    done = rename(self, target)
    one_less()
    return done
def counted_put(*words, **options):
    one_less()
    put(*words, **options)
    one_less()
Path.rename, beside.put = counted_rename, counted_put
room.export(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4], crops=False, names=True,
            overwrite=True, tick=one_less)
"""


@pytest.mark.parametrize(
    ("to", "moment"),
    [("npy", 2), ("npy", 4), ("npy", 6), ("npy", 8), ("safetensors", 2), ("safetensors", 5),
     ("parquet", 3), ("zip", 9), ("zip", 11)],
)  # fmt: skip
def test_a_kill_leaves_nothing_half(tmp_path: Path, here: Run, to: str, moment: int) -> None:
    """At shards (1-3; a zip's 7 ticks and 4 files), around the put, an npy folder's 2 renames."""
    a, b = make(tmp_path / "a", "hdf5"), make(tmp_path / "b", "hdf5", settings={"seed": 1})
    out = tmp_path / "out"
    _export(b, out, to)
    old = _bytes(out)
    _export(a, tmp_path / "new", to)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(a), str(out), str(moment), to], check=False
    )
    assert done.returncode == -signal.SIGKILL
    if out.exists():
        assert _bytes(out) in (old, _bytes(tmp_path / "new"))
    assert len(list(tmp_path.iterdir())) > 3, "nothing was under way"
    _ok(here("cache", "export", a, out, "--to", to, "--overwrite"))
    assert _bytes(out) == _bytes(tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "new", "out"]
