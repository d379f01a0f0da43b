"""`--resident` on the command line: what is chosen, said, recorded, refused; and what it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipeline.sweep
from cache.errors import Refused
from cache.reader import Cache
from pipeline import resident
from pipeline.params import TrainParams, deciding
from pipeline.resident import Form, choose
from tests.command import Run, without_costs
from tests.making import make_cache

ROWS, DIM = 6000, 256
"""6.1 MB of latents; 2000 training rows of each class, 2.0 MB."""
MB = 1_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, half a deviation apart in each of 256 values."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (ROWS, DIM)) + 0.5 * (np.arange(ROWS) % 2)[:, None]
    out = tmp_path_factory.mktemp("large") / "latents"
    make_cache(out, "zarr", values.astype(np.float32), shard_rows=512)
    return out


def words(cache: Path, out: Path, *more: object, strategy: str = "none") -> tuple[object, ...]:
    small = ("--scenario", "class", "--tasks", 2, "--iters", 40, "--batch-size", 64, "--seeds", 3)
    return (
        *("train", "--strategy", strategy, "--cache", cache, "--out", out, "--lr", 0.001),
        *(*small, "--device", "cpu", *more),
    )


def trained(here: Run, *given: object) -> tuple[dict[str, Any], dict[str, Any], str]:
    done = here(*given)
    assert done.returncode == 0, done.stderr
    out = Path(str(given[given.index("--out") + 1]))
    run, metrics = (json.loads((out / f"{n}.json").read_text()) for n in ("run", "metrics"))
    return run, without_costs(metrics), " ".join(done.stderr.split())


def test_from_memory_or_disk_is_chosen_said_and_recorded(
    here: Run, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain, said = trained(here, *words(large, tmp_path / "auto"))
    assert run["resident"]["form"] == "ram"
    assert "they take 6.1 MB" in run["resident"]["why"]
    assert "Latents are in memory (they take 6.1 MB, " in said
    monkeypatch.setattr(resident, "available_memory", lambda: 7 * MB)
    run, found, said = trained(here, *words(large, tmp_path / "little"))
    assert run["resident"] == {
        "form": "disk",
        "why": "they take 6.1 MB, 7.0 MB of memory are free",
        "memory_mb": 512,
    }
    assert "Latents are left on disk (they take 6.1 MB, 7.0 MB of memory are free)" in said
    assert "At most 512 MB of them are in memory at a time (--resident-memory)" in said
    assert found == plain  # each task fits into its memory: to the last bit
    run, found, _ = trained(here, *words(large, tmp_path / "ram", "--resident", "ram"))
    assert run["resident"] == {"form": "ram", "why": "asked for"}
    assert found == plain


def test_in_windows_it_is_another_shuffle_that_repeats(
    here: Run, large: Path, tmp_path: Path
) -> None:
    """1 MB: windows of 366 of 2000 rows."""
    disk = ("--resident", "disk", "--resident-memory", 1)
    results = {
        name: trained(here, *words(large, tmp_path / name, *more, strategy="cumulative"))
        for name, more in (("a", disk), ("b", disk), ("other", (*disk[:3], 2)), ("ram", ()))
    }
    run, first, _ = results["a"]
    assert run["resident"] == {"form": "disk", "why": "asked for", "memory_mb": 1}
    assert results["b"][1] == first
    assert results["other"][1] != first
    assert results["ram"][1] != first
    for _, found, _ in results.values():
        assert found["average_accuracy_mean"] > 0.9


def test_a_run_goes_on_in_the_same_order_only(here: Run, large: Path, tmp_path: Path) -> None:
    def again(*more: object) -> subprocess.CompletedProcess[str]:
        return here(*words(large, tmp_path / "r", "--resume", *more))

    disk = ("--resident", "disk", "--resident-memory")
    trained(here, *words(large, tmp_path / "r", *disk, 1))
    with Cache(large) as cache:
        values = cache.bulk()
    make_cache(tmp_path / "copy", "zarr", values, shard_rows=64)  # in other chunks
    copied = here(*words(tmp_path / "copy", tmp_path / "r", "--resume", *disk, 1))
    assert "chunk_rows: expected 64, found 512" in " ".join(copied.stderr.split())
    for given, said in (
        ((*disk, 2), "resident_memory: expected 2, found 1"),
        (("--resident", "ram"), "resident: expected"),
    ):
        refused = again(*given)
        assert refused.returncode == 2
        assert said in " ".join(refused.stderr.split())
    assert again(*disk, 1, "--seeds", "3-4").returncode == 0
    trained(here, *words(large, tmp_path / "m"))  # from memory, where --resident-memory is nothing
    more = ("--resume", "--resident", "ram", "--resident-memory", 9, "--seeds", "3-4")
    trained(here, *words(large, tmp_path / "m", *more))


def test_what_does_not_fit_is_refused_with_numbers(
    here: Run, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "available_memory", lambda: 6 * MB)
    for form, said in (
        ("ram", ["they take 6.1 MB, 6.0 MB of memory are free", "Use --resident disk"]),
        ("gpu", ["the networks are on cpu", "--device cuda"]),
    ):
        done = here(*words(large, tmp_path / "r", "--resident", form))
        assert done.returncode == 2
        assert f"Error: --resident {form}" in done.stderr
        assert all(part in " ".join(done.stderr.split()) for part in said)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("wanted", "device", "gpu", "ram", "crops", "form"),
    [
        ("auto", "cpu", 0, 126, 0, "ram"),
        ("auto", "cpu", 0, 124, 0, "disk"),
        ("auto", "cpu", 0, 130, 10, "disk"),
        ("auto", "cuda", 126, 0, 0, "gpu"),
        ("auto", "cuda", 124, 126, 0, "ram"),
        ("auto", "cuda", 124, 124, 0, "disk"),
        ("auto", "auto", 0, 126, 0, "ram"),
        ("ram", "cuda", 999, 101, 0, "ram"),
        ("ram", "cpu", 0, 101, 10, None),
        ("gpu", "cuda", 101, 0, 0, "gpu"),
        ("gpu", "cuda", 99, 999, 0, None),
        ("gpu", "cpu", 999, 999, 0, None),
        ("disk", "cuda", 999, 999, 0, "disk"),
    ],
)
def test_where_latents_of_100_mb_go(
    monkeypatch: pytest.MonkeyPatch,
    wanted: Any,
    device: str,
    gpu: int,
    ram: int,
    crops: int,
    form: Form | None,
) -> None:
    """A fifth of what is free is left free, unless somebody asks for it."""
    monkeypatch.setattr(resident, "available_memory", lambda: ram * MB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gpu * MB, 999 * MB))
    settings = TrainParams(resident=wanted)
    if form is None:
        with pytest.raises(Refused, match=f"--resident {wanted}"):
            choose(settings, device, 100 * MB, crops * MB)
    else:
        assert choose(settings, device, 100 * MB, crops * MB).form == form


def test_all_runs_of_a_sweep_have_their_latents_in_one_place(
    here: Run, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settled by the sweep, whatever memory its runs find; and as train records it."""
    seen: list[Any] = []

    def look(points: Any, manifest: Any, out: Path, how: Any) -> None:
        del manifest, out
        seen[:] = [points, how]
        raise Refused("seen")

    monkeypatch.setattr(pipeline.sweep, "sweep", look)
    for memory, form, latents in ((7, "disk", MB), (9, "ram", 4 * ROWS * DIM)):
        monkeypatch.setattr(resident, "available_memory", lambda memory=memory: memory * MB)
        given = (*words(large, tmp_path / "s", "--resident-memory", 1)[1:], "--validation", 0.1)
        done = here("sweep", *given, "--grid", "iters=2,4")
        assert done.stderr.endswith("Error: seen\n"), done.stderr
        assert ("left on disk" in done.stderr) == (form == "disk")
        points, how = seen
        assert how.estimate == 1_000_000_000 + latents
        assert all(f"--resident={form}" in point.words for point in points)
        run, _, _ = trained(here, "train", *points[0].words, "--out", tmp_path / form)
        assert run["resident"]["why"] == "asked for"
        assert run["train"]["resident"] == form
        assert deciding(run["train"]) == points[0].settings.train
    refused = here("sweep", *given, "--grid", "resident=ram,disk")
    assert "--grid resident: " in refused.stderr


