"""The store contract, written once, run on both stores."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from cache.errors import (
    CacheDamagedError,
    CacheExistsError,
    CacheMismatchError,
    CacheMissingError,
    CacheUnfinishedError,
    Refused,
)
from cache.parts import Parts, Plan, unfinished
from cache.reader import Cache
from cache.schema import MANIFEST, Info, Manifest, scratch_folders
from cache.store import STORES
from cache.writer import Content, existing_match, publish
from tests.making import SETTINGS
from tests.making import make_cache as make


@pytest.fixture
def rows() -> np.ndarray:
    out = np.random.default_rng(0).random((10, 6), dtype=np.float32)
    out[4:8] = 0  # a shard of zeros must not read like one that was never written
    return out


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_written_is_read(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    make(tmp_path / "c", store, rows)
    with Cache(tmp_path / "c") as cache:
        assert np.array_equal(cache.bulk(), rows)
        assert np.array_equal(cache.bulk_rows(3, 9), rows[3:9])
        assert cache.side("label").tolist() == [k % 2 for k in range(10)]
        assert cache.split_rows("test").tolist() == [0, 3, 6, 9]
        assert [s["id"] for s in cache.samples()] == [f"{k}.png" for k in range(10)]
    assert not scratch_folders(tmp_path / "c")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == sorted(
        [
            MANIFEST,
            "samples.jsonl",
            "provenance.json",
            "data.zarr" if store == "zarr" else "data.h5",
        ]
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=hnp.arrays(
        dtype=st.sampled_from(["uint8", "float16", "float32"]),
        shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=7),
    ),
    shard_rows=st.integers(1, 9),
)
def test_any_array_survives(
    rows: np.ndarray, shard_rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bit by bit (NaN and -0.0 too), with equal content digests in both stores."""
    folder = tmp_path_factory.mktemp("any")
    digests = set()
    for store in STORES:
        make(folder / store, store, rows, shard_rows=shard_rows)
        with Cache(folder / store) as cache:
            assert cache.bulk().tobytes() == rows.tobytes()
            digests.add(cache.manifest.content)
    assert len(digests) == 1


def test_content_digest_does_not_depend_on_shards(tmp_path: Path, rows: np.ndarray) -> None:
    make(tmp_path / "a", "zarr", rows, shard_rows=3)
    make(tmp_path / "b", "zarr", rows, shard_rows=10)
    with Cache(tmp_path / "a") as a, Cache(tmp_path / "b") as b:
        assert a.manifest.content == b.manifest.content


def test_interrupted_work_goes_on_at_the_shard(
    tmp_path: Path, store: str, rows: np.ndarray
) -> None:
    assert make(tmp_path / "c", store, rows, stop_after=2) == [0, 1, 2]
    with pytest.raises(CacheUnfinishedError, match="is not finished"):
        Cache(tmp_path / "c")
    assert make(tmp_path / "c", store, rows) == [2]
    with Cache(tmp_path / "c") as cache:
        assert np.array_equal(cache.bulk(), rows)


