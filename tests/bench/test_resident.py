"""Latents left on disk against latents in memory: what the missing memory costs in time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.reader import Cache
from pipeline.device import threads_for
from stages import strategies
from stages.train.disk import OnDisk, Reader
from stages.train.scenario import Scenario, make_scenario
from stages.train.strategy import Setup, heads_of
from stages.train.view import Data, Source, TaskView
from tests.bench.measuring import Bench
from tests.making import make_cache

pytestmark = pytest.mark.bench
DIM, MB = 4096, 1_000_000


@pytest.fixture(scope="module")
def rows(bench: Bench) -> int:
    return 6_000 if bench.quick else 40_000


@pytest.fixture(scope="module")
def stored(rows: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in turn, a third of the rows for testing: the rows of a task are a third of
    every chunk, so that three times what is needed must be read."""
    out = tmp_path_factory.mktemp("resident") / "latents"
    values = np.random.default_rng(0).random((rows, DIM), dtype=np.float32)
    make_cache(out, "zarr", values, shard_rows=256)
    return out


def _learn(name: str, data: Source, scenario: Scenario, iters: int) -> Callable[[], object]:
    setup = Setup(DIM, heads_of(scenario), "class", iters, 128, 1e-4, 0, "cpu", True)
    room = strategies.module(name)
    method = room.Method(setup, room.Options())
    method.learn(TaskView(data, scenario.tasks[:1]))
    return lambda: method.learn(TaskView(data, scenario.tasks[1:]))


@pytest.mark.parametrize("name", ["none", "lgr+d"])
def test_iterations_from_disk_and_from_memory(bench: Bench, stored: Path, name: str) -> None:
    """A tenth of the latents' bytes in memory; the second task, its windows read from the page
    cache of the system.  Batch 128, and as many replayed."""
    torch.set_num_threads(threads_for(128 * DIM))
    iters = 20 if bench.quick else 60
    with Cache(stored) as cache:
        train, test = cache.split_rows("train"), cache.split_rows("test")
        groups = [("a",), ("b",)]
        scenario = make_scenario("class", "ab", cache.side("label"), train, test, groups)
        targets = torch.from_numpy(scenario.targets)
        memory = 4 * DIM * cache.manifest.rows // 10
        disk = OnDisk(Reader(cache), targets, None, memory)
        ram = Data(torch.from_numpy(cache.bulk("float32")), targets)
        view = TaskView(disk, scenario.tasks[1:])
        visits = torch.cat([b.latents[:, 0] for b in view.batches(len(view), 1, _stream())])
        own = ram.latents[torch.from_numpy(scenario.tasks[1].train_rows), 0]
        assert torch.equal(visits.sort().values, own.sort().values)
        bench.compare(
            f"{name}, {iters} steps, latents on disk",
            _learn(name, disk, scenario, iters),
            _learn(name, ram, scenario, iters),
            against="the same from memory",
            equal=f"{len(ram.latents)} x {DIM}, {memory / MB:.0f} MB of memory for latents",
            aim="-",
            repeats=3,
            note=f"windows of {disk.window_rows} rows, each row once a pass",
        )


def _stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


GROWTH = """
import contextlib, torch, zarr
from pathlib import Path
from pipeline import cli, stage_two
from stages.strategies import none

def kb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

before = kb("VmRSS")
with contextlib.suppress(SystemExit):
    cli.main()
print(1024 * (kb("VmHWM") - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_memory_that_a_run_takes(bench: Bench, stored: Path, rows: int, tmp_path: Path) -> None:
    """The whole command, evaluation included, above what its imports take."""
    allowed = 4 * DIM * rows // 10 // MB
    found: dict[str, dict[str, float]] = {}
    for form in ("disk", "ram"):
        words = (
            *("train", "--strategy", "none", "--cache", stored, "--out", tmp_path / form),
            *("--device", "cpu", "--scenario", "class", "--tasks", 2, "--seeds", 0),
            *("--iters", 100, "--resident", form, "--resident-memory", allowed),
        )
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, *map(str, words)],
            check=True,
            capture_output=True,
            text=True,
        )
        seconds = round(time.perf_counter() - started, 2)
        growth = round(int(done.stdout.split()[-1]) / MB, 1)
        assert (tmp_path / form / "metrics.json").exists()
        found[form] = {"rss_growth_mb": growth, "seconds": seconds}
    bench.figures["resident"] = {
        "rows": rows,
        "dim": DIM,
        "latents_mb": round(4 * DIM * rows / MB, 1),
        "allowed_mb": allowed,
        **found,
    }
    print(f"\n{bench.figures['resident']}")
