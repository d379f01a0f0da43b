"""The command line as a user types it: the whole way, mistakes, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cache.reader import Cache
from cache.schema import scratch_folders
from tests.command import ENTRY, Run, without_costs

TRAIN = ("--tasks", "4", "--iters", "4", "--batch-size", "8", "--seeds", "0-1")


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_from_images_to_the_table(
    lgr_pipe: Run, here: Run, drawn: Path, tmp_path: Path, store: str
) -> None:
    """Extraction in a process of its own (it starts workers), the rest in this one."""
    caches, runs = tmp_path / "caches", tmp_path / "runs"
    done = lgr_pipe(
        "extract", "--dataset", "drawn", "--root", drawn, "--backbone", "mobilenet_v2",
        "--weights", "random", "--store", store, "--out", caches / "latents",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("images", "96", "faces found", "failed", "images per second", "bytes"):
        assert word in done.stderr
    assert not list(caches.glob(".*"))
    for strategy in ("none", "joint", "lr", "lgr", "lgr+d"):
        done = here(
            "train", "--strategy", strategy, "--cache", caches / "latents", *TRAIN,
            "--out", runs / strategy,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = here("report", runs, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (tmp_path / "report" / "table.md").read_text().strip()
    for word in ("majority floor", "none", "joint", "lr", "lgr", "lgr+d", "root is random"):
        assert word in done.stdout
    metrics = json.loads((runs / "lgr+d" / "metrics.json").read_text())
    about = ("strategy", "dataset", "backbone", "weights", "scenario", "tasks")
    assert [metrics[key] for key in about] == [
        "lgr+d", "drawn", "mobilenet_v2", "random (seed 0, calibrated)", "task", 4,
    ]  # fmt: skip
    assert metrics["class_order"][:2] == ["anger", "happiness"]
    assert [entry["seed"] for entry in metrics["runs"]] == [0, 1]
    for entry in metrics["runs"]:
        matrix = np.array(entry["accuracy_matrix"], dtype=float)
        assert matrix.shape == (4, 4)
        assert entry["average_accuracy"] == pytest.approx(matrix[-1].mean())
        assert {"forgetting", "bwt", "fwt", "majority_floor", "train_seconds"} <= entry.keys()
    run = json.loads((runs / "lgr+d" / "run.json").read_text())
    assert run["cache_fingerprint"] == metrics["cache_fingerprint"]
    assert run["options"]["temperature"] == 2.0


def test_the_same_seed_gives_the_same_metrics(lgr_pipe: Run, latents: Path, tmp_path: Path) -> None:
    both = []
    for name in ("a", "b"):
        lgr_pipe(
            "train", "--strategy", "lgr+d", "--cache", latents, *TRAIN, "--out", tmp_path / name
        )
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        both.append(without_costs(metrics))
    assert both[0] == both[1]


def _mistakes(latents: Path, drawn: Path, tmp: Path) -> list[tuple[str, tuple[object, ...], str]]:
    train = ("train", "--cache", latents, "--out", tmp / "r")
    extract = ("extract", "--root", drawn, "--dataset", "drawn", "--out", tmp / "l",
               "--backbone", "resnet18", "--weights", "random")  # fmt: skip
    (tmp / "empty").mkdir()
    (tmp / "full").mkdir()
    (tmp / "full" / "love.txt").write_text("dear")
    (tmp / "table").mkdir()
    (tmp / "table" / "labels.csv").write_text("image,expression,subject\ngone.png,a,s\n")
    (tmp / "labels").mkdir()
    (tmp / "labels" / "labels.csv").write_text("image,expression,subject\na.png,joy,s\n")
    (tmp / "labels" / "a.png").write_bytes(b"")
    (tmp / "latin").mkdir()
    (tmp / "latin" / "labels.csv").write_bytes(
        "image,expression,subject\né.png,a,s\n".encode("latin-1")
    )
    return [
        ("no folder", ("crop", "--root", tmp / "no", "--out", tmp / "c"), "There is no folder"),
        ("no images", ("crop", "--root", tmp / "empty", "--out", tmp / "c"), "no images in"),
        ("no root", ("crop", "--out", tmp / "c"), "--root DIR"),
        ("gone file", ("crop", "--root", tmp / "table", "--out", tmp / "c"), "no file gone.png"),
        ("taken", ("crop", "--root", drawn, "--out", tmp / "full"), "exists already"),
        ("backbone", (*extract, "--backbone", "vgg61"), "The table has vgg16, alexnet"),
        ("weights", (*extract, "--weights", tmp / "no.pth"), "there is no file"),
        ("store", (*extract, "--store", "csv"), "zarr"),
        ("dtype", (*extract, "--dtype", "int8"), "float16"),
        ("device", (*extract, "--device", "tpu"), "--device must be"),
        ("crops taken", (*extract, "--crops", tmp / "full"), "no manifest.json"),
        ("other crops", (*extract, "--crops", latents.parent / "crops", "--size", "64"), "crop.size: expected 64, found 100"),
        ("no root folder", ("extract", "--root", tmp / "no", "--crops", latents.parent / "crops", "--out", tmp / "l"), "There is no folder"),
        ("crops otherwise", ("extract", "--crops", latents.parent / "crops", "--margin", "0.5", "--backbone", "resnet18", "--weights", "random", "--out", tmp / "l"), "crop.margin: expected 0.5, found 0.2"),
        ("out is crops", (*extract, "--crops", tmp / "l"), "the same folder"),
        ("latents over crops", (*extract, "--crops", tmp / "new", "--out", latents.parent / "crops", "--overwrite"), "is a cache of crops"),
        ("another store", ("extract", "--crops", latents.parent / "crops", "--backbone", "mobilenet_v2", "--weights", "random", "--store", "hdf5", "--out", latents), "store: expected 'hdf5', found 'zarr'"),
        ("file as folder", ("train", "--strategy", "none", "--cache", latents, "--out", tmp / "full" / "love.txt" / "r"), "Not a directory"),
        ("infinite", (*train, "--strategy", "none", "--lr", "inf"), "finite"),
        ("other labels", ("crop", "--dataset", "drawn", "--root", tmp / "labels", "--out", tmp / "c"), "no class joy"),
        ("latin", ("crop", "--root", tmp / "latin", "--out", tmp / "c"), "UTF-8"),
        ("another cache", ("extract", "--crops", latents.parent / "crops", "--backbone", "resnet18", "--weights", "random", "--out", latents), "root.backbone: expected 'resnet18', found 'mobilenet_v2'"),
        ("strategy", (*train, "--strategy", "lgr++"), "Known: cumulative, dgr, dgr+d, joint, lgr, lgr+d, lr, none, nr"),
        ("tasks", (*train, "--strategy", "none", "--tasks", "3"), "Each would get: task 1: anger, happiness, sadness; task 2"),
        ("class order", (*train, "--strategy", "none", "--class-order", "anger,love"), "there is no class love"),
        ("buffer policy", (*train, "--strategy", "lr", "--buffer-policy", "fifo"), "--buffer-policy"),
        ("no tasks", (*train, "--strategy", "none", "--tasks", "0"), "train.tasks"),
        ("seeds", (*train, "--strategy", "none", "--seeds", "3-1"), "seeds must"),
        ("option", (*train, "--strategy", "lr", "--bufer-size", "5"), "--buffer-size (default 1000)"),
        ("value", (*train, "--strategy", "lr", "--buffer-size", "many"), "--buffer-size"),
        ("cache of crops", ("train", "--strategy", "none", "--cache", latents.parent / "crops", "--out", tmp / "r"), "is a crop cache"),
        ("other backbone", (*train, "--strategy", "none", "--backbone", "vgg16"), "extract.backbone: expected 'vgg16' (command line), found 'mobilenet_v2'"),
        ("no cache", ("train", "--strategy", "none", "--cache", tmp / "no", "--out", tmp / "r"), "There is no cache"),
        ("unfinished", ("train", "--strategy", "none", "--cache", tmp / "empty", "--out", tmp / "r"), "no finished cache"),
        ("out is taken", ("train", "--strategy", "none", "--cache", latents, "--out", tmp / "full"), "exists already"),
        ("no runs", ("report", tmp / "empty"), "no finished runs"),
        ("shard", (*extract, "--shard", "2/2"), "--shard must be i/n with i from 0 to n-1"),
        ("action", (*extract, "finish"), "there is only finalize"),
        ("nothing to finalize", ("extract", "finalize", "--out", tmp / "l"), "nothing to finalize"),
        ("no crops to finalize", ("crop", "finalize", "--out", tmp / "l"), "nothing to finalize"),
        ("no layer", ("extract", "--crops", latents.parent / "crops", "--backbone", "convnext_tiny", "--out", tmp / "l"), "--layer NAME"),
        ("odd layer", ("extract", "--crops", latents.parent / "crops", "--backbone", "resnet18", "--layer", "avgpol", "--out", tmp / "l"), "avgpool"),
        ("lenet on faces", ("extract", "--crops", latents.parent / "crops", "--backbone", "lenet", "--weights", "random", "--out", tmp / "l"), "--size 32"),
        ("lenet of imagenet", ("extract", "--crops", latents.parent / "crops", "--backbone", "lenet", "--out", tmp / "l"), "lgr-pipe pretrain"),
        ("member", ("extract", "--crops", latents.parent / "crops", "--backbone", "resnet18", "--weights", "IMAGENET1K_V9", "--out", tmp / "l"), "IMAGENET1K_V1"),
        ("on missing", (*extract, "--on-missing", "guess"), "'whole', 'center' or 'drop'"),
        ("face crop", (*extract, "--face-crop", "maybe"), "'dlib', 'box' or 'off'"),
        ("option of another set", ("crop", "--dataset", "drawn", "--root", drawn, "--images", "aligned", "--out", tmp / "c"), "drawn has no option --images"),
        ("limit", (*extract, "--limit", "0"), "dataset.limit"),
        ("no such set", ("datasets", "check", "fer2013", "--root", drawn), "Known: ckplus, rafdb"),
        ("not in this layout", ("datasets", "check", "rafdb", "--root", drawn), "list_patition_label.txt"),
        ("no status", ("cache", "samples", latents.parent / "crops", "--status", "lost"), "found, whole, failed"),
        ("latents have none", ("cache", "samples", latents, "--status", "failed"), "crop cache"),
        ("retry without images", ("extract", "--crops", latents.parent / "crops", "--backbone", "resnet18", "--weights", "random", "--retry-failed", "--out", tmp / "l"), "--root DIR"),
        ("retry what is not there", ("crop", "--dataset", "drawn", "--root", drawn, "--retry-failed", "--out", tmp / "c"), "There is no cache"),
        ("no pretrain split", ("pretrain", "--crops", latents.parent / "crops", "--out", tmp / "w"), "mnist"),
        ("pretrain vgg", ("pretrain", "--backbone", "vgg16", "--crops", latents.parent / "crops", "--out", tmp / "w"), "only lenet"),
        ("small drawing", ("draw", "--per-class", "3", "--out", tmp / "d"), "at least 5"),
        ("params", ("draw", "--params", tmp / "no.yaml", "--out", tmp / "d"), "cannot be read"),
    ]  # fmt: skip


def test_mistakes_get_one_sentence_and_exit_2(
    here: Run, latents: Path, drawn: Path, tmp_path: Path
) -> None:
    """No traceback, nothing written, nothing lost.  (In this process: 27 starts take long.)"""
    mistakes = _mistakes(latents, drawn, tmp_path)
    before = sorted(tmp_path.rglob("*")), sorted(latents.parent.rglob("*"))
    for name, words, says in mistakes:
        done = here(*words)
        assert done.returncode == 2, f"{name}: {done.returncode} {done.stderr}"
        flat = " ".join(done.stderr.split())
        assert says in flat, f"{name}: {flat}"
        assert "Traceback" not in done.stderr
        after = sorted(tmp_path.rglob("*")), sorted(latents.parent.rglob("*"))
        assert after == before, f"{name} wrote something"


def test_an_unknown_option_is_a_mistake_in_a_real_process(lgr_pipe: Run) -> None:
    done = lgr_pipe("crop", "--outt", "x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_one_class_task_is_a_warning(here: Run, latents: Path, tmp_path: Path) -> None:
    done = here(
        "train", "--strategy", "none", "--cache", latents, "--tasks", "5", "--uneven", "--iters",
        "2", "--seeds", "0", "--out", tmp_path / "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "task 5: neutral): always answered right" in done.stderr
    table = here("report", tmp_path).stdout
    assert "tasks 4 (contempt), 5 (neutral) have a single class" in table


def test_a_finished_run_is_kept(here: Run, latents: Path, tmp_path: Path) -> None:
    words = ("train", "--strategy", "none", "--cache", latents, *TRAIN, "--out", tmp_path / "r")
    assert here(*words).returncode == 0
    before = (tmp_path / "r" / "metrics.json").read_bytes()
    done = here(*words)
    assert (done.returncode, (tmp_path / "r" / "metrics.json").read_bytes()) == (2, before)
    assert "--overwrite" in done.stderr
    assert here(*words, "--overwrite", "--batch-size", "9").returncode == 0
    assert (tmp_path / "r" / "metrics.json").read_bytes() != before


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
@pytest.mark.parametrize("delay", [0.0, 0.4, 1.2])
def test_killed_crop_resumes(
    lgr_pipe: Run, drawn: Path, crops: Path, tmp_path: Path, store: str, delay: float
) -> None:
    """kill -9 while the work is under way; the same command ends with the same content."""
    out = tmp_path / "crops"
    words = ("crop", "--dataset", "drawn", "--root", drawn, "--store", store, "--out", out)
    _kill(words, out, delay)
    done = lgr_pipe(*words)
    assert done.returncode == 0, done.stderr
    with Cache(out) as cache, Cache(crops) as whole:
        assert cache.manifest.content == whole.manifest.content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["crops"]


def test_killed_extract_resumes_at_the_unit(lgr_pipe: Run, crops: Path, tmp_path: Path) -> None:
    """One unit of two done, killed: the rest is made, bit by bit as in one go."""
    words = ("extract", "--crops", crops, "--backbone", "alexnet", "--weights", "random", "--out")
    code = (
        "import os, signal\n"
        "from cache.parts import Parts\n"
        "write = Parts.write\n"
        "def once(*words):\n"
        "    write(*words)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Parts.write = once\n"
    ) + ENTRY
    cut = [sys.executable, "-c", code, *map(str, (*words, tmp_path / "cut"))]
    assert subprocess.run(cut, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert len(scratch_folders(tmp_path / "cut")) == 1
    done = lgr_pipe("train", "--strategy", "none", "--cache", tmp_path / "cut", "--out", "x")
    assert (done.returncode, "is not finished" in done.stderr) == (2, True)
    done = lgr_pipe(*words, tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    assert "made by an earlier run  64" in done.stderr
    assert lgr_pipe(*words, tmp_path / "whole", "--store", "hdf5").returncode == 0
    with Cache(tmp_path / "cut") as one, Cache(tmp_path / "whole") as whole:
        assert one.manifest.content == whole.manifest.content
        assert np.array_equal(one.bulk(), whole.bulk())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut", "whole"]


@pytest.mark.parametrize("command", ["crop", "extract"])
def test_ctrl_c_says_how_to_go_on(drawn: Path, tmp_path: Path, command: str) -> None:
    """Whole process group, as a terminal does it; workers end without a word."""
    words = [command, "--dataset", "drawn", "--root", drawn, "--workers", "2", "--out"]
    if command == "extract":
        words[1:1] = ["--backbone", "alexnet", "--weights", "random", "--crops", tmp_path / "crops"]
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, *map(str, words), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    _wait_for(lambda: bool(list(tmp_path.glob(".*"))), process)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def _kill(words: tuple[object, ...], out: Path, delay: float) -> None:
    """Start, wait until the scratch folder is there and `delay` longer, kill -9."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    _wait_for(lambda: bool(scratch_folders(out)), process)
    time.sleep(delay)
    children = (
        psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    )
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "worker processes outlive their parent"


def _wait_for(there: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    until = time.monotonic() + 60
    while not there() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
