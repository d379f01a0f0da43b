"""A Dask cluster as a user starts it, and small work for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cache.parts import Parts
from pipeline.how import Dask, How
from stages.datasets import read
from stages.extract.crop import CropWork
from tests.making import crop_work

SMALL = 8
"""Rows of a unit in all of these tests."""
ENTRY = (
    f"import stages.extract.crop as room; room.shard_rows_for = lambda _: {SMALL}; "
    "from pipeline.cli import main; main()"
)
"""The command line with small units."""
LOCAL = How(1, dask=Dask(workers=2))


def draw_images(out: Path) -> Path:
    """60 images in two classes: eight units."""
    rng = np.random.default_rng(0)
    for k in range(60):
        path = out / ("calm", "tense")[k % 2] / f"{k:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    return out


def parts_of(images: Path, out: Path) -> tuple[CropWork, Parts]:
    work = crop_work(read("folder", images), face_crop="off", size=32)
    return work, Parts(out, work.plan("zarr", SMALL))


def start(*words: object, **env: str) -> subprocess.Popen[str]:
    """The command line, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY, *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **env},
        start_new_session=True,
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """A scheduler and two workers, as on two nodes; the file that says where."""
    file = folder / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    dask_command = [sys.executable, "-m", "dask"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    alone = ["--host", "127.0.0.1", "--port", "0"]
    worker = ["worker", *common, "--nthreads", "1", "--local-directory", str(folder)]
    env = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(folder)}
    commands = [["scheduler", *common, *alone], worker, worker]
    started = [
        subprocess.Popen([*dask_command, *c], **quiet, cwd=folder, env=env) for c in commands
    ]
    try:
        yield str(file)
    finally:
        for process in started:
            process.kill()  # a worker ends with its nanny
            process.wait()
