"""Crops become latents: the root's own values, whatever way it was run."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.care.collect import _PART
from cache.errors import CacheMismatchError, CacheUnfinishedError, Refused
from cache.parts import Parts
from cache.reader import Cache
from cache.schema import SPLITS
from stages.datasets import read
from stages.extract.backbones import choose
from stages.extract.calibrate import CALIBRATION_ROWS, _put_first, calibration
from stages.extract.crop import publish_crops
from stages.extract.cropper import Cropper
from stages.extract.forward import GROUP, Forward
from stages.extract.latents import Extractor, RootSettings, publish_latents
from stages.extract.random_weights import random_network
from stages.extract.root import Root
from stages.extract.source import CachedCrops, CropUnit
from stages.extract.weights import load
from tests.making import crop_work, latent_parts, make_crops, make_latents, nothing


def test_who_calibrates_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two with one process id, as in containers, write two files; the first stays.  A killed one's
    file is one that gc takes with the rest of the work."""
    state, mine, link = tmp_path / "state.npy", list[str](), os.link

    def linked(source: Path, target: Path) -> None:
        mine.append(source.name)
        link(source, target)

    monkeypatch.setattr(os, "link", linked)
    for value in (1, 2):
        _put_first(state, np.full((2, 3), value, dtype=np.float32))
    assert len(set(mine)) == 2
    assert all(re.fullmatch(_PART, name) for name in mine)
    assert np.load(state).tolist() == [[1] * 3] * 2
    assert list(tmp_path.iterdir()) == [state]


def test_cached_latents_are_the_roots(crops: Path, latents: Path) -> None:
    """For the same crops, max abs difference <= 1e-5, in other batches than the cache's.

    Where a value of a random root hardly varies, calibration divides the network's rounding by
    its small deviation: there as much of the pre-activation.
    """
    root = Root(random_network(choose("mobilenet_v2", None), 0), "sigmoid", "none")
    with Cache(crops) as crop_cache, Cache(latents) as cache:
        info = cache.manifest.info.calibration
        assert info is not None
        assert info["rows"] == len(cache.split_rows("train"))
        mean, deviation = (
            torch.from_numpy(np.frombuffer(base64.b64decode(str(info[k])), "<f4").copy())
            for k in ("mean", "deviation")
        )
        root.calibrate(mean, deviation)
        pixels = torch.from_numpy(crop_cache.bulk()[cache.side("row")])
        with torch.inference_mode():
            fresh = torch.cat([root(batch) for batch in torch.split(pixels, 7)])
        off = (fresh - torch.from_numpy(cache.bulk())).abs()
        assert float((off * deviation.clamp(max=1)).max()) <= 1e-5


def test_random_latents_vary(latents: Path) -> None:
    """Calibrated to unit deviation before the sigmoid: about 0.2 after it, not 0.003."""
    with Cache(latents) as cache:
        train = cache.bulk()[cache.split_rows("train")]
        info = cache.manifest.info
    assert (info.weights, info.pretrained) == ("random (seed 0, calibrated)", False)
    assert (info.value_range, info.trained_on) == ((0.0, 1.0), None)
    assert 0.15 < float(train.std(0).mean()) < 0.25
    assert abs(float(train.mean()) - 0.5) < 0.02


def test_calibration_gives_zero_mean_and_unit_deviation() -> None:
    root = Root(random_network(choose("resnet18", None), 1), "none", "none")
    light = torch.rand(40, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    pixels = (light * torch.rand(40, 100, 100, 3) * 255).to(torch.uint8)
    shift, scale = calibration(root, pixels, Forward("cpu"))
    root.calibrate(torch.from_numpy(shift), torch.from_numpy(scale))
    with torch.inference_mode():
        values = root(pixels)
    assert torch.allclose(values.mean(0), torch.zeros(512), atol=1e-4)
    alive = torch.from_numpy(scale) != 1.0
    assert alive.sum() > 400
    assert torch.allclose(values.std(0)[alive], torch.ones(int(alive.sum())), atol=1e-3)


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v2"])
def test_no_bit_depends_on_the_number_of_threads(name: str) -> None:
    """Shared out among threads, a sum is added up in another order: AlexNet's in each group of 32,
    MobileNet-V2's in the smaller last one."""
    root = Root(random_network(choose(name, None), 0), "none", "none")
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (44, 100, 100, 3), dtype=np.uint8)
    )
    before = torch.get_num_threads()
    made = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            made.append(torch.cat(list(Forward("cpu")(root, pixels))))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(made[0], other) for other in made[1:])


