"""Images, faces, roots and their weights."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from cache.errors import Refused
from cache.reader import Cache
from stages.datasets import read
from stages.extract.backbones import BACKBONES, Root, empty_network
from stages.extract.crop import crop_settings, make_crops
from stages.extract.faces import CropSettings, Status, crop_file, widen
from stages.extract.images import UndecodableError, decode
from stages.extract.latents import RootSettings, calibration, make_latents
from stages.extract.weights import load, random_network, read_state
from stages.train.networks import Top, parameter_count


def _nothing(_: int) -> None:
    pass


def test_vgg16_root_and_top_have_the_papers_parameters() -> None:
    """118,004,680: 13 convolutions, fc6 and the top, without the unused fc7 and fc8."""
    root = sum(p.numel() for p in empty_network("vgg16").parameters())
    top = parameter_count(Top(4096, 8, torch.Generator()))
    assert root == 14_714_688 + 102_764_544
    assert top == 525_448
    assert root + top == 118_004_680


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "mobilenet_v2"])
def test_latents_have_the_tables_length(name: str) -> None:
    root = Root(random_network(name, 0), "sigmoid", "none")
    out = root(torch.zeros(2, 100, 100, 3, dtype=torch.uint8))
    assert out.shape == (2, BACKBONES[name].dim)
    assert out.dtype == torch.float32


def test_a_root_never_trains() -> None:
    """Dropout and batch norm stay in eval mode whatever is asked for: same crop, same latent."""
    root = Root(random_network("alexnet", 0), "sigmoid", "none")
    root.train()
    assert not any(module.training for module in root.modules())
    assert not any(p.requires_grad for p in root.parameters())
    crop = torch.randint(0, 255, (1, 100, 100, 3), dtype=torch.uint8)
    assert torch.equal(root(crop), root(crop))


def test_input_is_zero_to_one_or_normalised() -> None:
    seen: list[torch.Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.flatten(1)

    white = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    Root(Spy(), "none", "none")(white)
    Root(Spy(), "none", "imagenet")(white)
    assert torch.equal(seen[0], torch.ones(1, 3, 2, 2))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(seen[1][0, :, 0, 0], expected)


def test_cached_latents_are_the_roots(crops: Path, latents: Path) -> None:
    """For the same crops, max abs difference <= 1e-5, in other batches than the cache's."""
    root = Root(random_network("mobilenet_v2", 0), "sigmoid", "none")
    with Cache(crops) as crop_cache, Cache(latents) as cache:
        info = cache.manifest.info.calibration
        mean, deviation = (
            torch.from_numpy(np.frombuffer(base64.b64decode(info[k]), "<f4").copy())
            for k in ("mean", "deviation")
        )
        root.calibrate(mean, deviation)
        pixels = torch.from_numpy(crop_cache.bulk()[cache.side("row")])
        with torch.inference_mode():
            fresh = torch.cat([root(batch) for batch in torch.split(pixels, 7)])
        assert float((fresh - torch.from_numpy(cache.bulk())).abs().max()) <= 1e-5


def test_random_latents_vary(latents: Path) -> None:
    """Calibrated to unit deviation before the sigmoid: about 0.2 after it, not 0.003."""
    with Cache(latents) as cache:
        train = cache.bulk()[cache.split_rows("train")]
        assert cache.manifest.info.weights == "random (seed 0, calibrated)"
        assert cache.manifest.info.pretrained is False
    assert 0.15 < float(train.std(0).mean()) < 0.25
    assert abs(float(train.mean()) - 0.5) < 0.02


def test_calibration_gives_zero_mean_and_unit_deviation() -> None:
    root = Root(random_network("resnet18", 1), "none", "none")
    light = torch.rand(40, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    pixels = (light * torch.rand(40, 100, 100, 3) * 255).to(torch.uint8)
    shift, scale = calibration(root, pixels)
    root.calibrate(torch.from_numpy(shift), torch.from_numpy(scale))
    with torch.inference_mode():
        values = root(pixels)
    assert torch.allclose(values.mean(0), torch.zeros(512), atol=1e-4)
    alive = torch.from_numpy(scale) != 1.0
    assert alive.sum() > 400
    assert torch.allclose(values.std(0)[alive], torch.ones(int(alive.sum())), atol=1e-3)


def test_random_weights_follow_their_seed_only() -> None:
    torch.manual_seed(1)
    first = random_network("alexnet", 5).state_dict()
    torch.manual_seed(2)
    again = random_network("alexnet", 5).state_dict()
    other = random_network("alexnet", 6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])


def test_weight_files(tmp_path: Path) -> None:
    """safetensors and torch files with further tensors (the last layers) give the same root."""
    state = random_network("resnet18", 3).state_dict()
    extra = {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    save_file(extra, tmp_path / "w.safetensors")
    torch.save(extra, tmp_path / "w.pth")
    crop = torch.randint(0, 255, (1, 100, 100, 3), dtype=torch.uint8)
    expected = Root(random_network("resnet18", 3), "sigmoid", "none")(crop)
    for name in ("w.safetensors", "w.pth"):
        weights = load("resnet18", str(tmp_path / name), 0)
        assert torch.equal(Root(weights.network, "sigmoid", "none")(crop), expected)
        assert weights.words == f"file {name}"
        assert not weights.needs_calibration
    with pytest.raises(
        Refused, match=r"does not fit alexnet: it has no tensor features\.0\.weight"
    ):
        load("alexnet", str(tmp_path / "w.pth"), 0)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("bomb-went-off"),))