@pytest.mark.parametrize("moment", ["write manifest", "replace", "rename", "clean"])
def test_a_kill_while_publishing_loses_nothing(
    tmp_path: Path,
    store: str,
    rows: np.ndarray,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut off at each step; the old cache or the new one is whole, and no shard is made twice."""
    out = tmp_path / "c"
    make(out, store, rows)

    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    rename, rmtree = Path.rename, shutil.rmtree

    def die_at_the_scratch_folder(path: Path, **words: bool) -> None:
        if path.name.startswith(".c.work-"):
            raise KilledError
        rmtree(path, **words)

    def die_at_second_rename(self: Path, target: Path) -> Path:
        if self.name.startswith("cache-"):
            raise KilledError
        return rename(self, target)

    with monkeypatch.context() as patch:
        if moment == "write manifest":
            patch.setattr("cache.writer.put_in_place", die)
        elif moment == "replace":
            patch.setattr(Path, "rename", die)
        elif moment == "rename":
            patch.setattr(Path, "rename", die_at_second_rename)
        else:
            patch.setattr(shutil, "rmtree", die_at_the_scratch_folder)
        with pytest.raises(KilledError):
            make(out, store, rows + 1, overwrite=True)
    if moment in ("write manifest", "replace"):
        with Cache(out) as cache:
            assert np.array_equal(cache.bulk(), rows)
    if moment != "clean":
        assert make(out, store, rows + 1, overwrite=True) == []
    assert existing_match(out, "latents", SETTINGS, store, overwrite=False) is not None
    with Cache(out) as cache:
        assert np.array_equal(cache.bulk(), rows + 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_a_link_to_a_cache_is_followed(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make(tmp_path / "link", store, rows)
    assert (tmp_path / "link").is_symlink()
    with Cache(tmp_path / "link") as cache:
        assert np.array_equal(cache.bulk(), rows)


def test_overwrite_mends_a_damaged_cache(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    make(tmp_path / "c", store, rows)
    (tmp_path / "c" / MANIFEST).write_text("{")
    with pytest.raises(CacheDamagedError):
        existing_match(tmp_path / "c", "latents", SETTINGS, store, overwrite=False)
    assert make(tmp_path / "c", store, rows, overwrite=True) == [0, 1, 2]
    with Cache(tmp_path / "c") as cache:
        assert np.array_equal(cache.bulk(), rows)


def test_a_damaged_part_is_made_again(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    make(tmp_path / "c", store, rows, stop_after=2)
    (scratch,) = scratch_folders(tmp_path / "c")
    for name, flip in (("parts/00000.npy", -3), ("records/00001.json", 20)):
        data = bytearray((scratch / name).read_bytes())
        data[flip] ^= 1
        (scratch / name).write_bytes(data)
    assert make(tmp_path / "c", store, rows) == [0, 1, 2]


def test_a_part_damaged_at_the_end_is_not_published(
    tmp_path: Path, store: str, rows: np.ndarray
) -> None:
    make(tmp_path / "c", store, rows, stop_after=3)
    parts = unfinished(tmp_path / "c", "latents")
    path = parts.scratch / "parts" / "00001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    content = Content({}, [], ("a", "b"), Info(dataset="d"), {})
    with pytest.raises(CacheDamagedError, match=r"00001\.npy is not what was written"):
        publish(parts, content, store=store, overwrite=False)
    assert not (tmp_path / "c").exists()
    assert make(tmp_path / "c", store, rows) == [1]


def test_the_store_is_chosen_at_the_end(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    """Parts are the same for both stores: changing one's mind costs nothing."""
    make(tmp_path / "c", store, rows, stop_after=2)
    other = "zarr" if store == "hdf5" else "hdf5"
    assert make(tmp_path / "c", other, rows) == [2]
    assert not scratch_folders(tmp_path / "c")


def test_work_of_other_settings_is_not_mixed_in(
    tmp_path: Path, store: str, rows: np.ndarray
) -> None:
    make(tmp_path / "c", store, rows, stop_after=2)
    other = {**SETTINGS, "seed": 1}
    assert make(tmp_path / "c", store, rows, shard_rows=5, stop_after=1) == [0, 1]
    assert make(tmp_path / "c", store, rows + 1, settings_=other) == [0, 1, 2]
    assert len(scratch_folders(tmp_path / "c")) == 2  # the unfinished ones are kept
    with pytest.raises(CacheUnfinishedError, match="several unfinished works"):
        unfinished(tmp_path / "c", "latents")


def test_units_that_keep_fewer_rows(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    """Rows may fall out of a unit: the cache has no hole, whatever the shards."""
    plan = Plan(
        kind="latents", settings=SETTINGS, dtype="float32", row_shape=(6,), rows=10, unit_rows=4,
        store=store, classes=("a",), info=Info(dataset="d"),
    )  # fmt: skip
    parts = Parts(tmp_path / "c", plan).start()
    kept = [rows[1:4], rows[:0], rows[8:10]]
    for unit in (2, 0):
        parts.write(unit, kept[unit], {})
    ones = np.ones(5, dtype=np.int16)
    side = {"label": ones * 0, "subject": ones.astype("int32"), "split": ones.astype("uint8")}
    content = Content(side, [{"row": k} for k in range(5)], ("a",), Info(dataset="d"), {})
    with pytest.raises(CacheUnfinishedError, match=r"1 of 3 units of latents are missing \(1\)"):
        publish(parts, content, store=store, overwrite=False)
    parts.write(1, kept[1], {})
    publish(parts, content, store=store, overwrite=False, shard_rows=2)
    with Cache(tmp_path / "c") as cache:
        assert np.array_equal(cache.bulk(), np.concatenate(kept))


def test_a_part_is_checked_before_it_is_written(tmp_path: Path, rows: np.ndarray) -> None:
    make(tmp_path / "c", "zarr", rows, stop_after=0)
    parts = unfinished(tmp_path / "c", "latents")
    for wrong in (rows[:5], rows[:4, :5], rows[:4].astype("float16")):
        with pytest.raises(ValueError, match="unit 0"):
            parts.write(0, wrong, {})
    assert parts.missing() == [0, 1, 2]


def test_a_flipped_bit_is_found_in_every_file(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    """Array data of all columns, sample table, manifest: a load that reads them refuses."""
    rows = np.random.default_rng(1).random((40, 64), dtype=np.float32)
    make(tmp_path / "c", store, rows, shard_rows=16)
    before = _read_all(tmp_path / "c")
    missed = []
    for file in sorted(p for p in (tmp_path / "c").rglob("*") if p.is_file()):
        if file.name in ("provenance.json", "zarr.json"):
            continue  # never compared; metadata is checked against the manifest instead
        good = file.read_bytes()
        for place in np.linspace(0, len(good) - 1, 25).astype(int):
            bad = bytearray(good)
            bad[place] ^= 0x10
            file.write_bytes(bad)
            try:
                same = _read_all(tmp_path / "c") == before
            except CacheDamagedError:
                same = True  # refused: nothing wrong was handed out
            if not same:
                missed.append((file.name, int(place)))
        file.write_bytes(good)
    assert not missed


def _read_all(path: Path) -> Any:
    with Cache(path) as cache:
        columns = {name: cache.side(name).tobytes() for name in ("label", "split", "subject")}
        m = cache.manifest
        return (
            cache.bulk().tobytes(),
            columns,
            cache.samples(),
            m.fingerprint,
            m.settings,
            m.content,
        )


def test_mistakes_are_named(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    with pytest.raises(CacheMissingError, match="no such folder"):
        Cache(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CacheUnfinishedError, match=r"no manifest\.json"):
        Cache(tmp_path / "empty")
    make(tmp_path / "c", store, rows)
    with Cache(tmp_path / "c") as cache:
        with pytest.raises(CacheMismatchError, match="a cache of crops is needed"):
            cache.expect("crops")
        with pytest.raises(CacheMismatchError, match="seed: expected 1, found 0"):
            cache.expect("latents", {**SETTINGS, "seed": 1})


def test_nothing_is_overwritten_by_accident(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    out = tmp_path / "c"
    make(out, store, rows)
    assert existing_match(out, "latents", SETTINGS, store, overwrite=False) is not None
    other = {**SETTINGS, "seed": 1}
    with pytest.raises(CacheExistsError, match="seed: expected 1, found 0"):
        existing_match(out, "latents", other, store, overwrite=False)
    with pytest.raises(CacheExistsError):
        make(out, store, rows, settings_=other)
    make(out, store, rows + 1, settings_=other, overwrite=True)
    with Cache(out) as cache:
        assert np.array_equal(cache.bulk(), rows + 1)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(CacheExistsError, match="choose another"):
        make(tmp_path / "letters", store, rows, overwrite=True)
    assert (tmp_path / "letters" / "love.txt").read_text() == "dear"


def test_a_moved_and_renamed_cache_is_the_same(
    tmp_path: Path, store: str, rows: np.ndarray
) -> None:
    make(tmp_path / "c", store, rows)
    shutil.move(tmp_path / "c", tmp_path / "elsewhere")
    with Cache(tmp_path / "elsewhere") as cache:
        cache.expect("latents", SETTINGS)
        assert np.array_equal(cache.bulk(), rows)


def test_a_read_only_cache_is_read(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    make(tmp_path / "c", store, rows)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "c").rglob("*")}
    with Cache(tmp_path / "c") as cache:
        cache.bulk()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "c").rglob("*")} == before


def test_files_have_the_umasks_mode(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    old = os.umask(0o027)
    try:
        make(tmp_path / "c", store, rows)
    finally:
        os.umask(old)
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "c").rglob("*") if p.is_file()}
    assert modes == {0o640}


def test_plain_zarr_and_h5py_open_it(tmp_path: Path, rows: np.ndarray) -> None:
    make(tmp_path / "z", "zarr", rows)
    make(tmp_path / "h", "hdf5", rows)
    group = zarr.open_group(tmp_path / "z" / "data.zarr", mode="r")
    assert np.array_equal(np.asarray(group["latents"]), rows)
    assert json.loads(str(group.attrs["lgr_pipe"]))["settings"] == SETTINGS
    with h5py.File(tmp_path / "h" / "data.h5", "r") as file:
        assert np.array_equal(file["latents"][:], rows)
        assert json.loads(file.attrs["lgr_pipe"])["classes"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": 5}, "shape"),
        ({"label": "seal broken"}, "not a manifest"),
        ({"classes": ["b", "a"], "unsealed": True}, "does not have its digest"),
        ({"kind": "secrets"}, "not a manifest"),
        ({"extra": 1}, "not a manifest"),
        ({"settings": {"seed": 5}}, "fingerprint"),
        ({"content": "blake3:" + "0" * 64}, "content digest"),
        ({"bulk": "../../etc"}, "not listed"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    tmp_path: Path, rows: np.ndarray, change: dict[str, Any], says: str
) -> None:
    make(tmp_path / "c", "zarr", rows)
    path = tmp_path / "c" / MANIFEST
    lie = {**json.loads(path.read_text()), **change}
    if not lie.pop("unsealed", False):
        with contextlib.suppress(ValidationError):  # a liar would seal it
            lie = Manifest.model_validate(lie).sealed().model_dump(mode="json")
    path.write_text(json.dumps(lie))
    with pytest.raises(CacheDamagedError, match=says):
        Cache(tmp_path / "c")


def test_no_link_leads_out_of_an_hdf5_file(tmp_path: Path, rows: np.ndarray) -> None:
    make(tmp_path / "c", "hdf5", rows)
    make(tmp_path / "secret", "hdf5", rows)
    with h5py.File(tmp_path / "c" / "data.h5", "r+") as file:
        del file["label"]
        file["label"] = h5py.ExternalLink(str(tmp_path / "secret" / "data.h5"), "/label")
    with pytest.raises(Refused, match="no array inside the file"):
        Cache(tmp_path / "c")


def test_two_that_finish_at_once_leave_one_whole_cache(
    tmp_path: Path, store: str, rows: np.ndarray
) -> None:
    """Neither loses anything, whichever comes first."""
    for trial in range(12):
        out = tmp_path / f"c{trial}"
        make(out, store, rows, stop_after=3)
        parts = unfinished(out, "latents")
        n = len(rows)
        side = {name: np.zeros(n, dtype=np.int16) for name in ("label", "subject", "split")}
        content = Content(side, [{"row": k} for k in range(n)], ("a", "b"), Info(dataset="d"), {})

        def finish(parts: Parts = parts, content: Content = content) -> None:
            with contextlib.suppress(CacheExistsError):  # told that it came too late
                publish(parts, content, store=store, overwrite=False)

        jobs = [threading.Thread(target=finish) for _ in range(3)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        with Cache(out) as cache:
            assert np.array_equal(cache.bulk(), rows)
        assert not scratch_folders(out)


def test_work_on_a_replacement_is_left_alone(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    make(tmp_path / "c", store, rows)
    make(tmp_path / "c", store, rows, overwrite=True, stop_after=2)
    assert existing_match(tmp_path / "c", "latents", SETTINGS, store, overwrite=False) is not None
    assert make(tmp_path / "c", store, rows, overwrite=True) == [2]


def test_a_full_disk_is_told_before_the_store_is_made(
    tmp_path: Path, store: str, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(OSError, match="No room"):
            make(tmp_path / "c", store, rows)
    assert make(tmp_path / "c", store, rows) == []
