"""verify finds every fault: each byte of each file, and caches that lie consistently."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from cache.care.verify import Fault, Report, runs, steps, verify
from cache.digest import column_digest, file_digest, row_digests
from cache.errors import CacheMissingError, CacheUnfinishedError, Refused
from cache.files import write_json, write_json_lines
from cache.listing import read_provenance, without_list, write_provenance
from cache.parts import Parts, Plan, unfinished
from cache.reader import Cache
from cache.schema import (
    MANIFEST,
    PROVENANCE,
    SAMPLES,
    SPLITS,
    Info,
    Kind,
    Manifest,
    content_digest,
    read_manifest,
)
from cache.store import STORES
from cache.writer import Content, publish
from tests.making import make_cache, nothing

CLASSES = ("calm", "tense")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(
    out: Path,
    store: str,
    *,
    kind: Kind = "latents",
    rows: int = 20,
    settings: dict[str, Any] | None = None,
    ids: list[str] | None = None,
    info: dict[str, Any] | None = None,
) -> Path:
    """A cache with a full sample table, 8 rows a shard."""
    rng = np.random.default_rng(7)
    latents = rng.random((rows, 24), dtype=np.float32)
    crops = rng.integers(0, 255, (rows, 8, 8, 3), dtype=np.uint8)
    bulk = latents if kind == "latents" else crops
    said: dict[str, Any] = {"dataset": "d", "images": {"found": rows - 1, "whole": 1}}
    if kind == "latents":
        said |= {"backbone": "vgg16", "value_range": (0.0, 1.0), "observed_range": _bounds(bulk)}
    plan = Plan(
        kind=kind, settings={"kind": kind, "seed": 0} | (settings or {}), dtype=bulk.dtype.name,
        row_shape=bulk.shape[1:], rows=rows, unit_rows=8, store=store, classes=CLASSES,
        info=Info.model_validate(said | (info or {})),
    )  # fmt: skip
    parts = Parts(out, plan).start()
    for unit in plan.units:
        span = plan.rows_of(unit)
        parts.write(unit, bulk[span.start : span.stop], {})
    table = [
        {
            "row": k, "id": ids[k] if ids else f"{k}.png", "label": CLASSES[k % 2],
            "subject": ("", "anna", "bert")[k % 3], "split": "test" if k % 5 == 0 else "train",
            "status": "whole" if k == 3 else "found",
        }
        | ({"crop": 2 * k} if kind == "latents" else {"reason": ""})
        for k in range(rows)
    ]  # fmt: skip
    rank = {"": -1, "anna": 0, "bert": 1} if kind == "crops" else {"": -1, "anna": 4, "bert": 9}
    side = {
        "label": np.arange(rows, dtype=np.int16) % 2,
        "subject": np.array([rank[s["subject"]] for s in table], dtype=np.int32),
        "split": np.array([SPLITS.index(s["split"]) for s in table], dtype=np.uint8),
    }
    side |= {"row": np.arange(rows, dtype=np.int32) * 2} if kind == "latents" else {}
    made = Content(side, table, CLASSES, plan.info, {"made": "2026-01-02T03:04:05+00:00"})
    publish(parts, made, store=store, overwrite=False, shard_rows=8)
    return out


def make_legal(
    out: Path, store: str, rows: np.ndarray, ids: list[str], labels: list[int] | None = None
) -> Path:
    """Latents of any values and ids: all train, calm unless `labels` say otherwise."""
    make_cache(out, store, rows, stop_after=99, shard_rows=8)
    parts, n = unfinished(out, "latents"), len(rows)
    label = np.array(labels or [0] * n, dtype=np.int16)
    table = [
        {"row": k, "id": i, "label": CLASSES[label[k]], "subject": "", "split": "train"}
        for k, i in enumerate(ids)
    ]
    side = {
        "label": label, "subject": np.full(n, -1, dtype=np.int32), "split": np.zeros(n, np.uint8),
    }  # fmt: skip
    content = Content(side, table, CLASSES, Info(dataset="d"), {"made": "now"})
    publish(parts, content, store=store, overwrite=False, shard_rows=8)
    return out


def _bounds(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def check(path: Path) -> Report:
    return verify(path, nothing)


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


def where(report: Report) -> set[str]:
    return {fault.where for fault in report.faults}


def relist(path: Path) -> None:
    """Like a liar who knows the format: list the files as they are now."""
    about = without_list(json.loads((path / PROVENANCE).read_text()))
    write_provenance(path, about)


def reseal(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A changed manifest with all digests of itself in order; of shards it lists none, like those
    of before."""
    said = json.loads((path / MANIFEST).read_text())
    said.pop("shard_digests", None)
    change(said)
    said["samples_digest"] = file_digest(path / SAMPLES)
    manifest = Manifest.model_validate(said)
    manifest = manifest.model_copy(update={"content": content_digest(manifest.columns)})
    write_json(path / MANIFEST, manifest.sealed().model_dump(mode="json"))


