"""The frozen roots, one table.

A root is a torchvision classifier without its last layers:

    uint8 crop -> [0, 1] -> (ImageNet normalisation) -> network -> (calibration) -> sigmoid

The sigmoid is the LGR code's (reference: the paper's generator has a sigmoid
output, so latents must lie in (0, 1)).  Always in eval mode: dropout off,
batch norm with its stored statistics, so that a latent depends on its crop
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

Activation = Literal["sigmoid", "none"]
Normalize = Literal["none", "imagenet"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """One row of the table."""

    dim: int
    """Length of a latent."""
    layer: str
    """Where the latent is taken, in torchvision's names."""
    weights: str
    """torchvision's weights: the member that the paper's `pretrained=True` meant."""
    cut: Callable[[nn.Module], object]
    """Removes what comes after the layer."""


def _cut_vgg(model: nn.Module) -> None:
    model.classifier = nn.Sequential(model.get_submodule("classifier.0"))


def _cut_alexnet(model: nn.Module) -> None:
    model.classifier = nn.Sequential(*list(model.get_submodule("classifier").children())[:2])


def _cut_resnet(model: nn.Module) -> None:
    model.fc = nn.Identity()


def _cut_mobilenet(model: nn.Module) -> None:
    model.classifier = nn.Identity()


BACKBONES: dict[str, Backbone] = {
    "vgg16": Backbone(4096, "classifier.0", "VGG16_Weights.IMAGENET1K_V1", _cut_vgg),
    "alexnet": Backbone(4096, "classifier.1", "AlexNet_Weights.IMAGENET1K_V1", _cut_alexnet),
    "resnet18": Backbone(512, "avgpool", "ResNet18_Weights.IMAGENET1K_V1", _cut_resnet),
    "mobilenet_v2": Backbone(1280, "avgpool", "MobileNet_V2_Weights.IMAGENET1K_V1", _cut_mobilenet),
}


def empty_network(name: str) -> nn.Module:
    """The network up to its latent, on the meta device: shapes and names, no weights.

    Parameter names are torchvision's, so its state dicts fit.
    """
    with torch.device("meta"):
        model: nn.Module = torchvision.models.get_model(name, weights=None)
    BACKBONES[name].cut(model)
    return model


class Root(nn.Module):
    """The frozen feature extractor R.

    `network` maps float (B, 3, H, W) to (B, D) pre-activations.
    """

    def __init__(self, network: nn.Module, activation: Activation, normalize: Normalize) -> None:
        super().__init__()
        self.network = network
        self._activation = activation
        self._normalize = normalize
        self.shift: Tensor | None = None
        self.scale: Tensor | None = None
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Root:
        """A root never trains: whatever is asked for, it stays in eval mode."""
        del mode
        super().train(False)
        return self

    def calibrate(self, shift: Tensor, scale: Tensor) -> None:
        """From now on pre-activations are (p - shift) / scale, each float32 (D,)."""
        self.shift, self.scale = shift, scale

    def preactivation(self, crops: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) RGB -> float32 (B, D), before calibration and activation."""
        x = crops.permute(0, 3, 1, 2).float() / 255
        if self._normalize == "imagenet":
            mean = torch.tensor(IMAGENET_MEAN, device=x.device).view(1, 3, 1, 1)
            std = torch.tensor(IMAGENET_STD, device=x.device).view(1, 3, 1, 1)
            x = (x - mean) / std
        out: Tensor = self.network(x.contiguous(memory_format=torch.channels_last)).flatten(1)
        return out

    def forward(self, crops: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) RGB -> latents float32 (B, D)."""
        x = self.preactivation(crops)
        if self.shift is not None and self.scale is not None:
            x = (x - self.shift) / self.scale
        return torch.sigmoid(x) if self._activation == "sigmoid" else x
