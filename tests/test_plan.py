"""extract --plan: hand-worked numbers, and a plan for what is then really made."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import Refused
from cache.files import tree_bytes
from cache.schema import MANIFEST, SAMPLES
from pipeline.extraction_plan import Machine, Plan, Planned, Sizes, parse_images, planned
from pipeline.plan_rates import Kept, Rates
from pipeline.plan_text import text
from tests.command import Run

VGG16 = Sizes("vgg16", "zarr", 100, 4096, "float32", 3.0, unit_rows=256, shard_rows=512)
TWO_CORES = Machine(cores=2, gpu_tflops=10, jobs=(1, 100))
RATES = Rates(
    images=256,
    usable=0.5,
    read=0.0036,
    crop=0.036,
    root=0.36,
    gpu=None,
    finish=0.00036,
    crops=Kept(ratio=0.5, line=240, work=300, manifest=2000),
    latents=Kept(ratio=0.75, line=160, work=100, manifest=90_000),
)


def _plan(images: int, sizes: Sizes = VGG16, rates: Rates = RATES) -> Planned:
    return planned(images, sizes, TWO_CORES, rates)


@pytest.mark.parametrize(
    ("images", "units", "crop_files", "latent_files", "caches"),
    [
        (1, 1, 1, 0, 1),
        (10**5, 391, 391, 98, 1),
        (10**7, 39_063, 39_063, 9_766, 1),
        (10**9, 3_906_250, 3_906_250, 976_563, 1),
        (2**31, 2**23, 2**23, 2**21, 1),
        (2**31 + 1, 2**23 + 1, 2**23 + 1, 2**21, 2),
    ],
)
def test_shards_by_hand(
    images: int, units: int, crop_files: int, latent_files: int, caches: int
) -> None:
    found = _plan(images)
    assert (found.units, found.crop_files, found.latent_files, found.caches) == (
        units, crop_files, latent_files, caches,
    )  # fmt: skip


def test_large_crops_fill_a_cache_with_fewer() -> None:
    """8,388,608 units of 16."""
    assert _plan(2**27, replace(VGG16, unit_rows=16)).caches == 1
    assert _plan(2**27 + 1, replace(VGG16, unit_rows=16)).caches == 2


def test_bytes_by_hand() -> None:
    """A million images, half of them with a latent: 30 GB of crops, 8.192 GB of latents."""
    disk = _plan(10**6).disk
    assert (disk.crops_raw, disk.latents_raw) == (30 * 10**9, 8_192_000_000)
    assert (disk.crops, disk.latents) == (15 * 10**9, 6_144_000_000)
    assert disk.columns == 56 * 10**6 + 43 * 500_000
    assert disk.tables == 240 * 10**6 + 160 * 500_000
    assert disk.work == 400 * 10**6
    assert disk.manifests == 92_000
    assert disk.provenance == 110 * (3907 + 977)
    beside = disk.columns + disk.tables + disk.work + disk.provenance
    # the crop cache is finished while its parts and those of the latents are there
    assert disk.at_most == beside + (15_000 + 30_000 + 8_192) * 10**6


def test_what_most_disk_is_needed_for_can_be_the_latents() -> None:
    small = replace(VGG16, crop_side=10)
    disk = _plan(10**6, small).disk
    beside = disk.columns + disk.tables + disk.work + disk.provenance
    assert disk.at_most == beside + (150 + 8_192 + 6_144) * 10**6


def test_hours_by_hand() -> None:
    found = _plan(10**6)
    hours = found.hours
    assert hours.read == pytest.approx(1.0)
    assert hours.crop == pytest.approx(10.0)
    assert hours.root == pytest.approx(50.0)
    assert hours.gpu == pytest.approx(500_000 * 6e9 / 10e12 / 3600)
    assert hours.finish == pytest.approx(0.1)
    one, many = found.wall
    assert (one.jobs, many.jobs) == (1, 100)
    assert one.cpu == pytest.approx(0.5 + 60 / 2 + 0.1)
    assert many.cpu == pytest.approx(0.5 + 60 / 200 + 0.1)
    assert one.gpu == pytest.approx(0.5 + 10 / 2 + 0.1)  # cropping is slower than the GPU
    slow = _plan(10**6, rates=replace(RATES, gpu=0.36))  # measured: 50 h of one
    assert slow.hours.gpu == pytest.approx(50)
    assert slow.wall[1].gpu == pytest.approx(0.5 + 50 / 100 + 0.1)


def test_hdf5_is_one_file() -> None:
    found = _plan(10**7, replace(VGG16, store="hdf5"))
    assert (found.units, found.crop_files, found.latent_files) == (39_063, 1, 1)


def test_the_text_says_what_was_measured() -> None:
    shown = text(Plan(VGG16, TWO_CORES, RATES, (_plan(10**5), _plan(10**9))))
    lines = [re.split(r"  +", line) for line in shown.splitlines()]
    assert ["units of 256 images", "391", "3,906,250"] in lines
    assert ["core time, faces and crops", "1.0 h", "10,000 h"] in lines
    assert "Measured on 256 images" in shown
    assert "The GPU was not measured: 6 GFLOP a crop at 10 TFLOP/s" in shown
    gpu = Plan(VGG16, TWO_CORES, replace(RATES, gpu=0.002), (_plan(10),))
    assert "GPU: 2.00 ms a latent, measured" in text(gpu)


@pytest.mark.parametrize("wrong", ["", "1e5,", "many", "0", "-1", "1.5", "nan", "inf", "1e13"])
def test_numbers_of_images_that_are_none(wrong: str) -> None:
    with pytest.raises(Refused, match="--plan-images must be"):
        parse_images(wrong)


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_a_plan_is_what_is_then_made(
    here: Run, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """Sizes for as many images as were measured are those of the caches; nothing else is left."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    command = (
        "extract", "--dataset", "drawn", "--root", drawn, "--limit", 24, "--face-crop", "off",
        "--size", 32, "--backbone", "mobilenet_v2", "--weights", "random", "--store", store,
        "--device", "cpu", "--workers", 1, "--out", tmp_path / "made" / "latents",
    )  # fmt: skip
    done = here(*command, "--plan", "--plan-images", "24,24e6", "--shard", "3/8", "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "scratch"]
    found = json.loads(done.stdout)
    few, many = found["planned"]
    assert [wall["jobs"] for wall in few["wall"]] == [1, 8]
    assert all(seconds > 0 for seconds in (few["hours"].values()))
    assert many["hours"]["crop"] == pytest.approx(1e6 * few["hours"]["crop"])
    assert here(*command).returncode == 0
    made = {name: tmp_path / "made" / name for name in ("crops", "latents")}
    assert few["disk"]["tables"] == sum((made[n] / SAMPLES).stat().st_size for n in made)
    assert few["disk"]["crops_raw"] == 24 * 32 * 32 * 3
    assert few["disk"]["latents_raw"] == 24 * 1280 * 4
    if store == "zarr":
        for name, path in made.items():
            assert few["disk"][name] == tree_bytes(path / "data.zarr" / name)
    for name, path in made.items():
        kept = found["rates"][name]["manifest"]
        assert abs(kept - (path / MANIFEST).stat().st_size) < 200, name


@pytest.mark.parametrize(
    "given", [("--json",), ("--plan-images", "1e5,1e7,1e9"), ("--gpu-tflops", 10)]
)
def test_only_a_plan_is_planned(here: Run, tmp_path: Path, given: tuple[str, ...]) -> None:
    """Also where what is given is what --plan would take anyway."""
    done = here("extract", "--out", tmp_path / "latents", *given)
    assert done.returncode == 2
    assert f"{given[0]} goes with --plan" in done.stderr


def test_a_plan_needs_images(here: Run) -> None:
    done = here("extract", "--plan", "--weights", "random")
    assert done.returncode == 2
    assert "--root DIR" in done.stderr
