"""The frozen feature extractor R: crops in, latents out.

    uint8 crop -> (grey) -> [0, 1] -> (ImageNet normalisation) -> network
               -> (calibration) -> sigmoid

The sigmoid is the LGR code's (reference: the paper's generator has a sigmoid
output, so latents must lie in (0, 1)).  Always in eval mode: dropout off,
batch norm with its stored statistics, so that a latent depends on its crop
alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["sigmoid", "none"]
Normalize = Literal["none", "imagenet"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_grey(crops: Tensor) -> Tensor:
    """uint8 (..., 3) RGB -> uint8 (...), by ITU-R 601 in integers.

    Bit for bit what PIL's convert("L") gives; grey pictures stay as they are.
    """
    red, green, blue = crops.int().unbind(-1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)


class Root(nn.Module):
    """The frozen feature extractor R.

    `network` maps float (B, 3, H, W), if `grey` (B, 1, H, W), to pre-activations (B, D).
    """

    def __init__(
        self,
        network: nn.Module,
        activation: Activation,
        normalize: Normalize,
        *,
        grey: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self._activation = activation
        self._normalize = normalize
        self._to_grey = grey
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

    def pixels(self, crops: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) RGB -> float32 (B, C, H, W) in [0, 1]; grey: C = 1."""
        planes = to_grey(crops).unsqueeze(1) if self._to_grey else crops.permute(0, 3, 1, 2)
        return planes.float() / 255

    def preactivation(self, pixels: Tensor) -> Tensor:
        """float32 (B, C, H, W) in [0, 1] -> (B, D), before calibration and activation."""
        x = pixels
        if self._normalize == "imagenet":
            mean = torch.tensor(IMAGENET_MEAN, device=x.device).view(1, 3, 1, 1)
            std = torch.tensor(IMAGENET_STD, device=x.device).view(1, 3, 1, 1)
            x = (x - mean) / std
        out: Tensor = self.network(x.contiguous(memory_format=torch.channels_last)).flatten(1)
        return out

    def latents(self, pixels: Tensor) -> Tensor:
        """float32 (B, C, H, W) in [0, 1], drawn images too -> latents float32 (B, D)."""
        x = self.preactivation(pixels)
        if self.shift is not None and self.scale is not None:
            x = (x - self.shift) / self.scale
        return torch.sigmoid(x) if self._activation == "sigmoid" else x

    def forward(self, crops: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) RGB -> latents float32 (B, D)."""
        return self.latents(self.pixels(crops))
