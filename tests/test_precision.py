"""`--precision`: what is rounded, what it is recorded as, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache.errors import Refused
from cache.reader import Cache
from pipeline import device
from pipeline.image_root import load_images
from pipeline.params import TrainParams, deciding
from stages.extract.root import Root
from stages.train import components
from tests.command import Run
from tests.making import make_cache
from tests.test_resident_runs import trained, words

DIM = 256


def _products(precision: str) -> torch.Tensor:
    device.choose("cpu")
    device.multiply(precision, "cpu")
    return _product()


def _product() -> torch.Tensor:
    left, right = _factors()
    return torch.mm(left, right)


def _factors() -> torch.Tensor:
    return torch.rand(2, DIM, DIM, generator=torch.Generator().manual_seed(0))


def _has_bf16() -> bool:
    try:
        device.multiply("bf16", "cpu")
    except Refused:
        return False
    finally:
        device.choose("cpu")
    return True


needs_bf16 = pytest.mark.skipif(not _has_bf16(), reason="this processor multiplies no bf16")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, half a deviation apart in each of 256 values."""
    values = np.random.default_rng(0).normal(0, 1, (600, DIM))
    values += 0.5 * (np.arange(600) % 2)[:, None]
    out = tmp_path_factory.mktemp("precision") / "latents"
    make_cache(out, "zarr", values.astype(np.float32), shard_rows=512)
    return out


@needs_bf16
def test_factors_are_rounded_and_sums_are_not() -> None:
    """Rounded by hand, and multiplied in float64."""
    left, right = _factors()
    full, rounded = _products("fp32"), _products("bf16")
    by_hand = (left.bfloat16().double() @ right.bfloat16().double()).float()
    assert not torch.equal(full, rounded)
    assert torch.allclose(rounded, by_hand, rtol=1e-5)
    assert torch.allclose(full, (left.double() @ right.double()).float(), rtol=1e-5)


@needs_bf16
def test_a_device_that_is_chosen_multiplies_in_full() -> None:
    """Each command chooses: what one has rounded, another in the same process does not."""
    full = _products("fp32")
    device.multiply("bf16", "cpu")
    device.choose("cpu")
    assert torch.equal(_product(), full)


@needs_bf16
def test_some_products_stay_in_full() -> None:
    """Components of real latents are the same, whatever a run's products are."""
    rows = torch.rand(100, DIM, generator=torch.Generator().manual_seed(0)) - 0.5
    device.multiply("bf16", "cpu")
    axes = components.fit(rows, 4)
    found, rounded = (axes.axes, axes.scores(rows)), _product()
    device.choose("cpu")
    again = components.fit(rows, 4)
    assert torch.equal(found[0], again.axes)
    assert torch.equal(found[1], again.scores(rows))
    assert not torch.equal(rounded, _product())


def test_a_root_is_run_in_full(latents: Path, crops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is compared with the cache, and learnt with it."""
    plain, seen = Root.latents, list[str]()

    def latents_of(self: Root, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return plain(self, pixels)

    monkeypatch.setattr(device, "_rounds", lambda _: True)
    monkeypatch.setattr(Root, "latents", latents_of)
    device.multiply("bf16", "cpu")
    with Cache(latents) as cache:
        images, pictures = load_images(cache, cache.bulk("float32"), crops, None, "cpu")
    images.root(images.pixels(pictures[:2]))
    assert seen == ["highest"] * 2
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize(
    ("precision", "on", "says"),
    [
        ("tf32", "cpu", "tf32 is for a GPU; this run is on a processor: use --precision bf16"),
        ("bf16", "cuda", "bf16 is for a processor; this run is on a GPU: use --precision tf32"),
    ],
)
def test_each_device_has_its_own(precision: str, on: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        device.multiply(precision, on)


def test_a_processor_without_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would silently be as slow and as exact as before."""
    monkeypatch.setattr(device, "_rounds", lambda _: False)
    with pytest.raises(Refused, match="a processor of this kind multiplies nothing but fp32"):
        device.multiply("bf16", "cpu")
    assert torch.get_float32_matmul_precision() == "highest"


def _top(out: Path) -> torch.Tensor:
    """All that answers after the last task."""
    path = out / "checkpoints" / "seed-3" / "task-2.safetensors"
    return torch.cat([t.flatten().float() for t in load_file(path).values()])


def test_a_run_says_its_precision_and_goes_on_in_no_other(
    here: Run, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_rounds", lambda _: True)
    run, plain, _ = trained(here, *words(vectors, tmp_path / "fp32"))
    assert (run["train"]["precision"], plain["precision"]) == ("fp32", "fp32")
    given = words(vectors, tmp_path / "bf16", "--precision", "bf16")
    run, rounded, _ = trained(here, *given)
    assert (run["train"]["precision"], rounded["precision"]) == ("bf16", "bf16")
    other = here(*words(vectors, tmp_path / "bf16", "--resume"))
    assert other.returncode == 2
    assert "precision" in other.stderr
    assert here(*given, "--resume").returncode == 0


@needs_bf16
def test_a_run_is_rounded_whatever_the_seeds_at_once(
    here: Run, vectors: Path, tmp_path: Path
) -> None:
    _, plain, _ = trained(here, *words(vectors, tmp_path / "fp32"))
    rounded = ("--precision", "bf16", "--seeds", "3-4", "--threads", 1)
    _, found, _ = trained(here, *words(vectors, tmp_path / "bf16", *rounded))
    assert abs(_accuracy(found) - _accuracy(plain)) < 0.05
    assert not torch.equal(_top(tmp_path / "bf16"), _top(tmp_path / "fp32"))
    trained(here, *words(vectors, tmp_path / "both", *rounded, "--jobs", 2))
    assert torch.equal(_top(tmp_path / "bf16"), _top(tmp_path / "both"))


def test_a_sweep_is_refused_before_it_begins(
    here: Run, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("sweep", "--strategy", "none", "--cache", vectors, "--out", tmp_path / "s")
    given += ("--device", "cpu", "--scenario", "class", "--tasks", 2)
    done = here(*given, "--grid", "iters=2,3", "--precision", "tf32")
    assert done.returncode == 2
    assert "tf32 is for a GPU" in " ".join(done.stderr.split())
    monkeypatch.setattr(device, "_rounds", lambda _: False)
    done = here(*given, "--grid", "precision=fp32,bf16")
    assert done.returncode == 2
    assert "multiplies nothing but fp32" in " ".join(done.stderr.split())
    assert not (tmp_path / "s").exists()


@needs_bf16
def test_a_sweep_may_vary_it(here: Run, vectors: Path, tmp_path: Path) -> None:
    given = ("sweep", "--strategy", "none", "--cache", vectors, "--out", tmp_path / "s")
    given += ("--device", "cpu", "--scenario", "class", "--tasks", 2, "--iters", 3, "--seeds", 3)
    done = here(*given, "--grid", "precision=fp32,bf16")
    assert done.returncode == 0, done.stderr
    made = {json.loads(f.read_text())["precision"] for f in (tmp_path / "s").rglob("metrics.json")}
    assert made == {"fp32", "bf16"}


def _accuracy(metrics: dict[str, Any]) -> float:
    return float(metrics["average_accuracy_mean"])


def test_full_precision_decides_as_before_there_was_a_choice() -> None:
    """Interrupted runs and sweeps of then go on."""
    full = TrainParams().model_dump()
    assert "precision" not in deciding(full)
    assert deciding({**full, "precision": "bf16"})["precision"] == "bf16"
