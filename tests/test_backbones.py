"""Which networks can be a root, and the root itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from cache.errors import Refused
from stages.extract import classifiers
from stages.extract.backbones import (
    BACKBONES,
    Tap,
    choose,
    cost,
    empty_network,
    listing,
    value_range,
)
from stages.extract.lenet import LeNet
from stages.extract.random_weights import random_network
from stages.extract.root import Root, to_grey
from stages.extract.weights import load, make_root
from stages.train.networks import Top, parameter_count


def _table(name: str) -> Tap:
    return choose(name, None)


def _crops(count: int, size: int = 100, seed: int = 0) -> torch.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


# --- what the networks are ---------------------------------------------------


def test_vgg16_root_and_top_have_the_papers_parameters() -> None:
    """118,004,680: 13 convolutions, fc6 and the top, without the unused fc7 and fc8."""
    root = sum(p.numel() for p in empty_network(_table("vgg16")).parameters())
    top = parameter_count(Top(4096, 8, torch.Generator()))
    assert root == 14_714_688 + 102_764_544
    assert top == 525_448
    assert root + top == 118_004_680


def test_lenet_has_the_papers_parameters() -> None:
    """Table XIII, layer by layer: 110,850."""
    sizes = {
        name: sum(p.numel() for p in layer.parameters()) for name, layer in LeNet().named_children()
    }
    assert sizes == {"conv1": 130, "conv2": 630, "fc0": 92_288, "fc1": 16_512, "fc2": 1_290}
    root = sum(p.numel() for p in empty_network(_table("lenet")).parameters())
    assert root == 93_048
    assert root + parameter_count(Top(128, 10, torch.Generator())) == 110_850


# Solvers of the reference's log, with a top of 8 classes (reference, section 6).
SOLVERS = {
    "vgg16": 118_004_680,
    "alexnet": 61_626_288 - (4096 * 4096 + 4096) - (4096 * 1000 + 1000),  # with fc7 and fc8
    "mobilenet_v2": 3_669_872 - 1_281_000,  # with torchvision's classifier
    "resnet18": 11_243_208,
}


@pytest.mark.parametrize("name", SOLVERS)
def test_roots_have_the_references_parameters(name: str) -> None:
    entry = BACKBONES[name]
    top = parameter_count(Top(entry.dim, 8, torch.Generator()))
    assert cost(_table(name), 100).parameters + top == SOLVERS[name]


def test_the_listing_is_the_table() -> None:
    rows = {row.name: row for row in listing()}
    assert list(rows) == list(BACKBONES)
    for name, row in rows.items():
        assert (row.dim, row.layer) == (BACKBONES[name].dim, BACKBONES[name].layer)
        assert row.size == (32 if name == "lenet" else 100)
        assert row.gmacs == cost(_table(name), row.size).macs / 1e9


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "mobilenet_v2", "lenet"])
def test_latents_have_the_tables_length(name: str) -> None:
    tap = _table(name)
    root = make_root(tap, load(tap, "random", 0), "sigmoid", "none")
    out = root(_crops(2, BACKBONES[name].size or 100))
    assert out.shape == (2, BACKBONES[name].dim)
    assert out.dtype == torch.float32
    assert 0 <= float(out.min()) < float(out.max()) <= 1


def test_macs_of_vgg16_by_hand() -> None:
    """3.07 GMAC for root and top at 100 x 100: k x k x in x out x pixels, and inputs x outputs."""
    convolutions = [(3, 64), (64, 64), 2, (64, 128), (128, 128), 2, (128, 256), (256, 256)]
    convolutions += [(256, 256), 2, (256, 512), (512, 512), (512, 512), 2]
    convolutions += [(512, 512), (512, 512), (512, 512)]
    side, macs = 100, 0
    for layer in convolutions:
        if layer == 2:
            side //= 2
        else:
            macs += 9 * layer[0] * layer[1] * side * side
    macs += 25_088 * 4096
    assert cost(_table("vgg16"), 100).macs == macs
    with_top = macs + 4096 * 128 + 128 * 8
    assert round(with_top / 1e9, 2) == 3.07


def test_macs_of_lenet_by_hand() -> None:
    macs = 25 * 5 * 28 * 28 + 25 * 5 * 5 * 24 * 24 + 720 * 128
    assert cost(_table("lenet"), 32).macs == macs


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_tiny", "regnet_y_400mf", "vit_b_32", "swin_t"]
)
def test_macs_are_torchvisions(name: str) -> None:
    """Whole networks at 224: torchvision prints GMACs (as `_ops`) with three decimals."""
    whole = cost(Tap(name, classifiers.layers(name)[-1]), 224)
    meta = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    assert whole.macs / 1e9 == pytest.approx(meta["_ops"], abs=6e-4)
    assert whole.parameters == meta["num_params"]


# --- any classifier at any layer ---------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer", "dim"),
    [
        ("convnext_tiny", "avgpool", 768),
        ("efficientnet_b0", "avgpool", 1280),
        ("regnet_y_400mf", "flatten", 440),
        ("swin_t", "flatten", 768),
    ],
)
def test_any_classifier(name: str, layer: str, dim: int) -> None:
    """Random roots of it: finite, varied, by their seed alone, always in eval mode."""
    tap = choose(name, layer)
    assert cost(tap, 100).dim == dim
    torch.manual_seed(1)
    before = torch.get_rng_state()
    weights = load(tap, "random", 4)
    assert weights.network is not None
    state = {name: value.clone() for name, value in weights.network.state_dict().items()}
    root = make_root(tap, weights, "none", "none")
    assert torch.equal(torch.get_rng_state(), before)
    root.train()
    assert not any(module.training for module in root.modules())
    crops = _crops(2)
    latents = root(crops)
    assert latents.shape == (2, dim)
    assert bool(torch.isfinite(latents).all())
    assert float((latents.std(0) > 0).float().mean()) > 0.9
    assert torch.equal(root(crops), latents)
    torch.manual_seed(2)
    again = random_network(tap, 4).state_dict()
    assert all(torch.equal(state[key], again[key]) for key in state)


@pytest.mark.parametrize("name", ["vit_b_32", "swin_v2_t", "maxvit_t", "googlenet"])
def test_nothing_is_left_uninitialised(name: str) -> None:
    """Tokens, positions, scales and tables too; what stays empty would be NaN."""
    tap = choose(name, classifiers.layers(name)[-1])
    state = random_network(tap, 0).state_dict()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    if name not in ("swin_v2_t", "maxvit_t"):
        return
    with torch.random.fork_rng(devices=[]):
        model = torchvision.models.get_model(name, weights=None)
    assert state.keys() <= model.state_dict().keys()  # so that a state dict fits
    for key, buffer in model.named_buffers():  # tables of positions have torchvision's values
        if key in state:
            assert torch.equal(state[key], buffer), key


def test_a_layer_gives_what_the_whole_network_has_there() -> None:
    """Against torchvision's own network with a hook, with one set of weights for both."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.squeezenet1_1(weights=None).eval()
    seen: list[torch.Tensor] = []
    model.features[7].register_forward_hook(lambda _m, _i, out: seen.append(out))
    cut = classifiers.cut_at("squeezenet1_1", "features.7")
    needed = cut.state_dict()
    cut.load_state_dict({k: v for k, v in model.state_dict().items() if k in needed}, assign=True)
    crops = _crops(2)
    with torch.no_grad():
        model(crops.permute(0, 3, 1, 2).float() / 255)
        latents = Root(cut, "none", "none")(crops)
    assert torch.allclose(latents, seen[0].flatten(1), atol=1e-6)


