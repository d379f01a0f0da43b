"""A data set becomes a crop cache: nothing dropped, nothing dependent on how it was run."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.errors import CacheDamagedError, Refused
from cache.parts import Parts, unfinished
from cache.reader import Cache
from cache.schema import shard_rows_for
from stages.datasets import read
from stages.datasets.sample import Dataset, Sample, build
from stages.extract import cropper as room
from stages.extract.crop import publish_crops
from stages.extract.cropper import Cropper
from stages.extract.overlap import Behind, prefetch
from tests.making import crop_work, make_crops, nothing


def test_no_row_is_dropped_silently(folder: Path, tmp_path: Path) -> None:
    """No face: the whole image. Not decodable: a status and a reason."""
    (folder / "calm" / "broken.png").write_bytes(b"not an image")
    manifest = make_crops(tmp_path / "crops", ("folder", folder), store="hdf5")
    assert manifest.info.images == {
        "found": 0, "whole": 6, "failed": 1, "center": 0, "dropped": 0,
    }  # fmt: skip
    with Cache(tmp_path / "crops") as cache:
        broken = next(s for s in cache.samples() if s["status"] == "failed")
        assert (broken["id"], broken["reason"]) == ("calm/broken.png", "not an image")
        assert cache.manifest.rows == 7


@pytest.mark.parametrize(("on_missing", "status"), [("whole", 2), ("center", 4), ("drop", 5)])
def test_images_without_a_face(folder: Path, tmp_path: Path, on_missing: str, status: int) -> None:
    if on_missing == "drop":
        with pytest.raises(Refused, match="None of the 6 images can be used; first: no face"):
            make_crops(tmp_path / "crops", ("folder", folder), on_missing=on_missing)
        assert not list(tmp_path.glob(".crops*"))
        return
    make_crops(tmp_path / "crops", ("folder", folder), on_missing=on_missing)
    with Cache(tmp_path / "crops") as cache:
        assert set(cache.side("status").tolist()) == {status}
        assert {s["reason"] for s in cache.samples()} == {"no face found"}


def test_missing_files_and_pipes_are_rows_too(folder: Path, tmp_path: Path) -> None:
    """A data set may list what is not there; a pipe must not hang the run."""
    import os

    os.mkfifo(tmp_path / "pipe.png")
    good = folder / "calm" / "0.png"
    samples = [
        Sample("a.png", good, "x", "", "train"),
        Sample("b.png", tmp_path / "gone.png", "x", "", "train"),
        Sample("c.png", tmp_path / "pipe.png", "y", "", "test"),
        Sample("d.png", folder, "y", "", "test"),
    ]
    make_crops(tmp_path / "crops", build("odd", samples))
    with Cache(tmp_path / "crops") as cache:
        assert [s["status"] for s in cache.samples()] == ["whole", *["failed"] * 3]
        assert {s["reason"] for s in cache.samples()[1:]} == {"no such file"}


def test_workers_units_and_store_change_nothing(drawn: Path, crops: Path, tmp_path: Path) -> None:
    """Two processes, another store, another unit size: the same content."""
    manifest = make_crops(tmp_path / "c", ("drawn", drawn), store="hdf5", workers=2, unit_rows=40)
    with Cache(crops) as cache:
        assert cache.manifest.content == manifest.content
        assert cache.manifest.fingerprint == manifest.fingerprint
        assert cache.manifest.info.images["found"] >= 93


def test_stripes_make_the_same_cache(drawn: Path, crops: Path, tmp_path: Path) -> None:
    """Three jobs, in any order, each with its own units; one of them twice."""
    work = crop_work(read("drawn", drawn))
    for index in (2, 0, 2, 1):
        parts = Parts(tmp_path / "c", work.plan("zarr", 16))
        mine = [unit for unit in parts.plan.units if unit % 3 == index]
        with Cropper(work, parts, workers=1, tick=nothing) as cropper:
            for _ in cropper.units(parts.todo(mine)):
                pass
        assert cropper.made in (32, 0)
    found = unfinished(tmp_path / "c", "crops")
    manifest = publish_crops(found, store=found.plan.store, overwrite=False, started=0.0)
    with Cache(crops) as cache:
        assert manifest.content == cache.manifest.content
        assert manifest.samples_digest == cache.manifest.samples_digest


def test_only_what_failed_is_cropped_again(folder: Path, tmp_path: Path) -> None:
    broken = folder / "calm" / "broken.png"
    broken.write_bytes(b"not an image")
    make_crops(tmp_path / "crops", ("folder", folder), unit_rows=3)
    Image.new("RGB", (40, 40), "red").save(broken)
    work = crop_work(read("folder", folder))
    with Cache(tmp_path / "crops") as old:
        parts = Parts(tmp_path / "again", work.plan("zarr", 3))
        with Cropper(work, parts, workers=1, tick=nothing, again=old) as cropper:
            for _ in cropper.units(parts.plan.units):
                pass
    assert cropper.made == 1
    manifest = publish_crops(parts, store="zarr", overwrite=False, started=0.0)
    whole = make_crops(tmp_path / "whole", ("folder", folder))
    assert manifest.content == whole.content
    assert manifest.fingerprint == whole.fingerprint
    assert manifest.info.images["failed"] == 0


def test_memory_is_bounded_by_a_few_units(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However slow the writer, the workers are never more than about two units ahead."""
    submitted: list[int] = []

    class Pool:
        """In place of processes: everything that is asked for is counted."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def submit(self, call: object, tasks: list[object], settings: object) -> object:
            from concurrent.futures import Future

            submitted.append(len(tasks))
            done: Future[object] = Future()
            done.set_result(call(tasks, settings))  # type: ignore[operator]
            return done

        def shutdown(self, **_: object) -> None:
            pass

    monkeypatch.setattr(room, "ProcessPoolExecutor", Pool)
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    samples = tuple(Sample(f"{k:04}", pixels, "x", "", "train") for k in range(400))
    work = crop_work(Dataset("d", ("x",), samples), size=8, upsample=0)
    parts = Parts(tmp_path / "c", work.plan("zarr", 32))
    with Cropper(work, parts, workers=2, tick=nothing) as cropper:
        for unit in cropper.units(parts.plan.units):
            done = (unit.index + 1) * 32
            assert sum(submitted) <= done + 2 * 32 + 16
    assert sum(submitted) == 400


def test_limit_takes_all_classes_and_splits(drawn: Path) -> None:
    from stages.datasets.sample import limited

    whole = read("drawn", drawn)
    few = limited(whole, 16)
    assert len({(s.label, s.split) for s in few.samples}) == 16
    assert few.classes == whole.classes
    assert [s.id for s in few.samples] == sorted(s.id for s in few.samples)
    assert {s.id for s in limited(whole, 8).samples} < {s.id for s in few.samples}
    assert limited(whole, 10_000) is whole


def test_prefetch_keeps_order_and_passes_errors_on() -> None:
    assert list(prefetch(iter(range(20)), lambda: None)) == list(range(20))

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        list(prefetch(failing(), lambda: None))


def test_prefetch_ends_its_thread_when_the_consumer_stops() -> None:
    stopped = threading.Event()
    before = threading.active_count()

    def endless() -> Iterator[int]:
        while not stopped.is_set():
            yield 0

    ready = prefetch(endless(), stopped.set)
    next(ready)
    ready.close()
    assert stopped.is_set()
    assert threading.active_count() == before


def test_what_is_written_behind_is_in_order_and_fails_aloud() -> None:
    done: list[int] = []
    with Behind() as writer:
        for k in range(5):
            writer.do(done.append, k)
    assert done == list(range(5))

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Behind() as writer:
        writer.do(fail)


def test_what_is_not_begun_is_left_out_after_an_error() -> None:
    """Three may be on the way: with one at work, two wait, and go with the error."""
    done, begun, go = list[int](), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        assert go.wait(20)
        done.append(0)

    def interrupted() -> None:
        with Behind(3) as writer:
            writer.do(first)
            writer.do(done.append, 1)
            writer.do(done.append, 2)
            assert begun.wait(20)
            threading.Timer(0.2, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [0]


def test_labels_in_a_scratch_folder_are_bound_to_the_fingerprint(
    drawn: Path, tmp_path: Path
) -> None:
    work = crop_work(read("drawn", drawn), face_crop="off")
    parts = Parts(tmp_path / "c", work.plan("zarr", 64))
    with Cropper(work, parts, workers=1, tick=nothing) as cropper:
        for _ in cropper.units(parts.plan.units):
            pass
    table = parts.scratch / "samples.jsonl"
    table.write_text(table.read_text().replace('"anger"', '"fear"'))
    with pytest.raises(CacheDamagedError, match="is not that of the data set"):
        publish_crops(parts, store="zarr", overwrite=False, started=0.0)


def test_large_crops_have_small_units() -> None:
    assert shard_rows_for(1024 * 1024 * 3) == 16
    assert shard_rows_for(100 * 100 * 3) == 256


def test_workers_start_without_torch() -> None:
    """Each imports this much, and torch would take seconds and hundreds of MB of each."""
    code = (
        "import sys, stages.extract.cropper\nfrom stages.extract import search\n"
        "search._detector()\n"
        "heavy = {'torch', 'zarr', 'h5py', 'typer'} & sys.modules.keys()\nsys.exit(heavy or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
