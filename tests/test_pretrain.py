"""The small root's own training, and what its file says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cache.errors import CacheMismatchError, Refused
from cache.parts import Parts, Plan
from cache.reader import Cache
from cache.schema import SPLITS, Info, TrainedOn
from cache.writer import Content, publish
from stages.extract.backbones import choose
from stages.extract.lenet import LeNet
from stages.extract.pretrain import Pretrained, PretrainSettings, pretrain
from stages.extract.weights import METADATA, load, make_root


def _patterns(count: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Bars in `classes` directions at random places, with noise: uint8 (N, 32, 32, 3), labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count).astype(np.int16)
    y, x = np.mgrid[:32, :32] - 16
    angle = labels * np.pi / classes
    across = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]
    bar = np.abs(across - rng.uniform(-5, 5, (count, 1, 1))) < 2
    grey = np.clip(bar * 200 + rng.normal(20, 20, bar.shape), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), labels


def _cache(out: Path, size: int = 32, splits: tuple[str, ...] = ("pretrain", "train")) -> Path:
    pixels, labels = _patterns(480)
    pixels = pixels[:, :size, :size]
    classes = ("a", "b", "c", "d")
    plan = Plan(
        kind="crops",
        settings={"kind": "crops", "size": size},
        dtype="uint8",
        row_shape=pixels.shape[1:],
        rows=len(pixels),
        unit_rows=160,
        store="hdf5",
        classes=classes,
        info=Info(dataset="bars"),
    )
    parts = Parts(out, plan).start()
    for unit in plan.units:
        span = plan.rows_of(unit)
        parts.write(unit, pixels[span.start : span.stop], {})
    split = np.array([SPLITS.index(splits[k % len(splits)]) for k in range(480)], dtype=np.uint8)
    side = {
        "label": labels,
        "subject": np.full(480, -1, dtype=np.int32),
        "split": split,
        "status": np.where(np.arange(480) == 5, 3, 2).astype(np.uint8),  # one is not decodable
    }
    samples = [{"row": k, "id": f"{k}"} for k in range(480)]
    content = Content(side, samples, classes, plan.info, {})
    publish(parts, content, store="hdf5", overwrite=False, shard_rows=160)
    return out


SETTINGS = PretrainSettings(iters=150)


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _cache(tmp_path_factory.mktemp("bars") / "crops")


def _pretrain(crops: Path, out: Path, settings: PretrainSettings = SETTINGS) -> Pretrained:
    ticks: list[int] = []
    with Cache(crops) as cache:
        done = pretrain(cache, settings, out, device="cpu", tick=ticks.append)
    assert sum(ticks) == settings.iters
    return done


@pytest.fixture(scope="module")
def trained(bars: Path) -> tuple[Path, Pretrained]:
    out = bars.parent / "lenet.safetensors"
    return out, _pretrain(bars, out)


def test_pretraining_learns(trained: tuple[Path, Pretrained]) -> None:
    """Bars in four directions, on rows that it has not seen; chance is a quarter."""
    _, done = trained
    assert done.accuracy > 0.8
    assert done.rows == 240
    assert done.parameters == 93_048 + 128 * 128 + 128 + 128 * 4 + 4


def test_pretraining_follows_its_seed(
    bars: Path, trained: tuple[Path, Pretrained], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    _pretrain(bars, tmp_path / "again")
    _pretrain(bars, tmp_path / "other", replace(SETTINGS, seed=1))
    assert (tmp_path / "again").read_bytes() == trained[0].read_bytes()
    assert (tmp_path / "other").read_bytes() != trained[0].read_bytes()


def test_a_pretrained_root_says_what_it_has_seen(
    bars: Path, trained: tuple[Path, Pretrained]
) -> None:
    out, done = trained
    tap = choose("lenet", None)
    weights = load(tap, str(out), 0)
    with Cache(bars) as cache:
        crops = cache.bulk_rows(0, 4)
        expected = TrainedOn(
            data="bars (pretrain split)",
            classes=4,
            names=("a", "b", "c", "d"),
            crops=cache.manifest.fingerprint,
            rows=240,
        )
    assert weights.trained_on == done.trained_on == expected
    assert not weights.needs_calibration
    with safe_open(out, framework="pt") as file:
        assert json.loads(file.metadata()[METADATA])["rows"] == 240
    state = load_file(out)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    latents = make_root(tap, weights, "sigmoid", "none")(torch.from_numpy(crops))
    model = LeNet(4)
    model.load_state_dict(state)
    grey = torch.from_numpy(crops[..., 0]).unsqueeze(1).float() / 255
    assert torch.allclose(latents, torch.sigmoid(model.fc0(model.features(grey))), atol=1e-6)


def test_dropout_acts_in_training_alone() -> None:
    model = LeNet()
    model.initialise(torch.Generator().manual_seed(0))
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.logits(x), model.logits(x))
    dropped = model.logits(x, torch.Generator().manual_seed(0))
    assert not torch.equal(dropped, model.logits(x))
    assert torch.equal(dropped, model.logits(x, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "do not say what it was trained on"),
        ('{"data": "x"}', "classes"),
        ('{"data": "x", "classes": -1}', "greater than or equal to 0"),
        ('{"data": "x", "classes": 1, "code": "print()"}', "Extra inputs"),
        ('{"data": "\\u001b[2J", "classes": 1}', "control characters"),
        ('{"data": "x", "classes": 1, "names": ["a\\u0007"]}', "control characters"),
        ("[" * 100_000, "do not say what it was trained on"),
        ('{"data": "x", "classes": 1, "names": [' + '"",' * 400_000 + '""]}', "longer than"),
    ],
)
def test_hostile_metadata(
    trained: tuple[Path, Pretrained], tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(load_file(trained[0]), path, metadata={METADATA: text})
    with pytest.raises(Refused, match=says):
        load(choose("lenet", None), str(path), 0)


def test_other_metadata_are_left_alone(trained: tuple[Path, Pretrained], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(load_file(trained[0]), path, metadata={"format": "pt"})
    assert load(choose("lenet", None), str(path), 0).trained_on is None


@pytest.mark.parametrize(
    ("size", "splits", "says"),
    [
        (30, ("pretrain", "train"), "crops of 30 x 30 pixels; lenet takes 32 x 32.*--size 32"),
        (32, ("train", "test"), "no rows of split pretrain.*mnist, fashion-mnist, cifar10"),
        (32, ("pretrain", "test"), "no rows of split train"),
    ],
)
def test_crops_that_a_root_cannot_learn_from(
    tmp_path: Path, size: int, splits: tuple[str, ...], says: str
) -> None:
    crops = _cache(tmp_path / "crops", size, splits)
    with Cache(crops) as cache, pytest.raises(Refused, match=says):
        pretrain(cache, SETTINGS, tmp_path / "out", device="cpu", tick=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_a_latent_cache_is_no_crop_cache(bars: Path, tmp_path: Path) -> None:
    with Cache(bars) as cache:
        cache.manifest = cache.manifest.model_copy(update={"kind": "latents"})
        with pytest.raises(CacheMismatchError, match="a cache of crops is needed"):
            pretrain(cache, SETTINGS, tmp_path / "out", device="cpu", tick=lambda _: None)