@pytest.mark.parametrize("kind", ["crops", "latents"])
def test_a_whole_cache_has_no_fault(tmp_path: Path, store: str, kind: Kind) -> None:
    ticks: list[int] = []
    report = verify(make(tmp_path / "c", store, kind=kind), ticks.append)
    assert report.faults == []
    assert report.notes == []
    assert sum(ticks) == steps(tmp_path / "c")
    assert report.manifest == read_manifest(tmp_path / "c")


def test_caches_of_stage_one_have_no_fault(crops: Path, latents: Path) -> None:
    for path in (crops, latents):
        report = check(path)
        assert (report.faults, report.notes) == ([], [])


@pytest.mark.parametrize("kind", ["crops", "latents"])
def test_a_flipped_byte_is_found_anywhere(tmp_path: Path, store: str, kind: Kind) -> None:
    """Many places of every file, free space of HDF5 and spaces of JSON among them."""
    path = make(tmp_path / "c", store, kind=kind)
    for file in files_of(path):
        good = file.read_bytes()
        assert good, file
        for number, place in enumerate(
            np.linspace(0, len(good) - 1, 400 if file.suffix == ".h5" else 11).astype(int)
        ):
            bad = bytearray(good)
            bad[place] ^= (0x01, 0x10, 0x80, 0xFF)[number % 4]
            file.write_bytes(bad)
            assert check(path).faults, f"{file.relative_to(path)}, byte {place}"
        file.write_bytes(good)
    assert not check(path).faults


@pytest.mark.parametrize("name", [MANIFEST, PROVENANCE])
def test_every_byte_of_the_small_files_counts(tmp_path: Path, name: str) -> None:
    """Spaces, line ends and the names of the digests themselves."""
    path = make(tmp_path / "c", "hdf5")
    (path / "data.h5").unlink()  # only the small files are of interest, and quick
    before = check(path).faults
    good = (path / name).read_bytes()
    for place in range(0, len(good), 3):
        bad = bytearray(good)
        bad[place] ^= 0x20 if chr(bad[place]).isalpha() or bad[place] in b" \n" else 0x01
        (path / name).write_bytes(bad)
        assert check(path).faults != before, place


def test_all_faults_are_told_with_rows_and_shards(tmp_path: Path, store: str) -> None:
    path = make(tmp_path / "c", store)
    for name, change in (("label", 3), ("latents", 4), ("latents", 5), ("latents", 17)):
        if store == "zarr":
            array = zarr.open_group(path / "data.zarr", mode="r+")[name]
            array[change] = 0  # type: ignore[index]
        else:
            with h5py.File(path / "data.h5", "r+") as file:
                file[name][change] = 0
    (path / "love.txt").write_text("dear")
    report = check(path)
    found = {(f.where, f.rows, f.shards) for f in report.faults if f.rows}
    assert found == {
        ("column label", ((3, 3),), (0,)),
        ("column latents", ((4, 5), (17, 17)), (0, 2)),
    }
    assert Fault("love.txt", "does not belong to a cache.") in report.faults
    assert Fault("column label", "does not have its digest.") in report.faults


