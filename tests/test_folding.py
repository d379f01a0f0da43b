"""The fast form of a frozen network against the plain one, and what is in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from stages.extract import packing, staging
from stages.extract.backbones import Tap, choose
from stages.extract.calibrate import calibration
from stages.extract.folding import folded_linear, module_of
from stages.extract.forward import GROUP, Forward
from stages.extract.frozen import Frozen
from stages.extract.packing import PackedConv
from stages.extract.random_weights import random_network
from stages.extract.root import Root
from stages.extract.weights import load, make_root

needs_onednn = pytest.mark.skipif(not packing.available(), reason="no such operations here")


def _crops(count: int, size: int = 100) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def _lively(tap: Tap) -> nn.Module:
    """Random, and its batch norms are not the identity that they are at first."""
    network = random_network(tap, 0)
    stream = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=stream)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.1, generator=stream)
    return network


# A residual with and without a convolution in it, three activations, depthwise, squeeze and
# excitation, concatenation, shuffling, norm before convolution, pooling that is linear, no torch
# convolution at all.
NETWORKS = [
    ("alexnet", None), ("resnet18", None), ("mobilenet_v2", None), ("vgg11_bn", "classifier.0"),
    ("efficientnet_b0", "avgpool"), ("mobilenet_v3_small", "avgpool"),
    ("squeezenet1_1", "classifier.3"),
    ("shufflenet_v2_x1_0", "mean"), ("densenet121", "adaptive_avg_pool2d"),
    ("convnext_tiny", "avgpool"), ("googlenet", "avgpool"), ("swin_t", "flatten"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "layer"), NETWORKS)
def test_the_plain_networks_values(name: str, layer: str | None) -> None:
    """Within 1e-5; where the plain network itself is further from double precision, as near."""
    tap, crops = choose(name, layer), _crops(3)
    plain = Root(_lively(tap), "none", "none")
    exact = _lively(tap).double()
    with torch.inference_mode():
        usual = plain(crops)
        made = Root(Frozen(_lively(tap)), "none", "none")(crops)
        right = exact(plain.pixels(crops).double()).flatten(1)
    own = float((usual - right).abs().max())
    assert float(right.std()) > 0.1
    assert float((made - right).abs().max()) <= max(1e-5, 2 * own)
    assert own < 1e-3


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_calibrated_latents_are_the_plain_networks(name: str) -> None:
    tap, crops = choose(name, None), _crops(40)
    plain = Root(random_network(tap, 0), "sigmoid", "none")
    fast = make_root(tap, load(tap, "random", 0), "sigmoid", "none")
    shift, scale = map(torch.from_numpy, calibration(plain, crops, Forward("cpu")))
    latents = []
    for root in (plain, fast):
        root.calibrate(shift, scale)
        latents.append(torch.cat(list(Forward("cpu")(root, crops))))
    off = (latents[0] - latents[1]).abs() * scale.clamp(max=1)
    assert float(off.max()) <= 1e-5


def test_a_pooling_that_repeats_and_averages_is_a_part_of_the_layer_after_it() -> None:
    """As VGG-16's 3 x 3 -> 7 x 7, with PyTorch's own pooling as oracle."""
    stream = torch.Generator().manual_seed(0)
    linear = nn.Linear(6 * 49, 10).requires_grad_(False)
    x = torch.randn(4, 6, 3, 2, generator=stream)
    expected = linear(functional.adaptive_avg_pool2d(x, (7, 7)).flatten(1))
    folded = folded_linear(linear, (3, 2), (7, 7))
    assert (folded.in_features, folded.weight.shape) == (36, (10, 36))
    assert torch.allclose(folded(x.flatten(1)), expected, atol=1e-6)


@pytest.mark.parametrize(("size", "inputs"), [(100, 256 * 2 * 2), (256, 9216)])
def test_only_a_smaller_layer_is_folded(size: int, inputs: int) -> None:
    """AlexNet's features of 100 pixels end at 2 x 2, of 256 at 7 x 7, and are pooled to 6 x 6."""
    frozen = Frozen(random_network(choose("alexnet", None), 0))
    frozen(torch.zeros(1, 3, size, size))
    (linear,) = (m for m in frozen.modules() if isinstance(m, nn.Linear))
    assert linear.in_features == inputs
    assert linear.weight.shape == (4096, inputs)


def test_the_weights_before_folding_are_not_kept() -> None:
    """Neither by the root nor by who loaded them."""
    tap = choose("alexnet", None)
    weights = load(tap, "random", 0)
    root = make_root(tap, weights, "sigmoid", "none")
    root(_crops(1))
    assert weights.network is None
    assert sum(p.numel() for p in root.parameters()) < 4097 * 1024 + 3_000_000
    assert weights.take() is not root.network


@needs_onednn
def test_what_follows_a_convolution_is_in_it() -> None:
    """Of ResNet-18 20 convolutions, a max-pooling, an average and a flattening are left."""
    frozen = Frozen(random_network(choose("resnet18", None), 0))
    frozen(torch.zeros(1, 3, 100, 100))
    graphs = [m.graph for m in frozen.modules() if isinstance(m, fx.GraphModule)]
    calls = [n for graph in graphs for n in graph.nodes if n.op not in ("placeholder", "output")]
    packed = [n for n in calls if isinstance(module_of(n), PackedConv)]
    assert (len(packed), len(calls)) == (20, 23)
    assert sum(len(n.args) == 2 for n in packed) == 8  # one in each block
    assert sum(m._activation == "relu" for m in frozen.modules() if isinstance(m, PackedConv)) == 17


def test_the_callers_pixels_stay_as_they_are() -> None:
    """Sums are put in the place of what is added to: never in that of the input."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x) + x
            z = self.second(y)
            out: torch.Tensor = torch.relu(z + y) + y  # y is needed once more
            return out

    torch.manual_seed(0)
    network = Residual().requires_grad_(False)
    x = torch.randn(5, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before, expected = x.clone(), network(x)
    made = Frozen(network)(x)
    assert torch.equal(x, before)
    assert torch.allclose(made, expected, atol=1e-6)


def test_pieces_fit_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sizes of the pieces: the same values, to the last bits."""
    tap, x = choose("mobilenet_v2", None), torch.rand(GROUP + 3, 3, 100, 100)
    made = []
    for size in (1_000_000, 16_000_000, 10**12):
        monkeypatch.setattr(staging, "BYTES", size)
        frozen = Frozen(random_network(tap, 0))
        made.append(frozen(x))
        staged = frozen._network
        assert isinstance(staged, staging.Staged)
        assert staged._pieces == sorted(set(staged._pieces))
        assert staged._pieces[-1] == GROUP
        assert (len(staged._pieces) == 1) == (size == 10**12)
    assert all(torch.allclose(made[0], other, atol=1e-4) for other in made[1:])


def test_one_size_and_no_gradient() -> None:
    frozen = Frozen(random_network(choose("resnet18", None), 0))
    frozen(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"crops of \(3, 64, 64\), not \(3, 32, 32\)"):
        frozen(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="No gradient"):
        frozen(torch.zeros(1, 3, 64, 64, requires_grad=True))
    with torch.no_grad():
        assert frozen(torch.zeros(1, 3, 64, 64, requires_grad=True)).shape == (1, 512)
