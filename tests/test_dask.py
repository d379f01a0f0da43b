"""Units on Dask: the same bytes as on one machine, whoever dies in between."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cache.errors import Refused
from cache.schema import Manifest, read_manifest, scratch_folders
from pipeline.cluster.extraction import make_crops
from stages.extract import crop as crop_room
from tests.command import Run
from tests.dask_cluster import LOCAL, SMALL, draw_images, parts_of, running, start, wait_for

dask = pytest.importorskip("dask", reason="needs lgr-pipe[dask]")
pytest.importorskip("distributed", reason="needs lgr-pipe[dask]")


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_room, "shard_rows_for", lambda _: SMALL)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("dask") / "images")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("cluster")) as file:
        yield file


EXTRACT = ("extract", "--face-crop", "off", "--size", "32", "--backbone", "lenet")
EXTRACT += ("--weights", "random")


@pytest.fixture(scope="module")
def serial(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """What one process makes."""
    out = tmp_path_factory.mktemp("serial")
    words = (*EXTRACT, "--root", images, "--out", out / "latents", "--workers", "1")
    done = start(*words)
    assert done.wait(100) == 0, done.communicate()[1]
    return manifests(out)


def manifests(out: Path) -> dict[str, Manifest]:
    return {name: read_manifest(out / name) for name in ("crops", "latents")}


# --- the same bytes ----------------------------------------------------------------------


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_a_cluster_of_this_machine_equals_one_process(
    here: Run,
    images: Path,
    serial: dict[str, Manifest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
) -> None:
    """Both caches; nothing is left behind, no process and no folder."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    words = (*EXTRACT, "--root", images, "--out", tmp_path / "latents", "--store", store)
    before = psutil.Process().children()
    done = here(*words, "--executor", "dask", "--workers", "2")
    assert done.returncode == 0, done.stderr
    for name, manifest in manifests(tmp_path).items():
        assert manifest.store == store
        assert manifest.content == serial[name].content
        assert manifest.fingerprint == serial[name].fingerprint
        assert manifest.samples_digest == serial[name].samples_digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["crops", "latents", "temporary"]
    assert not list((tmp_path / "temporary").iterdir())
    left = [" ".join(p.cmdline()) for p in psutil.Process().children() if p not in before]
    assert not [line for line in left if "resource_tracker" not in line]  # Python's own stays


def test_scheduler_and_workers_of_the_command_line(
    here: Run, images: Path, serial: dict[str, Manifest], cluster: str, tmp_path: Path
) -> None:
    """Crops first, then latents from the finished crops; run again, nothing is done."""
    remote = ("--executor", "dask", "--dask-scheduler", cluster)
    settings = ("--face-crop", "off", "--size", "32", "--root", images)
    done = here("crop", *settings, "--out", tmp_path / "crops", *remote)
    assert (done.returncode, "8 units were made by workers on" in done.stderr) == (0, True)
    latents = (*EXTRACT, "--root", images, "--out", tmp_path / "latents", *remote)
    assert here(*latents).returncode == 0
    found = manifests(tmp_path)
    assert {n: m.content for n, m in found.items()} == {n: m.content for n, m in serial.items()}
    done = here(*latents)
    assert (done.returncode, "nothing to do" in done.stderr) == (0, True)


def test_two_coordinators_at_once(
    images: Path, serial: dict[str, Manifest], cluster: str, tmp_path: Path
) -> None:
    words = (*EXTRACT, "--root", images, "--out", tmp_path / "latents", "--executor", "dask")
    both = [start(*words, "--dask-scheduler", cluster) for _ in range(2)]
    said = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = manifests(tmp_path)
    assert {n: m.content for n, m in found.items()} == {n: m.content for n, m in serial.items()}
    assert not scratch_folders(tmp_path / "latents")
    assert not scratch_folders(tmp_path / "crops"), sorted(tmp_path.rglob("*"))


# --- whoever dies ------------------------------------------------------------------------