def test_what_cannot_be_read_is_named_by_its_rows(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    shard = path / "data.zarr" / "latents" / "c" / "1" / "0"
    shard.write_bytes(b"x" * 100)
    (path / "data.zarr" / "latents" / "c" / "2" / "0").unlink()
    report = check(path)
    rows = {f.what.partition(":")[0]: f.rows for f in report.faults if f.rows}
    assert rows["cannot be read"] == ((8, 19),)
    assert Fault("data.zarr/latents/c/2/0", "is missing.") in report.faults


def test_nan_and_range_are_checked_even_where_all_digests_hold(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "hdf5")
    with h5py.File(path / "data.h5", "r+") as file:
        rows = file["latents"][:]
        rows[2, 3], rows[9, 0], rows[10, 1] = np.nan, 1.5, np.inf
        file["latents"][:], file["digest"][:] = rows, row_digests(rows)
    digest = column_digest(row_digests(rows))

    def lie(said: dict[str, Any]) -> None:
        said["columns"]["digest"]["digest"] = said["columns"]["latents"]["digest"] = digest

    reseal(path, lie)
    relist(path)
    assert {(f.what.partition(" or")[0], f.rows) for f in check(path).faults} == {
        ("holds NaN", ((2, 2), (10, 10))),
        ("leaves the stated range {:g} to {:g}".format(*_stated(path)), ((9, 9),)),
    }


def _stated(path: Path) -> tuple[float, float]:
    said = read_manifest(path).info.observed_range
    assert said is not None
    return said


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("label", "tense", "column label"),
        ("label", "unheard of", "column label"),
        ("split", "train", "column split"),
        ("subject", "bert", "column subject"),
        ("subject", "zoe", "column subject"),
        ("crop", 1, "column row"),
        ("row", 11, SAMPLES),
    ],
)
def test_a_table_of_other_rows_is_found(
    tmp_path: Path, field: str, value: object, place: str
) -> None:
    """All digests are in order; row 10 is calm, test, anna, crop 20."""
    path = make(tmp_path / "c", "hdf5")
    table = [json.loads(line) for line in (path / SAMPLES).read_text().splitlines()]
    table[10][field] = value
    write_json_lines(path / SAMPLES, table)
    reseal(path, dict)
    relist(path)
    (fault,) = check(path).faults
    assert fault.where == place
    assert fault.rows
    if field != "subject" or value != "zoe":
        assert (10, 10) in fault.rows


def test_statuses_are_counted(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr", kind="crops", info={"images": {"found": 20}})
    assert [f.what for f in check(path).faults] == [
        "its statuses are not counted as the manifest counts them."
    ]


def test_a_cache_of_before_the_list_is_read_and_noted(tmp_path: Path, store: str) -> None:
    path = make(tmp_path / "c", store)
    old = without_list(read_provenance(path))
    write_json(path / PROVENANCE, old)
    report = check(path)
    assert report.faults == []
    assert "made before files were listed" in report.notes[0]
    with Cache(path) as cache:
        assert len(cache.bulk()) == 20


def test_the_list_decides_no_digest(tmp_path: Path) -> None:
    """Another provenance: the same manifest, byte by byte."""
    make(tmp_path / "a", "zarr")
    before = (tmp_path / "a" / MANIFEST).read_bytes()
    write_provenance(tmp_path / "a", {"made": "later"})
    assert (tmp_path / "a" / MANIFEST).read_bytes() == before
    assert check(tmp_path / "a").faults == []


def test_a_table_without_labels_is_noted(tmp_path: Path) -> None:
    make_cache(tmp_path / "c", "zarr", np.zeros((9, 4), dtype=np.float32))
    report = check(tmp_path / "c")
    assert report.faults == []
    assert "samples.jsonl states no label" in report.notes[0]


def test_there_must_be_a_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError):
        check(tmp_path / "nowhere")
    with pytest.raises(CacheUnfinishedError):
        check(tmp_path)


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads((path / MANIFEST).read_text())
    change(said)
    (path / MANIFEST).write_text(json.dumps(said))


