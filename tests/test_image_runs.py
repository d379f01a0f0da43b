"""`lgr-pipe train` with strategies that work on images: the root again, and what is refused."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cache.errors import CacheMismatchError, Refused
from cache.parts import Parts, Plan
from cache.reader import Cache
from cache.schema import Info
from cache.writer import Content, publish
from pipeline.image_root import load_images
from stages.extract.recover import recover, refuse_other_latents
from tests.command import Run
from tests.making import make_crops, make_latents
from tests.replicas import make_mnist

OPTIONS: dict[str, tuple[str, ...]] = {
    "lr": (),
    "nr": ("--buffer-size", "20"),
    "dgr": ("--generator-units", "6", "--z", "3"),
    "dgr+d": ("--generator-units", "6", "--z", "3", "--replay-pool", "8"),
}


def words(strategy: str, cache: Path, out: Path, *more: object) -> list[str]:
    given = (
        "train", "--strategy", strategy, "--cache", cache, "--out", out, "--tasks", 4, "--iters", 3,
        "--batch-size", 6, "--seeds", "0", "--device", "cpu", *OPTIONS[strategy], *more,
    )  # fmt: skip
    return [str(word) for word in given]


def metrics_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


def refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    flat = " ".join(done.stderr.split())
    assert done.returncode == 2, flat
    assert "Traceback" not in flat
    assert says in flat


# --- the root again ----------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """MNIST in miniature: crops, and latents of a LeNet that was trained on its own rows."""

    crops: Path
    weights: Path
    other_weights: Path
    latents: Path


@pytest.fixture(scope="module")
def digits(here: Run, tmp_path_factory: pytest.TempPathFactory) -> Digits:
    root = tmp_path_factory.mktemp("digits")
    make_mnist(root / "mnist")
    found = Digits(root / "crops", root / "a.safetensors", root / "b.safetensors", root / "lenet")
    make_crops(found.crops, ("mnist", root / "mnist"), face_crop="off", size=32)
    for seed, weights in enumerate((found.weights, found.other_weights)):
        done = here("pretrain", "--crops", found.crops, "--out", weights, "--iters", 5,
                    "--seed", seed, "--dataset", "mnist", "--root", root / "mnist")  # fmt: skip
        assert done.returncode == 0, done.stderr
    make_latents(found.latents, found.crops, "lenet", str(found.weights))
    return found


def _most_off(latents: Path, crops: Path, weights: str | None) -> float:
    """Over all rows, in batches of 7: not the batches of the cache, nor those of the check."""
    with Cache(latents) as cache, Cache(crops) as pictures:
        stored, rows = cache.bulk("float32"), cache.side("row")
        pixels = torch.from_numpy(pictures.bulk()[rows])
        _, root = recover(cache.manifest, weights)
    with torch.no_grad():
        made = torch.cat([root(batch) for batch in torch.split(pixels, 7)]).numpy()
    assert made.shape == stored.shape
    assert stored.std(axis=0).mean() > 0.001  # there is something to be the same
    return float(np.abs(made - stored).max())


def test_the_recovered_root_gives_the_caches_latents(
    crops: Path, latents: Path, digits: Digits, tmp_path: Path
) -> None:
    assert _most_off(latents, crops, None) <= 1e-4  # random weights, calibrated
    assert _most_off(latents, crops, "random") <= 1e-4
    assert _most_off(digits.latents, digits.crops, str(digits.weights)) <= 1e-4
    make_latents(tmp_path / "linear", crops, "alexnet", activation="none", normalize="imagenet")
    assert _most_off(tmp_path / "linear", crops, None) <= 1e-4
    make_latents(tmp_path / "half", digits.crops, "lenet", "random", dtype="float16")
    assert 0 < _most_off(tmp_path / "half", digits.crops, None) <= 1e-3


def test_images_go_through_the_root_as_crops_do(digits: Digits, crops: Path, latents: Path) -> None:
    """Values in [0, 1] in a row, as a generator draws them; colour by colour, or grey."""
    for cache_of, crops_of, weights, channels in (
        (latents, crops, None, 3),
        (digits.latents, digits.crops, str(digits.weights), 1),
    ):
        with Cache(cache_of) as cache:
            values, rows = cache.bulk("float32"), cache.side("row")
            images, pictures = load_images(cache, values, crops_of, weights, "cpu")
        with Cache(crops_of) as cache:
            assert np.array_equal(pictures.numpy(), cache.bulk()[rows])
        drawn = images.pixels(pictures[5:9])
        assert drawn.shape == (4, images.size)
        assert images.size == channels * images.side**2
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
        if channels == 3:
            first = drawn[0].reshape(3, images.side, images.side).permute(1, 2, 0)
            assert torch.equal((first * 255).round().to(torch.uint8), pictures[5])
        assert np.abs(images.root(drawn).numpy() - values[5:9]).max() <= 1e-4
        assert images.macs > 0


def test_another_root_is_told_from_rounding() -> None:
    stored = np.random.default_rng(0).random((32, 100)).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 1e-5, stored.shape).astype(np.float32)
    badly = noise.copy()
    badly[0, :3] = 0.01  # values that hardly vary before they are calibrated
    for off in (0 * noise, noise, badly):
        refuse_other_latents(stored + off, stored, "float32")
    refuse_other_latents(stored, stored.astype(np.float16).astype(np.float32), "float16")
    wide = stored * 1000
    refuse_other_latents(wide * (1 + noise), wide, "float32")
    strange: list[tuple[NDArray[np.float32], str]] = [
        (stored + 0.001, "float32"),
        (stored[::-1], "float32"),
        (stored + 0.01, "float16"),
        (np.where(np.arange(100) < 2, stored + 0.01, stored), "float32"),
        (np.full_like(stored, np.nan), "float32"),
        (stored, "int16"),
    ]
    for made, dtype in strange:
        with pytest.raises(CacheMismatchError):
            refuse_other_latents(made, stored, dtype)


# --- whole runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["nr", "dgr", "dgr+d"])
def test_strategies_on_images_run(
    here: Run, crops: Path, latents: Path, tmp_path: Path, strategy: str
) -> None:
    found = []
    for name in ("a", "b"):
        done = here(*words(strategy, latents, tmp_path / name, "--crops", crops))
        assert done.returncode == 0, done.stderr
        found.append((tmp_path / name / "predictions.csv").read_bytes())
    assert found[0] == found[1]
    (entry,) = metrics_of(tmp_path / "a")["runs"]
    assert entry["macs_per_iteration"]["root"] > 0
    assert "replay" in entry["resources"]["phases"]
    memory = entry["memory_bytes"]
    if strategy == "nr":
        assert memory == {"buffer": 20 * (100 * 100 * 3 + 16)}
    else:
        # 30000 -> 6 -> 6 -> (3, 3) and 3 -> 6 -> 6 -> 30000; the log variance without a bias
        vae = 30000 * 6 + 6 + 6 * 6 + 6 + 2 * 6 * 3 + 3 + 3 * 6 + 6 + 6 * 6 + 6 + 6 * 30000 + 30000
        top = 1280 * 128 + 128 + 128 * 8 + 8
        assert memory == {"generator": 4 * vae, "snapshots": 4 * (vae + top)}


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_nr_is_lr_where_the_root_is_frozen(
    here: Run, crops: Path, latents: Path, tmp_path: Path, scenario: str
) -> None:
    """The same rows in the same buffer, through the root again: the same run but for rounding."""
    losses, matrices = [], []
    for name, more in (("lr", ()), ("nr", ("--crops", crops))):
        given = words(name, latents, tmp_path / name, "--scenario", scenario, *more)
        done = here(*given, "--buffer-size", 20, "--iters", 40, "--lr", "0.001")
        assert done.returncode == 0, done.stderr
        log = [json.loads(line) for line in (tmp_path / name / "log.jsonl").open()]
        told = [event for event in log if event["event"] == "losses"]
        losses.append([event[k] for event in told for k in ("solver", "replay") if k in event])
        matrices.append(metrics_of(tmp_path / name)["runs"][0]["accuracy_matrix"])
    assert len(losses[0]) > 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    found, wanted = (np.array(matrix, dtype=float) for matrix in matrices)
    assert np.nanmax(np.abs(found - wanted)) <= 1 / 8 + 1e-9  # one of a task's eight test rows
    assert np.nanmean(np.abs(found - wanted)) <= 0.02


def test_a_root_from_a_file_and_half_precision(here: Run, digits: Digits, tmp_path: Path) -> None:
    weights = ("--crops", digits.crops, "--weights", digits.weights, "--uneven")
    make_latents(tmp_path / "half", digits.crops, "lenet", str(digits.weights), dtype="float16")
    for name, cache in (("whole", digits.latents), ("half", tmp_path / "half")):
        for strategy in ("nr", "dgr+d"):
            out = tmp_path / f"{name}-{strategy}"
            done = here(*words(strategy, cache, out, *weights, "--tasks", 5))
            assert done.returncode == 0, done.stderr
            assert metrics_of(out)["runs"][0]["macs_per_iteration"]["root"] > 0


def test_what_is_not_the_caches_is_refused(
    here: Run, crops: Path, latents: Path, digits: Digits, tmp_path: Path
) -> None:
    drawn = make_crops(tmp_path / "others", ("mnist", digits.crops.parent / "mnist"),
                       face_crop="off", size=40)  # fmt: skip
    assert drawn.fingerprint
    out = tmp_path / "r"
    mine = ("--uneven", "--tasks", 5, "--crops", digits.crops)
    cases: list[tuple[Path, tuple[object, ...], str]] = [
        (latents, (), "--crops PATH"),
        (latents, ("--crops", tmp_path / "others"), "was not made of the crops in"),
        (latents, ("--crops", digits.crops), "was not made of the crops in"),
        (latents, ("--crops", latents), "is a latent cache, a cache of crops is needed"),
        (crops, ("--crops", crops), "is a crop cache, a cache of latents is needed"),
        (latents, ("--crops", tmp_path / "no"), "There is no cache"),
        (latents, ("--crops", crops, "--weights", digits.weights), "does not fit mobilenet_v2"),
        (latents, ("--crops", crops, "--weights", tmp_path / "no"), "there is no file"),
        (digits.latents, mine, "--weights FILE"),
        (digits.latents, (*mine, "--weights", "random"), "not the weights that made the latents"),
        (digits.latents, (*mine, "--weights", digits.other_weights), "not the weights that made"),
        (digits.latents, (*mine, "--weights", "imagenet"), "no ImageNet weights for lenet"),
        (digits.latents, (*mine, "--weights", digits.crops), "there is no file"),
        (digits.latents, (*mine, "--weights", digits.crops / "manifest.json"), "no safetensors"),
    ]  # fmt: skip
    for strategy in ("nr", "dgr+d"):
        for cache, more, says in cases:
            refused(here(*words(strategy, cache, out, *more)), says)
            assert not out.exists()
    done = here(*words("lr", latents, out))  # which needs none of it
    assert done.returncode == 0, done.stderr


def _crafted(
    out: Path, crops: Path, root: Any, rows: Any, *, dim: int = 6, known: bool = False
) -> Path:
    """A latent cache that says that it was made of `crops`, by anybody."""
    with Cache(crops) as cache:
        fingerprint = cache.manifest.fingerprint
        side = {name: cache.side(name)[:16] for name in ("label", "subject")}
        classes = cache.manifest.classes
    settings = {"kind": "latents", "crops": fingerprint, "root": root}
    vector = base64.b64encode(np.ones(dim, dtype="<f4").tobytes()).decode()
    calibration: dict[str, str | int] = {"mean": vector, "deviation": vector}
    info = Info(dataset="d", value_range=(0.0, 1.0), calibration=calibration if known else None)
    plan = Plan(
        kind="latents", settings=settings, dtype="float32", row_shape=(dim,), rows=16,
        unit_rows=16, store="zarr", classes=classes, info=info,
    )  # fmt: skip
    parts = Parts(out, plan).start()
    parts.write(0, np.random.default_rng(0).random((16, dim), dtype=np.float32), {})
    side["split"] = np.zeros(16, dtype=np.uint8)
    if rows is not None:
        side["row"] = rows
    samples = [{"row": k} for k in range(16)]
    publish(parts, Content(side, samples, classes, info, {}), store="zarr", overwrite=False)
    return out


RANDOM = {
    "backbone": "mobilenet_v2",
    "layer": "avgpool",
    "weights": {"kind": "random", "seed": 0, "version": 1},
    "activation": "sigmoid",
    "normalize": "none",
}
PLACES = np.arange(16, dtype=np.int32)


LENET = RANDOM | {"backbone": "lenet", "layer": "fc0"}


@pytest.mark.parametrize(
    ("root", "rows", "says"),
    [
        (RANDOM, None, "which crop each latent is of"),
        (RANDOM, PLACES.astype(np.float32), "column row cannot be float32"),
        (RANDOM, np.stack([PLACES, PLACES], 1), "column row cannot be int32"),
        (RANDOM, PLACES - 1, "names crops that"),
        (RANDOM, PLACES + 90, "names crops that"),
        (None, PLACES, "does not say which root"),
        ([], PLACES, "does not say which root"),
        (RANDOM | {"activation": "tanh"}, PLACES, "does not say which root"),
        (RANDOM | {"weights": "random"}, PLACES, "does not say which root"),
        (RANDOM | {"weights": {"kind": "random", "seed": 2**70}}, PLACES, "not say which root"),
        (RANDOM | {"backbone": "vgg61"}, PLACES, "Unknown backbone"),
        (RANDOM | {"layer": "classifier.9"}, PLACES, "classifier.9"),
        (RANDOM | {"weights": {"kind": "random", "version": 7}}, PLACES, "not the weights"),
        (RANDOM, PLACES, "does not hold the calibration"),
    ],
)
def test_crafted_caches_are_refused(
    crops: Path, tmp_path: Path, root: Any, rows: Any, says: str
) -> None:
    _refused(_crafted(tmp_path / "latents", crops, root, rows), crops, says)


@pytest.mark.parametrize(
    ("root", "dim", "says"),
    [
        (LENET, 128, "lenet takes crops of 32 x 32"),
        (RANDOM, 6, "holds latents of 6 values, its root gives 1280"),
        (RANDOM, 1280, "does not give the cache's latents for its own crops"),
    ],
)
def test_a_root_that_is_another_is_refused(
    crops: Path, tmp_path: Path, root: Any, dim: int, says: str
) -> None:
    made = _crafted(tmp_path / "latents", crops, root, PLACES, dim=dim, known=True)
    _refused(made, crops, says)


def _refused(latents: Path, crops: Path, says: str) -> None:
    with pytest.raises(Refused, match=says), Cache(latents) as cache:
        load_images(cache, cache.bulk("float32"), crops, None, "cpu")