def test_the_table_is_the_same_as_a_layer_of_its_name() -> None:
    """A cut by hand and one by tracing: the same parameters, MACs and length."""
    for name in ("alexnet", "resnet18"):
        entry = BACKBONES[name]
        traced = classifiers.cut_at(name, entry.layer)
        by_hand = empty_network(_table(name))
        assert traced.state_dict().keys() == by_hand.state_dict().keys()
    assert choose("resnet18", "avgpool") == _table("resnet18")
    assert choose("resnet18", "layer3").entry is None
    assert cost(choose("resnet18", "layer3"), 100).dim == 256 * 7 * 7


@pytest.mark.parametrize(
    ("name", "layer", "says"),
    [
        ("vgg61", None, r"Did you mean .*vgg16.*\? The table has vgg16, alexnet.*--layer"),
        ("fcn_resnet50", None, "Unknown backbone"),
        ("convnext_tiny", None, r"convnext_tiny is not in the table.*--layer.*avgpool"),
        ("convnext_tiny", "avgpol", r"no layer 'avgpol'. Did you mean avgpool\?"),
        ("resnet18", "layer5", r"no layer 'layer5'. Did you mean .*layer4"),
        ("vgg16", "(", r"no layer '\('\. Its last ones are"),
        ("lenet", "fc1", r"no layer 'fc1'. Did you mean fc0"),
    ],
)
def test_what_cannot_be_chosen(name: str, layer: str | None, says: str) -> None:
    with pytest.raises(Refused, match=says):
        choose(name, layer)