def _absurd_rows(said: dict[str, Any]) -> None:
    said["rows"] = said["shard_rows"] = 10**12
    for column in said["columns"].values():
        column["shape"][0] = 10**12


def _shape(said: dict[str, Any], column: str, length: int) -> None:
    said["columns"][column]["shape"] = [said["rows"], length]


HOSTILE: dict[str, Callable[[Path], object]] = {
    "deep": lambda p: (p / MANIFEST).write_text("[" * 100_000),
    "deep settings": lambda p: _edit(p, lambda s: s["settings"].update(a=_deep(500))),
    "deep sample": lambda p: (p / SAMPLES).write_text("[" * 100_000 + "\n"),
    "long line": lambda p: (p / SAMPLES).write_text('{"a": "' + "x" * 3_000_000 + '"}'),
    "no text": lambda p: (p / SAMPLES).write_bytes(b"\xff\xfe\n"),
    "nan": lambda p: _edit(p, lambda s: s["settings"].update(a=float("nan"))),
    "infinite": lambda p: (p / MANIFEST).write_text('{"settings": {"a": 1e999}}'),
    "surrogate": lambda p: (p / MANIFEST).write_text('{"settings": {"a": "\\ud800"}}'),
    "absurd rows": lambda p: _edit(p, _absurd_rows),
    "absurd and sealed": lambda p: reseal(p, _absurd_rows),
    "many shards": lambda p: reseal(p, lambda s: (_absurd_rows(s), s.update(shard_rows=1))),
    "digest of another length": lambda p: reseal(p, lambda s: _shape(s, "digest", 16)),
    "labels in a row": lambda p: reseal(p, lambda s: _shape(s, "label", 3)),
    "list": lambda p: (p / PROVENANCE).write_text("[]\n"),
    "huge number": lambda p: (p / PROVENANCE).write_text("1" * 10_000),
    "folder": lambda p: ((p / SAMPLES).unlink(), (p / SAMPLES).mkdir()),
    "pipe": lambda p: ((p / SAMPLES).unlink(), os.mkfifo(p / SAMPLES)),
}


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_a_fault_and_no_crash(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "c", "zarr")
    HOSTILE[name](path)
    assert check(path).faults
    if name not in ("list", "huge number"):
        with pytest.raises(Refused), Cache(path) as cache:
            cache.samples()


def test_a_pipe_among_the_chunks_is_not_waited_for(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    chunk = path / "data.zarr" / "label" / "c" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    report = check(path)
    assert "data.zarr/label/c/0" in where(report)
    assert "not read" in report.notes[0]


def test_an_array_without_its_bytes_takes_no_memory(tmp_path: Path) -> None:
    """A dataset that was never written says nothing of its size on disk."""
    path = make(tmp_path / "c", "hdf5")
    with h5py.File(path / "data.h5", "r+") as file:
        del file["latents"]
        file.create_dataset("latents", (20, 24), "<f4", chunks=(8, 24), fletcher32=True)
    assert any("1920 bytes, 0 are there" in f.what for f in check(path).faults)
    with h5py.File(path / "data.h5", "r+") as file:
        del file["latents"]
        file.create_dataset("latents", (20, 24), "<f4", chunks=(8, 24), compression="gzip")
    assert any("filtered as no cache of ours" in f.what for f in check(path).faults)


def test_links_to_files_are_followed_as_dvc_makes_them(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "hdf5")
    shutil.move(path / "data.h5", tmp_path / "elsewhere")
    (path / "data.h5").symlink_to(tmp_path / "elsewhere")
    assert check(path).faults == []


def test_runs() -> None:
    assert runs(np.array([], dtype=np.int64)) == ()
    assert runs(np.array([0, 1, 2, 7, 9, 10])) == ((0, 2), (7, 7), (9, 10))
