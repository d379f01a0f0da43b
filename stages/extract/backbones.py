"""Which networks can be a root: one table, and any other torchvision classifier at any layer.

Without its last layers a classifier is a root (root.py); here is where it is
cut, how long its latents are and what they cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cache.errors import Refused
from stages.extract import classifiers, lenet
from stages.extract.root import Activation as Activation
from stages.extract.root import Normalize as Normalize
from stages.extract.root import Root as Root

CROP_SIZE = 100
"""Side of a face crop in the paper, in pixels."""


@dataclass(frozen=True)
class Backbone:
    """One row of the table."""

    dim: int
    """Length of a latent."""
    layer: str
    """Where the latent is taken, in torchvision's names."""
    weights: str | None
    """torchvision's weights: the member that the paper's `pretrained=True` meant."""
    cut: Callable[[nn.Module], object]
    """Removes what comes after the layer."""
    note: str
    """For who chooses."""
    size: int | None = None
    """Side of its crops, where it takes no other."""
    grey: bool = False
    """It sees grey crops."""


def _cut_vgg(model: nn.Module) -> None:
    model.classifier = nn.Sequential(model.get_submodule("classifier.0"))


def _cut_alexnet(model: nn.Module) -> None:
    model.classifier = nn.Sequential(*list(model.get_submodule("classifier").children())[:2])


def _cut_resnet(model: nn.Module) -> None:
    model.fc = nn.Identity()


def _cut_mobilenet(model: nn.Module) -> None:
    model.classifier = nn.Identity()


def _cut_nothing(model: nn.Module) -> None:
    del model


BACKBONES: dict[str, Backbone] = {
    "vgg16": Backbone(
        4096, "classifier.0", "VGG16_Weights.IMAGENET1K_V1", _cut_vgg,
        "the paper's; fc6 before its ReLU",
    ),
    "alexnet": Backbone(
        4096, "classifier.1", "AlexNet_Weights.IMAGENET1K_V1", _cut_alexnet,
        "fc6 before its ReLU; the fewest MACs with 4096 values",
    ),
    "resnet18": Backbone(
        512, "avgpool", "ResNet18_Weights.IMAGENET1K_V1", _cut_resnet,
        "never below 0, so its sigmoid never below 0.5",
    ),
    "mobilenet_v2": Backbone(
        1280, "avgpool", "MobileNet_V2_Weights.IMAGENET1K_V1", _cut_mobilenet,
        "the smallest download; never below 0, so its sigmoid never below 0.5",
    ),
    "lenet": Backbone(
        128, "fc0", None, _cut_nothing,
        "for MNIST and CIFAR, grey; weights: lgr-pipe pretrain",
        size=lenet.SIZE, grey=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Tap:
    """A backbone, and where the latent is taken: two names from `choose`."""

    name: str
    layer: str

    @property
    def entry(self) -> Backbone | None:
        """The row of the table, if this is one."""
        entry = BACKBONES.get(self.name)
        return entry if entry is not None and entry.layer == self.layer else None

    @property
    def grey(self) -> bool:
        return self.name in BACKBONES and BACKBONES[self.name].grey


def choose(name: str, layer: str | None) -> Tap:
    """The table's layer where `layer` is None.

    Raises:
        Refused: an unknown name, a layer that the network does not have, or
            none for a network that is not in the table.
    """
    if name not in BACKBONES and name not in classifiers.names():
        raise Refused(
            f"Unknown backbone {name!r}.{classifiers.close(name, known())} "
            f"The table has {', '.join(BACKBONES)}; any other image classifier of torchvision "
            "works with --layer, such as convnext_tiny --layer avgpool."
        )
    if layer is not None:
        tap = Tap(name, layer)
        if tap.entry is None:
            classifiers.check_layer(name, layer)
        return tap
    if name not in BACKBONES:
        raise Refused(
            f"{name} is not in the table ({', '.join(BACKBONES)}), so it must be said where the "
            f"latent is taken: --layer NAME. Before its class scores come "
            f"{classifiers.last(name)}."
        )
    return Tap(name, BACKBONES[name].layer)


def known() -> list[str]:
    """All names that `choose` takes, those of the table first."""
    return list(dict.fromkeys([*BACKBONES, *classifiers.names()]))


def skeleton(tap: Tap) -> nn.Module:
    """The network up to its latent; its weights have no storage yet (see classifiers.py).

    Parameter names are torchvision's, so its state dicts fit.

    Raises:
        Refused: no such network or layer.
    """
    if tap.entry is None:
        return classifiers.cut_at(tap.name, tap.layer)
    model = classifiers.skeleton(tap.name)
    tap.entry.cut(model)
    return model


def empty_network(tap: Tap) -> nn.Module:
    """The same wholly on the meta device: shapes and names, no values."""
    return skeleton(tap).to("meta")


@dataclass(frozen=True)
class Cost:
    """Of one crop."""

    dim: int
    """Length of a latent."""
    parameters: int
    macs: int
    """Multiplications with an addition, as in the convolutions and linear layers."""


def cost(tap: Tap, size: int) -> Cost:
    """What a crop of `size` x `size` pixels costs; nothing is computed for it.

    Raises:
        Refused: the network takes no crops of this size, or its layer gives
            something else than one tensor (B, ...).
    """
    entry = tap.entry
    if entry is not None and entry.size not in (None, size):
        raise Refused(
            f"{tap.name} takes crops of {entry.size} x {entry.size} pixels, these are "
            f"{size} x {size}: make them with --size {entry.size}."
        )
    network = empty_network(tap)
    batch = 2  # so that a table of the network's own (1, ...) is told from outputs
    images = torch.empty(batch, 1 if tap.grey else 3, size, size, device="meta")
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = network(images)
    except Exception as error:  # each network has its own way to say no
        raise Refused(
            f"{tap.name} does not take crops of {size} x {size} pixels: "
            f"{classifiers.first_line(error)} (another size: --size)"
        ) from None
    if not isinstance(out, Tensor) or out.ndim < 2 or out.shape[0] != batch:
        raise Refused(
            f"Layer {tap.layer} of {tap.name} gives no values for each crop. "
            f"Before its class scores come {classifiers.last(tap.name)}."
        )
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(out[0].numel(), parameters, counter.get_total_flops() // (2 * batch))


@dataclass(frozen=True)
class Listed:
    """A row of the table with what it costs, for those who choose."""

    name: str
    dim: int
    layer: str
    parameters: int
    size: int
    """Side of the crops, in pixels, that `gmacs` is for."""
    gmacs: float
    """1e9 multiplications with an addition, per crop."""
    weights: str
    """What --weights can be, beside random and a file."""
    note: str


def listing(size: int = CROP_SIZE) -> list[Listed]:
    """The table, at this size of crops where the network takes it."""
    rows = []
    for name, entry in BACKBONES.items():
        side = entry.size or size
        c = cost(Tap(name, entry.layer), side)
        weights = "imagenet" if entry.weights else "-"
        rows.append(
            Listed(name, c.dim, entry.layer, c.parameters, side, c.macs / 1e9, weights, entry.note)
        )
    return rows


def value_range(tap: Tap, activation: Activation) -> tuple[float, float] | None:
    """Bounds of all possible latents, where there are any."""
    del tap  # a ReLU's lower bound alone bounds nothing that a generator could use
    return (0.0, 1.0) if activation == "sigmoid" else None