def test_a_weight_file_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": Bomb()}, "bomb.pth")
    with pytest.raises(Refused, match="could run"):
        read_state(Path("bomb.pth"))
    assert not Path("bomb-went-off").exists()
    Path("text.safetensors").write_text("hello")
    with pytest.raises(Refused, match="cannot be read as weights"):
        read_state(Path("text.safetensors"))


def test_imagenet_without_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(Refused) as caught:
        load("vgg16", "imagenet", 0)
    place = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    for part in (str(place), "no route to host", "--weights FILE", "--weights random"):
        assert part in str(caught.value)
    place.write_bytes(b"half a download")
    with pytest.raises(Refused, match="is damaged"):
        load("vgg16", "imagenet", 0)


def test_images_as_they_come(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for mode in ("L", "P", "RGBA", "CMYK", "LA", "1", "I;16"):
        converted = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
        suffix = ".tif" if mode in ("CMYK", "I;16") else ".png"
        converted.save(tmp_path / f"x{suffix}")
        decoded = decode(tmp_path / f"x{suffix}")
        assert (decoded.mode, decoded.size) == ("RGB", (20, 30)), mode
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    image.save(tmp_path / "side.jpg", exif=exif)
    assert decode(tmp_path / "side.jpg").size == (30, 20)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 100, dtype=np.uint16).reshape(10, 10)
    Image.fromarray(values).save(tmp_path / "x.png")
    decoded = np.asarray(decode(tmp_path / "x.png"))[..., 0]
    assert np.array_equal(decoded, (values // 257).astype(np.uint8))
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UndecodableError, match="floating-point"):
        decode(tmp_path / "f.tif")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "not an image"), (b"GIF89a nonsense", None), (b"hello", "not an image")],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, says: str | None) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UndecodableError, match=says):
        decode(tmp_path / "x.png")


def test_truncated_and_huge_images(tmp_path: Path, drawn: Path) -> None:
    picture = next((drawn / "images").iterdir()).read_bytes()
    (tmp_path / "x.png").write_bytes(picture[: len(picture) // 2])
    with pytest.raises(UndecodableError):
        decode(tmp_path / "x.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UndecodableError, match="pixels"):
        decode(tmp_path / "bomb.png")


def test_a_face_is_cut_out_with_its_margin(drawn: Path) -> None:
    path = sorted((drawn / "images").iterdir())[0]
    narrow = crop_file(path, CropSettings(margin=0.0))
    wide = crop_file(path, CropSettings(margin=0.2))
    assert wide.status == narrow.status == Status.FOUND
    assert wide.pixels.shape == (100, 100, 3)
    assert wide.pixels.dtype == np.uint8
    width = [c.box[2] - c.box[0] for c in (narrow, wide)]
    assert abs(width[1] / width[0] - 1.2) < 0.02


def test_widening_stops_at_the_border() -> None:
    assert widen((20, 20, 120, 120), 0.2, 200, 125) == (10, 10, 130, 125)
    assert widen((-5, -3, 95, 97), 0.2, 90, 200) == (0, 0, 90, 107)


def test_no_row_is_dropped_silently(folder: Path, tmp_path: Path) -> None:
    """No face: the whole image. Not decodable: a status and a reason, and no latent."""
    (folder / "calm" / "broken.png").write_bytes(b"not an image")
    dataset = read("folder", folder)
    manifest, made = make_crops(
        dataset, CropSettings(), crop_settings(dataset, CropSettings()), tmp_path / "crops",
        store="hdf5", workers=1, overwrite=False,
        tick=_nothing,
    )  # fmt: skip
    assert made == 7
    assert manifest.info.images == {"found": 0, "whole": 6, "failed": 1}
    with Cache(tmp_path / "crops") as cache:
        broken = next(s for s in cache.samples() if s["status"] == "failed")
        assert (broken["id"], broken["reason"]) == ("calm/broken.png", "not an image")
        make_latents(
            cache, RootSettings("resnet18", "random"), load("resnet18", "random", 0),
            tmp_path / "latents", store="hdf5", device="cpu", overwrite=False, tick=_nothing,
        )  # fmt: skip
    with Cache(tmp_path / "latents") as latent_cache:
        assert latent_cache.manifest.rows == 6
        assert broken["row"] not in latent_cache.side("row")
        ids = [s["id"] for s in latent_cache.samples()]
        assert ids == [s.id for s in dataset.samples if s.id != "calm/broken.png"]


def test_workers_change_nothing(drawn: Path, crops: Path, tmp_path: Path) -> None:
    """Two processes, another store, another shard size: the same content."""
    dataset = read("drawn", drawn)
    manifest, _ = make_crops(
        dataset, CropSettings(), crop_settings(dataset, CropSettings()), tmp_path / "c",
        store="hdf5", workers=2,
        overwrite=False, tick=_nothing,
    )  # fmt: skip
    with Cache(crops) as cache:
        assert cache.manifest.content == manifest.content
        assert cache.manifest.fingerprint == manifest.fingerprint
        assert cache.manifest.info.images["found"] >= 93


def test_half_precision_is_half_the_bytes(crops: Path, latents: Path, tmp_path: Path) -> None:
    with Cache(crops) as cache:
        settings = RootSettings("mobilenet_v2", "random", dtype="float16")
        make_latents(
            cache, settings, load("mobilenet_v2", "random", 0), tmp_path / "half", store="zarr",
            device="cpu", overwrite=False, tick=_nothing,
        )  # fmt: skip
    with Cache(tmp_path / "half") as half, Cache(latents) as full:
        assert half.bulk().dtype == np.float16
        assert np.abs(half.bulk("float32") - full.bulk()).max() < 1e-3
        assert 2 * half.bulk().nbytes == full.bulk().nbytes
