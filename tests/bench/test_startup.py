"""How soon a command does what it was called for, against what nothing can be faster than.

Not ratios: each row's note says how many seconds more ours takes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.bench.measuring import Bench
from tests.command import ENTRY
from tests.making import make_cache

pytestmark = pytest.mark.bench
PASS = ("-c", "pass")
TORCH = ("-c", "import time, torch; print(time.time())")
FIRST_STEP = """
import os, time
from stages.train.adam import Adam

step = Adam.step

def timed(self):
    step(self)
    print(time.time(), flush=True)
    os._exit(0)

Adam.step = timed
"""


def whole(*words: str) -> float:
    """Seconds from the start of a Python process to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def until(*words: str) -> float:
    """Seconds from the start of a Python process to the moment that it prints."""
    started = time.time()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) - started


def more(ours: list[float], other: list[float]) -> str:
    apart = [a - b for a, b in zip(ours, other, strict=True)]
    return f"{statistics.median(apart):.2f} [{min(apart):.2f}, {max(apart):.2f}] s more"


def test_help_against_an_empty_program(bench: Bench, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((64, 8), dtype=np.float32)
    make_cache(tmp_path / "latents", "zarr", rows, shard_rows=64)
    commands = ("--help", "train --help", f"cache ls {tmp_path}", f"cache info {tmp_path}/latents")
    for command in commands:
        words = ("-c", ENTRY, *command.split())
        whole(*words)
        pairs = [(whole(*words), whole(*PASS)) for _ in range(3 if bench.quick else 9)]
        ours, other = ([*column] for column in zip(*pairs, strict=True))
        bench.add(
            f"lgr-pipe {command.partition(' /')[0]}",
            ours,
            other,
            against="python -c pass",
            equal="a process from start to end",
            aim="within 0.4 s more",
            note=more(ours, other),
        )


def test_first_step_of_training_against_import_torch(bench: Bench, tmp_path: Path) -> None:
    """A small cache: what is left is start-up.  File caches are warm after the rows above, torch's
    after the first of these."""
    rows = np.random.default_rng(0).random((2048, 256), dtype=np.float32)
    make_cache(tmp_path / "latents", "zarr", rows, shard_rows=1024)
    words = ("train", "--strategy", "lgr+d", "--tasks", "1", "--seeds", "0", "--iters", "1")
    given = ("-c", FIRST_STEP + ENTRY, *words, "--cache", str(tmp_path / "latents"), "--out")
    until(*TORCH)
    pairs = [
        (until(*given, str(tmp_path / f"run-{k}")), until(*TORCH))
        for k in range(2 if bench.quick else 5)
    ]
    ours, other = ([*column] for column in zip(*pairs, strict=True))
    bench.add(
        "train to its first step",
        ours,
        other,
        against="import torch",
        equal="from the start of the process; lgr+d, 2048 latents of 256",
        aim="within 1 s more",
        note=more(ours, other),
    )