LIMITED = """
import resource, sys
from pathlib import Path
import psutil, torch, zarr
from pipeline import cli, stage_two
from stages.strategies import none
torch.set_num_threads(1)
torch.rand(64, 64) @ torch.rand(64, 64)
status = Path("/proc/self/status").read_text()
now = next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmData" in line)
most = now + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
cli.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for what is taken already")
def test_ten_times_more_rows_than_the_memory_allowed(tmp_path: Path) -> None:
    """60 MB of latents for a process that may take 45 MB more than it has when all is imported,
    6 MB of them for latents; from memory it cannot."""
    values = np.random.default_rng(0).random((15_000, 1000), dtype=np.float32)
    make_cache(tmp_path / "c", "zarr", values, shard_rows=256)
    codes = {}
    for form in ("disk", "ram"):
        given = ("--resident", form, "--resident-memory", 6, "--iters", 100, "--threads", 1)
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(45 * MB)]
            + [str(word) for word in words(tmp_path / "c", tmp_path / form, *given)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
            check=False,
        )
        codes[form] = done.returncode, done.stderr[-2000:]
    assert codes["disk"][0] == 0, codes["disk"]
    assert codes["ram"][0] != 0
    metrics = json.loads((tmp_path / "disk" / "metrics.json").read_text())
    assert metrics["cache_rows"] == 15_000