def test_no_thread_waits_between_two_units(crops: Path, tmp_path: Path) -> None:
    """The second pass of unit 0 ends once the first of unit 1 runs beside it."""
    passes, beside = itertools.count(), threading.Event()

    def root(group: torch.Tensor) -> torch.Tensor:
        number = next(passes)
        if number == 2:
            beside.set()
        assert number != 1 or beside.wait(20)
        return group.flatten(1)[:, :512].float()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Cache(crops) as cache:
            parts, extractor = latent_parts(cache, tmp_path / "l", "resnet18", activation="none")
            extractor._root = root  # type: ignore[assignment]
            extractor._needs_calibration = False
            extractor.run(CachedCrops(cache), [0, 1], {0, 1})
            for unit, given in enumerate(CachedCrops(cache).units([0, 1])):
                kept = given.pixels[given.usable]
                assert np.array_equal(parts.read(unit), kept.reshape(len(kept), -1)[:, :512])
    finally:
        torch.set_num_threads(before)


def test_what_follows_the_crops_runs_beside_the_root(crops: Path, tmp_path: Path) -> None:
    """Called once, and not by calibration; here the last latents are written only after it.  What
    it raises is raised."""
    called, done = itertools.count(), threading.Event()

    def after_crops() -> None:
        assert next(called) == 0
        done.set()

    def fails() -> None:
        raise OSError("disk full")

    with Cache(crops) as cache:
        parts, extractor = latent_parts(cache, tmp_path / "l", "resnet18")
        finish = extractor._finish

        def late(unit: CropUnit, passes: Iterator[torch.Tensor]) -> None:
            assert done.wait(20)
            finish(unit, passes)

        extractor._finish = late  # type: ignore[method-assign]
        extractor.run(CachedCrops(cache), [0], {0}, after_crops)
        assert parts.todo([0]) == []
        with pytest.raises(OSError, match="disk full"):
            extractor.run(CachedCrops(cache), [1], {1}, fails)
        assert next(called) == 1


def test_after_an_error_no_pass_is_begun() -> None:
    """The one that is on the way ends, the three behind it are left out."""
    begun, go, passes = threading.Event(), threading.Event(), list[int]()

    def run(group: torch.Tensor) -> torch.Tensor:
        begun.set()
        passes.append(len(group))
        assert go.wait(20)
        return group.float()

    def failing(forward: Forward) -> Iterator[torch.Tensor]:
        made = forward(run, torch.zeros(4 * GROUP, 3, dtype=torch.uint8))
        assert begun.wait(20)
        with pytest.raises(OSError, match="disk full"), forward.given_up():
            raise OSError("disk full")
        go.set()
        return made

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        made = failing(Forward("cpu"))
    finally:
        torch.set_num_threads(before)
    assert len(next(made)) == GROUP
    with pytest.raises(CancelledError):
        next(made)
    assert passes == [GROUP]


