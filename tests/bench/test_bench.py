"""Ours against the floor, interleaved in one run: ratios of medians, never a verdict on time.

`make bench` prints the table and writes bench.json.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.reader import Cache
from cache.store import STORES
from stages.extract.backbones import Root, choose
from stages.extract.random_weights import random_network
from stages.strategies import module
from stages.train.networks import VAE, Top
from stages.train.scenario import make_scenario
from stages.train.strategy import Setup, heads_of
from stages.train.view import Data, TaskView
from tests.making import make_cache

pytestmark = pytest.mark.bench
OUT = Path(__file__).parent.parent.parent / "bench.json"
_rows: list[dict[str, Any]] = []


def compare(
    row: str, equal: str, ours: Callable[[], object], floor: Callable[[], object], repeats: int = 7
) -> None:
    """Time both in turn after one warm-up; ratio = floor / ours (1: as fast as the floor)."""
    ours(), floor()
    seconds: dict[str, list[float]] = {"ours": [], "floor": []}
    for _ in range(repeats):
        for name, work in (("ours", ours), ("floor", floor)):
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["floor"], strict=True)]
    result = {
        "row": row,
        "equal": equal,
        "ours_s": statistics.median(seconds["ours"]),
        "floor_s": statistics.median(seconds["floor"]),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "n": repeats,
    }
    _rows.append(result)
    assert all(value > 0 for value in seconds["ours"])


@pytest.fixture(scope="module", autouse=True)
def _table() -> Any:
    yield
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    OUT.write_text(json.dumps({"machine": machine, "rows": _rows}, indent=1) + "\n")
    print(f"\n{machine}; ratio = floor / ours, median [min, max] of n interleaved repeats")
    for r in _rows:
        print(
            f"{r['row']:34} ours {1e3 * r['ours_s']:9.2f} ms  floor {1e3 * r['floor_s']:9.2f} ms  "
            f"ratio {r['ratio']:.2f} [{r['ratio_min']:.2f}, {r['ratio_max']:.2f}] n={r['n']}  "
            f"({r['equal']})"
        )


def test_vgg16_root_against_matrix_multiplication() -> None:
    """3.07 GMAC a crop at the machine's own fp32 matrix rate."""
    root = Root(random_network(choose("vgg16", None), 0), "sigmoid", "none")
    root.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crops = torch.randint(0, 255, (32, 100, 100, 3), dtype=torch.uint8)
    macs, side = 32 * 3.07e9, 2048
    a, b = torch.rand(side, side), torch.rand(side, side)
    times = round(macs / side**3)

    def multiply() -> None:
        for _ in range(times):
            torch.mm(a, b)

    with torch.inference_mode():
        compare("vgg16 root, 32 crops", "98 GMAC, fp32", lambda: root(crops), multiply)


@pytest.mark.parametrize("store", STORES)
def test_load_against_numpy(store: str, tmp_path: Path) -> None:
    """A cache into memory, every row checked, page cache warm."""
    rows = torch.rand(4096, 4096, generator=torch.Generator().manual_seed(0)).numpy()
    make_cache(tmp_path / "c", store, rows, shard_rows=256)
    np.save(tmp_path / "plain.npy", rows)

    def load() -> None:
        with Cache(tmp_path / "c") as cache:
            cache.bulk()

    compare(
        f"load 67 MB from {store}",
        "4096 x 4096 float32",
        load,
        lambda: np.load(tmp_path / "plain.npy"),
    )


def test_lgr_d_step_against_a_bare_loop() -> None:
    """LGR+d on 4096-d latents, 128 current and 128 replayed rows, second task."""
    rows, iters = 1024, 20
    labels = np.arange(rows) % 4
    place = np.arange(rows)
    scenario = make_scenario(
        "task", "abcd", labels, place[: rows // 2], place[rows // 2 :], [("a", "b"), ("c", "d")]
    )
    data = Data(torch.rand(rows, 4096), torch.from_numpy(scenario.targets))
    setup = Setup(4096, heads_of(scenario), "task", iters, 128, 1e-4, 0, "cpu", True)
    room = module("lgr+d")
    method = room.Method(setup, room.Options())
    method.learn(TaskView(data, scenario.tasks[:1]))
    task = TaskView(data, scenario.tasks[1:])
    stream = torch.Generator().manual_seed(0)
    top, vae, old_vae = Top(4096, 4, stream), VAE(4096, stream), VAE(4096, stream)
    top_adam = torch.optim.Adam(top.parameters(), lr=1e-4, fused=True)
    vae_adam = torch.optim.Adam(vae.parameters(), lr=1e-4, fused=True)
    x, y = data.latents[:128], torch.zeros(128, dtype=torch.int64)

    def bare() -> None:
        for _ in range(iters):
            both = torch.cat([x, old_vae.sample(128, stream)])
            logits = top(both, stream)
            loss = torch.nn.functional.cross_entropy(logits[:128, 2:], y)
            target = torch.softmax(logits[128:, :2].detach(), 1)
            loss = loss - (target * torch.log_softmax(logits[128:, :2], 1)).sum(1).mean()
            top_adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            top_adam.step()
            mean, log_variance = vae.encode(both)
            z = mean + torch.randn(mean.shape, generator=stream) * torch.exp(0.5 * log_variance)
            out = vae.decode_raw(z)
            elbo = torch.nn.functional.binary_cross_entropy_with_logits(out, both)
            elbo = elbo + 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
            vae_adam.zero_grad()
            elbo.backward()  # type: ignore[no-untyped-call]
            vae_adam.step()

    compare("lgr+d, 20 steps, batch 128 + 128", "4096-d, Adam", lambda: method.learn(task), bare)
