"""Scratch folders from strangers: plans, records, parts and links that are not what they seem."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.digest import bytes_digest
from cache.errors import CacheDamagedError, CacheUnfinishedError, Refused
from cache.files import write_json, write_json_lines
from cache.find import find
from cache.parts import PLAN, Parts, Plan, unfinished
from cache.progress import work_in
from cache.reader import Cache
from cache.schema import MANIFEST_LIMIT, SAMPLES, Info, scratch_folder
from stages.extract.calibrate import stored_calibration
from stages.extract.crop import publish_crops, rows_digest
from stages.extract.latents import publish_latents
from tests.hostile import SECRET, little_memory
from tests.making import make_cache

ROWS = np.random.default_rng(0).random((10, 6), dtype=np.float32)


@pytest.fixture
def work(tmp_path: Path) -> Parts:
    """Three units of latents, all done: 4, 4 and 2 rows of 6 values."""
    make_cache(tmp_path / "c", "zarr", ROWS, stop_after=3)
    return unfinished(tmp_path / "c", "latents")


def _plan(work: Parts, **change: Any) -> None:
    path = work.scratch / PLAN
    write_json(path, {**json.loads(path.read_text()), **change})


CLAIMS: dict[str, dict[str, Any]] = {
    "endless rows": {"rows": 1 << 40},
    "endless units": {"rows": 1 << 31, "unit_rows": 1},
    "no units": {"unit_rows": 0},
    "endless rows in a unit": {"rows": 1 << 30, "unit_rows": 1 << 30, "row_shape": [1]},
    "a unit of a terabyte": {"rows": 1 << 20, "unit_rows": 1 << 20, "row_shape": [1 << 20]},
    "no shape": {"row_shape": []},
    "a negative shape": {"row_shape": [-6]},
    "a shape without end": {"row_shape": [10**4000]},
    "objects": {"dtype": "object"},
    "control characters": {"classes": ["a\x1b[2J", "b"]},
    "many classes": {"classes": ["a"] * 40_000},
    "another store": {"store": "../../x"},
    "deep settings": {"settings": {"a": json.loads("[" * 70 + "]" * 70)}},
    "other settings": {"settings": {"kind": "latents", "seed": 1}},
    "other units": {"unit_rows": 5},
    "a further field": {SECRET: 1},
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_plan_that_claims_too_much_is_no_plan(work: Parts, name: str) -> None:
    _plan(work, **CLAIMS[name])
    started = time.monotonic()
    with little_memory(5_000_000):
        assert work_in(work.scratch) is None
        assert [f.work for f in find(work.out.parent) if f.work] == []
        with pytest.raises(CacheUnfinishedError, match="no unfinished work"):
            unfinished(work.out, "latents")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("how", ["pipe", "link", "huge", "deep", "folder"])
def test_a_plan_that_is_no_plain_file_is_no_plan(work: Parts, how: str) -> None:
    path = work.scratch / PLAN
    kept = path.rename(path.with_name("kept"))
    harms: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(kept),
        "huge": lambda: (path.touch(), os.truncate(path, MANIFEST_LIMIT + 1)),
        "deep": lambda: path.write_text("[" * 100_000),
        "folder": path.mkdir,
    }
    harms[how]()
    assert work_in(work.scratch) is None
    with pytest.raises(CacheUnfinishedError, match="no unfinished work"):
        unfinished(work.out, "latents")


def test_many_units_without_a_record_are_counted_quickly(tmp_path: Path) -> None:
    plan = Plan(
        kind="latents", settings={}, dtype="uint8", row_shape=(1,), rows=1 << 23, unit_rows=1,
        store="zarr", classes=("a",), info=Info(dataset="d"),
    )  # fmt: skip
    parts = Parts(tmp_path / "c", plan).start()
    started = time.monotonic()
    assert len(parts.missing()) == 1 << 23
    assert time.monotonic() - started < 10


# links


@pytest.mark.parametrize("name", ["", "parts", "records", SAMPLES, "published", "state.npy"])
def test_nothing_is_written_or_deleted_through_a_link(work: Parts, name: str) -> None:
    path = work.scratch / name
    elsewhere = work.out.parent / "elsewhere"
    if path.exists():
        path.rename(elsewhere)
    else:
        elsewhere.touch()
    path.symlink_to(elsewhere)
    before = _tree(elsewhere)
    for act in (work.start, work.missing, lambda: unfinished(work.out, "latents")):
        with pytest.raises(CacheDamagedError, match="is a link, which unfinished work never holds"):
            act()
    with pytest.raises(Refused):
        make_cache(work.out, "zarr", ROWS)
    assert _tree(elsewhere) == before
    assert not work.out.exists()


def _tree(path: Path) -> list[tuple[str, int]]:
    found = [path, *path.rglob("*")]
    return sorted((str(p.relative_to(path)), p.stat().st_mtime_ns) for p in found)


def test_a_part_that_is_a_link_is_made_again_in_its_place(work: Parts) -> None:
    secret = work.out.parent / "secret"
    path = work.scratch / "parts" / "00001.npy"
    path.rename(secret)
    path.symlink_to(secret)
    before = secret.read_bytes()
    assert work.todo(work.plan.units) == [1]
    assert make_cache(work.out, "zarr", ROWS) == [1]
    assert secret.read_bytes() == before
    with Cache(work.out) as cache:
        assert np.array_equal(cache.bulk(), ROWS)


# parts


def _npy(shape: Any, descr: Any = "<f4", *, fortran: bool = False, body: bytes = b"") -> bytes:
    out = io.BytesIO()
    header = {"descr": descr, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + body


GOOD = ROWS[:4].tobytes()
PARTS: dict[str, bytes] = {
    "endless rows": _npy((10**12, 6), body=GOOD),
    "a row too many": _npy((5, 6), body=ROWS[:5].tobytes()),
    "rows that are not there": _npy((4, 6), body=GOOD[:-1]),
    "more than the rows": _npy((4, 6), body=GOOD + b"x"),
    "another shape": _npy((4, 3, 2), body=GOOD),
    "no shape": _npy((), body=b"abcd"),
    "a negative shape": _npy((-4, 6), body=GOOD),
    "a shape of text": _npy(("4", 6), body=GOOD),
    "pickled objects": _npy((4, 6), "|O", body=b"cos\nsystem\n(S'touch owned'\ntR."),
    "another type": _npy((4, 6), "<f8", body=GOOD * 2),
    "another order of bytes": _npy((4, 6), ">f4", body=GOOD),
    "columns first": _npy((4, 6), fortran=True, body=GOOD),
    "a struct": _npy((4,), [("a", "<f4", (6,))], body=GOOD),
    "a header without end": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535,
    "nested brackets": b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118,
    "version 3": b"\x93NUMPY\x03\x00\xff\xff\xff\x7f" + b" " * 200,
    "code": b"\x93NUMPY\x01\x00\x30\x00" + b"__import__('os').system('touch owned')".ljust(0x30),
    "a zip": b"PK\x03\x04" + bytes(200),
    "nothing": b"",
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_not_what_was_planned_is_made_again(work: Parts, name: str) -> None:
    (work.scratch / "parts" / "00000.npy").write_bytes(PARTS[name])
    with little_memory(5_000_000):
        with pytest.raises(CacheDamagedError, match=r"00000\.npy (is no|does not hold|is larger)"):
            work.read(0)
        assert work.todo(work.plan.units) == [0]
    assert not Path("owned").exists()
    assert make_cache(work.out, "hdf5", ROWS) == [0]


def test_a_part_without_end_or_that_is_a_pipe_is_not_read(work: Parts) -> None:
    os.truncate(work.scratch / "parts" / "00000.npy", 1 << 34)
    (work.scratch / "parts" / "00001.npy").unlink()
    os.mkfifo(work.scratch / "parts" / "00001.npy")
    (work.scratch / "records" / "00002.json").unlink()
    os.mkfifo(work.scratch / "records" / "00002.json")
    with little_memory(5_000_000):
        assert work.todo(work.plan.units) == [0, 1, 2]


# records

_DIGEST = "0" * 64
RECORDS: dict[str, Any] = {
    "a list": [],
    "no note": {"digests": [_DIGEST]},
    "no digests": {"note": {}},
    "a note of text": {"digests": [], "note": SECRET},
    "numbers as digests": {"digests": [1, 2], "note": {}},
    "short digests": {"digests": ["00"], "note": {}},
    "more digests than rows": {"digests": [_DIGEST] * 5, "note": {}},
    "a further field": {"digests": [], "note": {}, SECRET: 1},
    "deep": {"digests": [], "note": {"a": json.loads("[" * 70 + "]" * 70)}},
    "much": {"digests": [], "note": {"a": "x" * 200_000}},
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_is_none_is_made_again(work: Parts, name: str) -> None:
    write_json(work.scratch / "records" / "00000.json", RECORDS[name])
    with pytest.raises(
        CacheDamagedError, match=r"00000\.json (is no record|has digests|is larger)"
    ):
        work.note(0)
    with pytest.raises(CacheDamagedError) as error:
        work.read(0)
    assert SECRET not in str(error.value)
    assert make_cache(work.out, "hdf5", ROWS) == [0]


# what publishers take from notes

LINES = [
    {"row": k, "id": f"{k}.png", "label": "ab"[k % 2], "subject": "", "split": "train", "file": "-"}
    for k in range(6)
]


def _crops(out: Path, lines: list[dict[str, Any]] = LINES, **change: Any) -> Parts:
    """Two units of three crops of 8 x 8, all done."""
    settings = {"dataset": {"digest": rows_digest(lines)}}
    plan = Plan(
        kind="crops", settings=settings, dtype="uint8", row_shape=(8, 8, 3), rows=6, unit_rows=3,
        store="zarr", classes=("a", "b"), info=Info(dataset="d"),
    )  # fmt: skip
    parts = Parts(out, plan).start(lines)
    note = {"status": [1] * 3, "box": [[0, 0, 8, 8]] * 3, "reason": [""] * 3}
    for unit in plan.units:
        parts.write(unit, np.zeros((3, 8, 8, 3), dtype=np.uint8), {**note, **change})
    return parts


def _publish_crops(parts: Parts) -> None:
    publish_crops(parts, store="zarr", overwrite=False, started=0.0)


def test_an_honest_one_is_published(tmp_path: Path) -> None:
    _publish_crops(_crops(tmp_path / "c"))
    with Cache(tmp_path / "c") as cache:
        assert cache.side("box").tolist() == [[0, 0, 8, 8]] * 6


NOTES: dict[str, dict[str, Any]] = {
    "statuses too few": {"status": [1]},
    "statuses too many": {"status": [1] * 10_000},
    "unknown status": {"status": [9] * 3},
    "status of text": {"status": ["found"] * 3},
    "no list": {"status": 1},
    "boxes of three": {"box": [[0, 0, 8]] * 3},
    "boxes of text": {"box": [["a"] * 4] * 3},
    "absurd boxes": {"box": [[0, 0, 8, 1 << 40]] * 3},
    "reasons of numbers": {"reason": [1, 2, 3]},
    "endless reasons": {"reason": ["x" * 70_000] * 3},
    "a further field": {SECRET: 1},
}


@pytest.mark.parametrize("name", NOTES)
def test_a_note_of_crops_that_is_none_is_a_sentence(tmp_path: Path, name: str) -> None:
    parts = _crops(tmp_path / "c", **NOTES[name])
    with pytest.raises(CacheDamagedError, match=r"00000\.json .*Delete|larger than") as error:
        _publish_crops(parts)
    assert SECRET not in str(error.value)
    assert not parts.out.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"label": "c"},
        {"split": "secret"},
        {"subject": 1},
        {"id": "../x"},
        {"row": -1},
        {"id": "\0"},
    ],
)
def test_a_table_whose_digest_holds_and_whose_lines_do_not(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    lines = [*LINES[:5], {**LINES[5], **change}]
    with pytest.raises(CacheDamagedError, match=r"line 6|sample table in"):
        _publish_crops(_crops(tmp_path / "c", lines))


@pytest.mark.parametrize("how", ["short", "endless", "pipe", "no subject", "other settings"])
def test_a_table_that_is_not_that_of_the_plan(tmp_path: Path, how: str) -> None:
    lines = [{k: v for k, v in line.items() if k != "subject"} for line in LINES]
    parts = _crops(tmp_path / "c", lines if how == "no subject" else LINES)
    path = parts.scratch / SAMPLES
    harms: dict[str, Callable[[], object]] = {
        "short": lambda: write_json_lines(path, LINES[:5]),
        "endless": lambda: path.write_text("{}\n" * 2_000_000),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "other settings": lambda: parts.plan.settings.update(dataset=3),
    }
    harms.get(how, lambda: None)()
    with little_memory(12_000_000), pytest.raises(CacheDamagedError, match=r"sample table|plain"):
        _publish_crops(parts)


# latents


def _latents(out: Path, crops: Path, change: dict[str, Any]) -> Parts:
    make_cache(out, "zarr", ROWS[:6], stop_after=0, shard_rows=3)
    parts = unfinished(out, "latents")
    with Cache(crops) as cache:
        digests = cache.side("digest")
    for unit in parts.plan.units:
        of = bytes_digest(digests[3 * unit : 3 * unit + 3].tobytes())
        note = {"device": "cpu", "low": 0.0, "high": 1.0, "crops": of, **change}
        parts.write(unit, ROWS[3 * unit : 3 * unit + 3], note)
    return parts


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"low": None},
        {"low": "nan"},
        {"high": []},
        {"device": 3},
        {"device": "x" * 5000},
        {"crops": "x"},
        {"crops": 3},
        {SECRET: 1},
    ],
)
def test_a_note_of_latents_that_is_none_is_a_sentence(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    _publish_crops(_crops(tmp_path / "crops"))
    parts = _latents(tmp_path / "l", tmp_path / "crops", change)
    with Cache(tmp_path / "crops") as crops:
        if not change:  # as it should be
            publish_latents(parts, crops, store="zarr", overwrite=False, started=0.0)
            return
        with pytest.raises(CacheDamagedError, match=r"00000\.json .*Delete") as error:
            publish_latents(parts, crops, store="zarr", overwrite=False, started=0.0)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("name", ["endless rows", "pickled objects", "code", "another type"])
def test_a_calibration_that_is_none_is_a_sentence(work: Parts, name: str) -> None:
    state = work.scratch / "state.npy"
    state.write_bytes(_npy((2, 6), body=ROWS[:2].tobytes()))
    found = stored_calibration(work, 100)
    assert found is not None
    assert found["rows"] == 100
    for data in (PARTS[name], _npy((1, 6), body=ROWS[:1].tobytes())):
        state.write_bytes(data)
        with little_memory(5_000_000), pytest.raises(CacheDamagedError, match=r"state\.npy"):
            stored_calibration(work, 100)


def test_a_plan_belongs_to_its_folder(work: Parts, tmp_path: Path) -> None:
    """Else work would be looked for, written and deleted in another folder than the one found."""
    other = scratch_folder(tmp_path / "c", "blake2b:" + "1" * 40, 4)
    shutil.copytree(work.scratch, other)
    assert work_in(other) is None
    assert unfinished(tmp_path / "c", "latents").scratch == work.scratch