class Counted(CachedCrops):
    """Which units are asked for."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.asked: list[int] = []

    def units(self, wanted: Sequence[int]):  # type: ignore[no-untyped-def]
        self.asked += wanted
        return super().units(wanted)


def test_calibration_looks_at_the_first_training_rows_only(tmp_path: Path, crops: Path) -> None:
    """test/ sorts before train/: whole units without training rows are not even read."""
    with Cache(crops) as cache:
        parts, extractor = latent_parts(cache, tmp_path / "l", "resnet18")
        source = Counted(cache)
        train = np.flatnonzero(cache.side("split") == SPLITS.index("train"))
        assert len(train) < CALIBRATION_ROWS
        extractor.run(source, [], {0})
        assert source.asked == [u for u in parts.plan.units if np.any(train // 64 == u)]


def test_batch_size_and_the_way_of_running_change_no_bit(
    drawn: Path, crops: Path, tmp_path: Path
) -> None:
    """Root beside the cropping in three stripes, odd batch sizes: the content of one plain run."""
    whole = make_latents(tmp_path / "whole", crops, "alexnet")
    work = crop_work(read("drawn", drawn))
    weights = load(choose("alexnet", None), "random", 0)
    settings = RootSettings(choose("alexnet", None))
    for index, batch_size in ((1, 1), (0, 64), (2, 1000)):
        crop_parts = Parts(tmp_path / "crops", work.plan("zarr", 64))
        with Cache(crops) as cache:
            parts, _ = latent_parts(cache, tmp_path / "striped", "alexnet")
        extractor = Extractor(
            parts, settings, weights, device="cpu", tick=nothing, batch_size=batch_size
        )
        mine = [unit for unit in parts.plan.units if unit % 3 == index]
        with Cropper(work, crop_parts, workers=1, tick=nothing) as cropper:
            extractor.run(cropper, mine, set(mine))
    publish_crops(crop_parts, store="hdf5", overwrite=False, started=time.time())
    with Cache(tmp_path / "crops") as cache:
        striped = publish_latents(parts, cache, store="hdf5", overwrite=False, started=time.time())
    assert striped.content == whole.content
    assert striped.fingerprint == whole.fingerprint
    made = json.loads((tmp_path / "striped" / "provenance.json").read_text())
    assert made["devices"] == ["cpu"]


def test_what_has_no_picture_has_no_latent(folder: Path, tmp_path: Path) -> None:
    (folder / "calm" / "broken.png").write_bytes(b"not an image")
    make_crops(tmp_path / "crops", ("folder", folder), unit_rows=3)
    manifest = make_latents(tmp_path / "latents", tmp_path / "crops", "resnet18")
    assert manifest.rows == 6
    with Cache(tmp_path / "latents") as cache, Cache(tmp_path / "crops") as crop_cache:
        table = crop_cache.samples()
        assert [s["id"] for s in cache.samples()] == [table[row]["id"] for row in cache.side("row")]
        assert "calm/broken.png" not in {s["id"] for s in cache.samples()}
        assert [s["status"] for s in cache.samples()] == ["whole"] * 6


def test_half_precision_is_half_the_bytes(crops: Path, latents: Path, tmp_path: Path) -> None:
    make_latents(tmp_path / "half", crops, "mobilenet_v2", dtype="float16")
    with Cache(tmp_path / "half") as half, Cache(latents) as full:
        assert half.bulk().dtype == np.float16
        assert np.abs(half.bulk("float32") - full.bulk()).max() < 1e-3
        assert 2 * half.bulk().nbytes == full.bulk().nbytes


def test_any_classifier_of_torchvision_is_a_root(crops: Path, tmp_path: Path) -> None:
    manifest = make_latents(tmp_path / "l", crops, "squeezenet1_1", layer="classifier.3")
    assert manifest.settings["root"]["layer"] == "classifier.3"
    assert manifest.info.backbone == "squeezenet1_1"
    with Cache(tmp_path / "l") as cache:
        assert cache.bulk().std(0).mean() > 0.05


def test_preactivations_have_no_bounds(crops: Path, tmp_path: Path) -> None:
    manifest = make_latents(tmp_path / "l", crops, "resnet18", activation="none")
    assert manifest.info.value_range is None
    low, high = manifest.info.observed_range or (0.0, 0.0)
    assert low < 0 < 1 < high


def test_weights_that_give_nan_are_refused(crops: Path, tmp_path: Path) -> None:
    with Cache(crops) as cache:
        parts, extractor = latent_parts(cache, tmp_path / "l", "resnet18")
        extractor._root.preactivation = lambda x: torch.full((len(x), 512), torch.nan)  # type: ignore[method-assign]
        with pytest.raises(Refused, match="weights of resnet18 damaged"):
            extractor.run(CachedCrops(cache), [0], {0})
        assert parts.missing() == [0, 1]
        with pytest.raises(CacheUnfinishedError, match="2 of 2 units of latents are missing"):
            publish_latents(parts, cache, store="zarr", overwrite=False, started=0.0)


def test_latents_of_other_pixels_are_not_put_beside_these_crops(
    crops: Path, tmp_path: Path
) -> None:
    """As when one job of an array has another decoder: same settings, other pixels."""

    class Shifted(CachedCrops):
        def units(self, wanted: Sequence[int]):  # type: ignore[no-untyped-def]
            for unit in super().units(wanted):
                yield CropUnit(unit.index, unit.pixels ^ (unit.index == 1), unit.status)

    with Cache(crops) as cache:
        parts, extractor = latent_parts(cache, tmp_path / "l", "resnet18", activation="none")
        extractor.run(Shifted(cache), [0, 1], {0, 1})
        with pytest.raises(CacheMismatchError, match=r"Unit 1 of .* was made from other crops"):
            publish_latents(parts, cache, store="zarr", overwrite=False, started=0.0)
    assert not (tmp_path / "l").exists()


def test_a_unit_without_any_picture_is_an_empty_unit(crops: Path, tmp_path: Path) -> None:
    with Cache(crops) as cache:
        parts, extractor = latent_parts(cache, tmp_path / "l", "resnet18", activation="none")
        pixels = np.zeros((64, 100, 100, 3), dtype=np.uint8)
        unit = CropUnit(0, pixels, np.full(64, 3, dtype=np.uint8))
        assert extractor.unit(unit)[0].shape == (0, 512)
        assert parts.plan.row_shape == (512,)