@pytest.mark.parametrize(
    ("name", "layer", "size", "says"),
    [
        ("vit_b_16", "getitem_5", 100, r"100 x 100 pixels: Wrong image height! Expected 224! "),
        ("inception_v3", "avgpool", 32, "does not take crops of 32 x 32 pixels: .*[Kk]ernel size"),
        ("lenet", None, 100, r"lenet takes crops of 32 x 32 .* 100 x 100: make them with --size"),
        ("lenet", None, 33, "make them with --size 32"),
        ("vit_b_16", "class_token", 224, "gives no values for each crop"),
    ],
)
def test_crops_that_a_network_does_not_take(
    name: str, layer: str | None, size: int, says: str
) -> None:
    with pytest.raises(Refused, match=says):
        cost(choose(name, layer), size)


def test_bounds_are_the_sigmoids() -> None:
    assert value_range(_table("vgg16"), "sigmoid") == (0.0, 1.0)
    assert value_range(_table("vgg16"), "none") is None


# --- the root ----------------------------------------------------------------


def test_a_root_never_trains() -> None:
    """Dropout and batch norm stay in eval mode whatever is asked for: same crop, same latent."""
    root = Root(random_network(_table("alexnet"), 0), "sigmoid", "none")
    root.train()
    assert not any(module.training for module in root.modules())
    assert not any(p.requires_grad for p in root.parameters())
    crop = _crops(1)
    assert torch.equal(root(crop), root(crop))


class Spy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return x.flatten(1)


def test_input_is_zero_to_one_or_normalised() -> None:
    spy = Spy()
    white = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    Root(spy, "none", "none")(white)
    Root(spy, "none", "imagenet")(white)
    assert torch.equal(spy.seen[0], torch.ones(1, 3, 2, 2))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(spy.seen[1][0, :, 0, 0], expected)


def test_grey_is_pillows() -> None:
    crops = _crops(3, 64)
    pillow = np.stack([np.asarray(Image.fromarray(c.numpy()).convert("L")) for c in crops])
    assert np.array_equal(to_grey(crops).numpy(), pillow)
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_grey(levels[:, None].expand(256, 3)), levels)
    spy = Spy()
    Root(spy, "none", "none", grey=True)(crops)
    assert spy.seen[0].shape == (3, 1, 64, 64)
    assert np.array_equal((spy.seen[0][:, 0] * 255).round().numpy(), pillow)


def test_imagenets_colours_need_colours() -> None:
    tap = _table("lenet")
    with pytest.raises(Refused, match="--normalize none"):
        make_root(tap, load(tap, "random", 0), "sigmoid", "imagenet")
