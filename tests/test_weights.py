"""Where a root's weights come from: a seed, torchvision, a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cache.errors import Refused
from cache.schema import TrainedOn
from stages.extract import imagenet
from stages.extract.backbones import BACKBONES, Tap, choose
from stages.extract.random_weights import random_network
from stages.extract.root import Root
from stages.extract.weights import check_names, load, make_root, read_state


def _table(name: str) -> Tap:
    return choose(name, None)


def _crops(count: int, size: int = 100, seed: int = 0) -> torch.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


# Of seed 3, before roots could be cut anywhere: other numbers orphan the random latents of all
# caches (then raise RANDOM_VERSION).  The last tensor tells whether any draw before it moved.
GOLDEN = {
    "alexnet": ("classifier.1.weight", [0.0193635058, 0.0075832559, -0.0100886738]),
    "resnet18": ("layer4.1.conv2.weight", [0.0223883074, -0.0119021824, -0.0213114992]),
    "mobilenet_v2": ("features.18.0.weight", [0.0763923079, 0.0368006453, -0.0870877579]),
    "vgg16": ("classifier.0.weight", [-0.0090502696, 0.0052783373, -0.0093238568]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_random_weights_stay_what_they_are(name: str) -> None:
    tensor, expected = GOLDEN[name]
    found = random_network(_table(name), 3).state_dict()[tensor].flatten()[:3].tolist()
    assert found == pytest.approx(expected, abs=1e-8)


def test_random_weights_follow_their_seed_only() -> None:
    tap = _table("mobilenet_v2")
    torch.manual_seed(1)
    first = random_network(tap, 5).state_dict()
    torch.manual_seed(2)
    again = random_network(tap, 5).state_dict()
    other = random_network(tap, 6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.0.0.weight"], other["features.0.0.weight"])


def test_weight_files(tmp_path: Path) -> None:
    """safetensors and torch files with further tensors (the last layers) give the same root."""
    tap = _table("resnet18")
    state = random_network(tap, 3).state_dict()
    extra = {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    save_file(extra, tmp_path / "w.safetensors")
    torch.save(extra, tmp_path / "w.pth")
    crop = _crops(1)
    expected = Root(random_network(tap, 3), "sigmoid", "none")(crop)
    for name in ("w.safetensors", "w.pth"):
        weights = load(tap, str(tmp_path / name), 0)
        made = make_root(tap, weights, "sigmoid", "none")(crop)
        assert torch.allclose(made, expected, rtol=0, atol=1e-5)
        assert weights.words == f"file {name}"
        assert weights.trained_on is None
        assert not weights.needs_calibration
    early = load(choose("resnet18", "layer1"), str(tmp_path / "w.pth"), 0)
    assert torch.equal(early.take().state_dict()["conv1.weight"], state["conv1.weight"])
    again = early.take().state_dict()  # read once more: the first to take it may change it
    assert torch.equal(again["conv1.weight"], state["conv1.weight"])
    save_file({**extra, "conv1.weight": state["conv1.weight"] + 1}, tmp_path / "w.safetensors")
    weights = load(tap, str(tmp_path / "w.safetensors"), 0)
    weights.take()
    save_file(extra, tmp_path / "w.safetensors")
    with pytest.raises(Refused, match="holds other weights than when it was read first"):
        weights.take()
    with pytest.raises(
        Refused, match=r"does not fit alexnet: it has no tensor features\.0\.weight"
    ):
        load(_table("alexnet"), str(tmp_path / "w.pth"), 0)


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
    for weights in ("imagenet", "IMAGENET1K_V1"):
        with pytest.raises(Refused) as caught:
            load(_table("vgg16"), weights, 0)
        place = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
        for part in (str(place), "no route to host", "--weights FILE", "--weights random"):
            assert part in str(caught.value)
    place.write_bytes(b"half a download")
    with pytest.raises(Refused, match="is damaged"):
        load(_table("vgg16"), "imagenet", 0)


def test_imagenet_weights_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the file of a member: fingerprint, words and what it has seen."""
    tap = choose("squeezenet1_1", "classifier.1")
    place = tmp_path / "squeezenet1_1.pth"
    torch.save(random_network(tap, 7).state_dict(), place)
    monkeypatch.setattr(imagenet, "file", lambda _name, _url: place)
    monkeypatch.setattr(imagenet, "check_digest", lambda _path, _sha: None)
    weights = load(tap, "imagenet", 0)
    assert weights.fingerprinted["member"] == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert weights.words == "ImageNet (IMAGENET1K_V1)"
    assert weights.trained_on == TrainedOn(data="ImageNet-1k", classes=1000)
    assert load(tap, "IMAGENET1K_V1", 0).fingerprinted == weights.fingerprinted


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("mobilenet_v2", "imagenet", "MobileNet_V2_Weights.IMAGENET1K_V1"),
        ("mobilenet_v2", "IMAGENET1K_V2", "MobileNet_V2_Weights.IMAGENET1K_V2"),
        ("mobilenet_v2", "DEFAULT", "MobileNet_V2_Weights.IMAGENET1K_V2"),
        ("resnet50", "imagenet", "ResNet50_Weights.IMAGENET1K_V1"),
        ("vit_h_14", "imagenet", "ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1"),
        ("vgg16", "no-such-member", "None"),
    ],
)
def test_members(name: str, weights: str, expected: str) -> None:
    assert str(imagenet.member(Tap(name, "x"), weights)) == expected


def test_the_table_names_imagenets_members() -> None:
    for name, entry in BACKBONES.items():
        if entry.weights is not None:
            assert str(imagenet.member(_table(name), "imagenet")) == entry.weights
        assert (entry.weights is None) == (imagenet.members(name) == [])


@pytest.mark.parametrize(
    ("name", "weights", "says"),
    [
        ("resnet18", "IMAGENET1K_V2", "imagenet, IMAGENET1K_V1, random or a file; there is no"),
        ("vgg16", "IMAGENET1K_FEATURES", "for the convolutions only.* choose IMAGENET1K_V1"),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", "images of 384 pixels"),
        ("lenet", "imagenet", "no ImageNet weights for lenet.*lgr-pipe pretrain.*--weights FILE"),
        ("lenet", "IMAGENET1K_V1", "--weights of lenet must be random or a file"),
    ],
)
def test_weights_that_there_are_none_of(name: str, weights: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        check_names(Tap(name, "x"), weights)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    """A quantised file would give latents without meaning."""
    state = random_network(choose("resnet18", None), 0).state_dict()
    whole = {name: tensor.to(torch.int8) for name, tensor in state.items()}
    save_file(whole, tmp_path / "q8.safetensors")
    with pytest.raises(Refused, match="dequantise"):
        load(choose("resnet18", None), str(tmp_path / "q8.safetensors"), 0)
