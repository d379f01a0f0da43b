"""What a strategy takes beyond the latents, at its peak, against the bytes that it has to hold.

Each runs in a process of its own, on one thread, prepared as `train` does.  What the system counts
as resident is read when the latents are there and at its highest.  The code of torch's kernels is
in memory by then: a strategy on 64-d latents has run, and let go of what it had.

The same strategy again differs by a few MB, for where small things lie decides into which gaps a
large one fits: hence medians.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline.device import prepare
from pipeline.how import cores
from stages.train.loop import run
from stages.train.networks import VAE, Top, parameter_count
from tests.bench import made_up
from tests.bench.measuring import Bench

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the highest since a moment"),
]
ROOT = Path(__file__).parent.parent.parent
DIM, CLASSES, BATCH, ANSWERED, STORED = 4096, 8, 128, 256, 1000


def needed(name: str) -> dict[str, int]:
    """Bytes that must be there at one time, by what they are for."""
    stream = torch.Generator()
    with_vae = name.startswith("lgr")
    networks = 4 * parameter_count(Top(DIM, CLASSES, stream))
    networks += 4 * parameter_count(VAE(DIM, stream)) if with_vae else 0
    # Rows of latents: the batch that was learnt and the one that comes; lr: both of its parts
    # together; lgr: those drawn, both together, the VAE's output, its loss of each value (then
    # its gradient).
    batches = 2 + {"lr": 2, "lgr": 7, "lgr+d": 7}.get(name, 0)
    return {
        "parameters": networks,
        "moments": 2 * networks,
        "snapshots": networks if with_vae else 0,
        "buffer": STORED * (4 * DIM + 16) if name == "lr" else 0,
        "a step or answers": max(networks + batches * 4 * DIM * BATCH, 4 * DIM * ANSWERED),
    }


def child(name: str) -> None:
    """Print the bytes that resident memory has grown by at the most."""
    data, scenario = made_up.latents(2048, DIM)
    prepare(1)
    small, tasks = made_up.latents(256, 64)
    run(made_up.method(name, made_up.setup(small, tasks, iters=3)), small, tasks)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is now
    before = _resident("VmRSS")
    run(made_up.method(name, made_up.setup(data, scenario, iters=10)), data, scenario)
    print(_resident("VmHWM") - before)


def grown_by(name: str) -> int:
    """In a process that is new: a forked one has the gaps of the one it came from."""
    code = f"from tests.bench.test_memory import child; child({name!r})"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return int(told.stdout.split()[-1])


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(which)]
    return 1024 * int(line.split()[1])


def test_memory(bench: Bench) -> None:
    names = ["none", "lgr+d"] if bench.quick else ["none", "joint", "cumulative", "lr", "lgr+d"]
    repeats = 1 if bench.quick else 3
    with ThreadPoolExecutor(cores()) as pool:  # no time is taken here
        each = list(pool.map(grown_by, [name for name in names for _ in range(repeats)]))
    found = {}
    print(f"\nMB beyond the latents at the peak, {DIM}-d, {CLASSES} classes, batch {BATCH}")
    for k, name in enumerate(names):
        grown, parts = each[k * repeats : (k + 1) * repeats], needed(name)
        assert min(grown) > parts["parameters"]
        least, middle = sum(parts.values()), statistics.median(grown)
        found[name] = {"grown": grown, "needed": parts, "ratio": middle / least}
        print(
            f"{name:11} {middle / 1e6:6.1f}, needed {least / 1e6:6.1f}: {middle / least:.2f} "
            f"[{min(grown) / least:.2f}, {max(grown) / least:.2f}] n={repeats}"
        )
    bench.figures["memory"] = {"aim": "<= 1.3 of what is needed", "strategies": found}
