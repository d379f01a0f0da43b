"""What Dask cannot be asked for, and runs of a sweep on it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cache.errors import Refused
from cache.schema import scratch_folders
from pipeline.cluster import client as dask_client
from pipeline.cluster import fitting as dask_fitting
from pipeline.cluster.extraction import make_crops
from pipeline.cluster.fitting import fitted, refuse_other_versions
from pipeline.cluster.jobs import run_jobs_on
from pipeline.cluster.tasks import Call, run_calls
from pipeline.cluster.worker import About, Job, do
from pipeline.how import Dask, How, parse_executor
from pipeline.jobs import Ended
from pipeline.jobs import Job as Command
from stages.extract import crop as crop_room
from stages.extract.unit import Scratch, tasks_of
from tests.command import Run, without_costs
from tests.dask_cluster import LOCAL, SMALL, draw_images, parts_of, running, wait_for
from tests.test_sweep import make_latents_of

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


# --- what is refused ---------------------------------------------------------------------


def test_a_refusal_of_a_worker_is_shown(images: Path, cluster: str, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    work, parts = parts_of(tmp_path / "images", tmp_path / "crops")
    (tmp_path / "images" / "tense" / "13.png").write_bytes(b"other")
    with pytest.raises(Refused, match=r"^Worker on .*13\.png changed while this run"):
        make_crops(work, parts, How(1, dask=Dask(cluster)))


def test_workers_that_do_not_see_the_folder(images: Path, cluster: str, tmp_path: Path) -> None:
    """Before anything is sent; and one that comes later, with its first unit."""
    work, parts = parts_of(images, tmp_path / "crops")
    job = Job(Scratch(parts.scratch, parts.plan.fingerprint), work.settings, images)
    with (
        dask_client.connected(cluster, dask_client.Local(0)) as client,
        pytest.raises(Refused, match=r"There is no .*plan\.json here: all workers must see"),
    ):
        fitted(client, job, None)
    parts.start(work.rows())
    with dask_client.connected(cluster, dask_client.Local(0)) as client:
        job, _ = fitted(client, job, None)
    other = replace(job, crops=Scratch(parts.scratch, "blake2b:" + 40 * "0"))
    assert "must see the same folders" in do(other, "crop", 0, ()).refused
    elsewhere = replace(job, images=tmp_path / "nowhere")
    assert "There is no" in do(elsewhere, "crop", 0, ()).refused
    older = replace(job, deciding={**job.deciding, "crops": "1"})
    assert "Another version" in do(older, "crop", 0, ()).refused
    made = do(job, "crop", 0, tasks_of(work, parts.plan.rows_of(0)))
    assert (made.refused, made.made, made.host) == ("", SMALL, socket.gethostname())
    assert do(job, "crop", 0, ()).made is None
    parts.discard()
    late = do(job, "crop", 1, tasks_of(work, parts.plan.rows_of(1)))
    assert late.overtaken


def test_workers_of_another_version() -> None:
    own = About("a", 2, False, {"lgr-pipe": "1", "crops": "2"}, {"pillow": "11"})
    refuse_other_versions(own, {"tcp://b": replace(own, others={"pillow": "12"})})
    other = replace(own, host="b", deciding={"lgr-pipe": "1", "crops": "3"})
    with pytest.raises(Refused, match=r"tcp://b on b: .*crops 3 instead of 2"):
        refuse_other_versions(own, {"tcp://a": own, "tcp://b": other})


CPU, CUDA = (About("a", 4, cuda, {}, {}) for cuda in (False, True))


@pytest.mark.parametrize(
    ("asked", "found", "offered", "device"),
    [
        ("auto", [CUDA, CPU], True, "cuda"),  # only those that offer a GPU run the root
        ("auto", [CUDA, CUDA], False, "cuda"),
        ("auto", [CUDA, CPU], False, "cpu"),
        ("cpu", [CUDA, CUDA], True, "cpu"),
        ("cuda", [CUDA, CPU], True, "cuda"),
        ("cuda", [CUDA, CPU], False, None),
        ("tpu", [CUDA], True, None),
    ],
)
def test_devices(asked: str, found: list[About], offered: bool, device: str | None) -> None:
    if device is None:
        with pytest.raises(Refused, match="--device"):
            dask_fitting._device(asked, found, offered)
    else:
        assert dask_fitting._device(asked, found, offered) == device


def test_threads_of_workers_that_share_a_machine() -> None:
    found = [replace(CPU, host=host, cores=8) for host in ("a", "a", "a", "b")]
    assert dask_fitting._threads(found) == {"a": 2, "b": 8}


def test_what_needs_a_gpu_goes_to_the_worker_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    seen: list[str] = []
    calls = [Call(os.getenv, ("CUDA_VISIBLE_DEVICES",), "x", gpu=True) for _ in range(4)]
    with dask_client.connected(None, dask_client.Local(1, 1)) as client:
        take = iter([*calls, None, *[None] * 9])
        run_calls(client, lambda: next(take), lambda _, card: seen.append(card))
    assert seen == ["5"] * 4


def test_a_worker_without_this_package(images: Path, tmp_path: Path) -> None:
    work, parts = parts_of(images, tmp_path / "crops")
    (tmp_path / "preload.py").write_text(
        "import sys; sys.modules['pipeline.cluster.worker'] = None"
    )
    with (
        dask.config.set({"distributed.worker.preload": [str(tmp_path / "preload.py")]}),
        pytest.raises(Refused, match=r"cannot run lgr-pipe: .*same version must be installed"),
    ):
        make_crops(work, parts, LOCAL)
    assert not scratch_folders(tmp_path / "crops")


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ("tcp://127.0.0.1:1", "no Dask scheduler that answers at tcp://127.0.0.1:1"),
        ("nonsense://x", "no Dask scheduler that answers"),
        ("nowhere.json", "There is no file nowhere.json"),
        ("odd.json", "no address in it"),
    ],
)
def test_no_such_scheduler(
    here: Run,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    said: str,
) -> None:
    monkeypatch.setattr(dask_client, "PATIENCE", 0.5)
    monkeypatch.chdir(tmp_path)
    Path("odd.json").write_text('{"address": 5}')
    words = ("crop", "--face-crop", "off", "--root", images, "--out", tmp_path / "c")
    done = here(*words, "--executor", "dask", "--dask-scheduler", scheduler)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not scratch_folders(tmp_path / "c")


def test_a_scheduler_that_dies(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Within seconds, in a sentence, and nothing of what Dask says about it."""
    begun = tmp_path / "begun"
    calls = [Call(time.sleep, (60,), "y"), Call(Path.touch, (begun,), "x")]

    def take() -> Call | None:
        if calls:
            return calls.pop()
        wait_for(begun.exists)
        for process in psutil.Process().children():
            if {"scheduler", str(tmp_path / "scheduler.json")} <= {*process.cmdline()}:
                process.kill()
        return None

    with (
        running(tmp_path) as file,
        dask_client.connected(file, dask_client.Local(0)) as client,
        pytest.raises(Refused, match="connection to the Dask scheduler was lost"),
    ):
        run_calls(client, take, lambda *_: None)
    assert "Traceback" not in capfd.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(Refused, match=r"pip install 'lgr-pipe\[dask\]'"),
        dask_client.connected(None, dask_client.Local(1)),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ray", None, None), "--executor must be process or dask"),
        (("process", "tcp://a:1", None), "is for --executor dask"),
        (("dask", "tcp://a:1", 2), "--workers is the size of a cluster of this machine"),
    ],
)
def test_contradictions(words: tuple[Any, ...], said: str) -> None:
    with pytest.raises(Refused, match=said):
        parse_executor(*words)
    with pytest.raises(Refused, match="leave one of them out"):
        parse_executor("dask", None, None, shard="0/2")
    assert parse_executor("process", None, 3) is None
    assert parse_executor("dask", None, 3) == Dask(None, 3)