PRELOAD = """
import os, pathlib, signal, time
from stages.extract import unit
here = pathlib.Path({folder!r})  # not that of this file: Dask copies it
unit.plain_crop = getattr(unit, "plain_crop", unit.crop_image)  # a preload may be read twice

def crop_image(task, settings):
    with open(here / "trace", "a") as trace:
        trace.write(task.image.name + "\\n")
    {what}
    return unit.plain_crop(task, settings)

unit.crop_image = crop_image
"""
"""Run by each worker before anything else."""
KILL_ONCE = """if task.image.name == "13.png" and not (here / "killed").exists():
        (here / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)"""
KILL_ALWAYS = """if task.image.name == "13.png":
        os.kill(os.getpid(), signal.SIGKILL)"""
SLOWLY = "time.sleep(0.05)"


def preload(folder: Path, what: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "preload.py").write_text(PRELOAD.format(what=what, folder=str(folder)))
    return folder / "preload.py"


def traced(folder: Path) -> list[str]:
    """The images that workers began to crop since the last call."""
    trace = folder / "trace"
    names = trace.read_text().split() if trace.exists() else []
    trace.unlink(missing_ok=True)
    return names


def unit_of(name: str, work: crop_room.CropWork) -> int:
    names = [Path(sample.id).name for sample in work.dataset.samples]
    return names.index(name) // SMALL


def test_a_worker_that_dies_once_is_replaced(
    images: Path, serial: dict[str, Manifest], tmp_path: Path
) -> None:
    work, parts = parts_of(images, tmp_path / "crops")
    file = preload(tmp_path / "hook", KILL_ONCE)
    with dask.config.set({"distributed.worker.preload": [str(file)]}):
        make_crops(work, parts, LOCAL)
    begun = traced(file.parent)
    assert begun.count("13.png") == 2
    again = {unit_of(name, work) for name in set(begun) if begun.count(name) > 1}
    assert again == {unit_of("13.png", work)}
    manifest = crop_room.publish_crops(parts, store="zarr", overwrite=False, started=0.0)
    assert manifest.content == serial["crops"].content


def test_a_unit_that_kills_every_worker_is_named(images: Path, tmp_path: Path) -> None:
    """What else was finished is kept."""
    work, parts = parts_of(images, tmp_path / "crops")
    file = preload(tmp_path / "hook", KILL_ALWAYS)
    settings = {
        "distributed.worker.preload": [str(file)],
        "distributed.scheduler.allowed-failures": 1,
    }
    with dask.config.set(settings), pytest.raises(Refused) as refused:
        make_crops(work, parts, LOCAL)
    unit = unit_of("13.png", work)
    rows = work.plan("zarr").rows_of(unit)
    assert f"(rows {rows[0]} to {rows[-1]}: " in str(refused.value)
    assert work.dataset.samples[rows[0]].id in str(refused.value)
    assert "ended its worker 2 times" in str(refused.value)
    assert unit in parts.missing()


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_coordinator_that_ends_takes_its_workers_with_it(
    images: Path, serial: dict[str, Manifest], tmp_path: Path, sent: signal.Signals
) -> None:
    """Then only the units that are missing are made."""
    slow = preload(tmp_path / "slow", SLOWLY)
    settings = ("--face-crop", "off", "--size", "32", "--root", images)
    words = ("crop", *settings, "--out", tmp_path / "crops", "--executor", "dask", "--workers", "2")
    env = {"DASK_DISTRIBUTED__WORKER__PRELOAD": str(slow), "TMPDIR": str(tmp_path)}
    process = start(*words, **env)
    work, parts = parts_of(images, tmp_path / "crops")
    wait_for(lambda: len(parts.missing()) <= 6)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    # As a terminal does it: to all processes at once.
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    said = process.communicate(timeout=60)[1]
    assert gone(family, 10)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on" in said
        assert "Traceback" not in said
    missing = parts.todo(parts.plan.units)
    assert 0 < len(missing) <= 6
    traced(slow.parent)
    again = start(*words, **env)
    assert again.wait(60) == 0
    assert {unit_of(name, work) for name in traced(slow.parent)} == set(missing)
    assert read_manifest(tmp_path / "crops").content == serial["crops"].content