# --- sweep -------------------------------------------------------------------------------


def test_a_sweep_on_dask_equals_one_here(here: Run, cluster: str, tmp_path: Path) -> None:
    make_latents_of(tmp_path / "latents")
    words = ("sweep", "--cache", tmp_path / "latents", "--strategy", "none", "--tasks", "2")
    words += ("--batch-size", "8", "--seeds", "0", "--grid", "iters=20,40")
    remote = ("--executor", "dask", "--dask-scheduler", cluster)
    here_, there = tmp_path / "here", tmp_path / "there"
    assert here(*words, "--out", here_).returncode == 0
    done = here(*words, "--out", there, *remote)
    assert done.returncode == 0, done.stderr
    for name in ("iters=20", "iters=40"):
        one, two = (
            json.loads((out / "points" / name / "metrics.json").read_text())
            for out in (here_, there)
        )
        assert without_costs(one) == without_costs(two)
    done = here(*words, "--out", there, *remote)
    assert (done.returncode, "2 of 2 points are there already" in done.stderr) == (0, True)


def stand_in(name: str, folder: Path, seconds: float) -> Command:
    """Notes its number, then takes its time."""
    code = f"import os, time; open({name!r}, 'w').write(str(os.getpid())); time.sleep({seconds})"
    return Command(name, (sys.executable, "-S", "-c", code), folder / f"{name}.log")


def test_runs_that_nobody_waits_for_are_stopped(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They work in the folder where the command was typed, and end with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "marker").touch()

    def ended(one: Ended) -> None:
        assert (one.job.name, one.code) == ("short", 0)
        wait_for((tmp_path / "long").exists)
        raise OSError("the disk is full")

    jobs = [(n, partial(stand_in, n, tmp_path, s)) for n, s in (("long", 60.0), ("short", 0.0))]
    with pytest.raises(OSError, match="disk is full"):
        run_jobs_on(
            Dask(cluster), jobs, marker=tmp_path / "marker", device="cpu", workers=1, ended=ended
        )
    number = int((tmp_path / "long").read_text())
    wait_for(lambda: not psutil.pid_exists(number), 15)
