"""The paper's small network for MNIST and CIFAR (LGR, supplementary Table XIII).

    root  conv 5x5 1->5, ReLU, conv 5x5 5->5, ReLU, max-pool 2, dropout 0.25,
          flatten 720, linear 720->128 (fc0, the latent's pre-activation)
    top   sigmoid, linear 128->128 (fc1), ReLU, dropout 0.5, linear 128->10 (fc2)

Grey 32 x 32 images.  93,048 + 17,802 = 110,850 parameters.  There are no
public weights for it: pretrain.py trains it, on images that no task uses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 32
"""Side of its images, in pixels."""


class LeNetRoot(nn.Module):
    """float (B, 1, 32, 32) -> pre-activations (B, 128).  Without dropout: roots never train."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 5, 5)
        self.conv2 = nn.Conv2d(5, 5, 5)
        self.fc0 = nn.Linear(720, 128)

    def features(self, x: Tensor) -> Tensor:
        """float (B, 1, 32, 32) -> (B, 720)."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return functional.max_pool2d(x, 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc0(self.features(x))
        return out


class LeNet(LeNetRoot):
    """Root and top in one: its state dict fits the root, with fc1 and fc2 left over."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(128, 128)
        self.fc2 = nn.Linear(128, classes)

    def initialise(self, generator: torch.Generator) -> None:
        """Weights and biases uniform in +-1/sqrt(fan-in), as in the LGR code."""
        for layer in (self.conv1, self.conv2, self.fc0, self.fc1, self.fc2):
            bound = layer.weight[0].numel() ** -0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def logits(self, x: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """float (B, 1, 32, 32) -> (B, classes).

        Dropout acts only where a random stream (on x's device) is given.
        """
        x = _dropped(self.features(x), 0.25, dropout)
        x = torch.relu(self.fc1(torch.sigmoid(self.fc0(x))))
        out: Tensor = self.fc2(_dropped(x, 0.5, dropout))
        return out


def _dropped(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return x
    keep = torch.empty(x.shape, device=x.device).bernoulli_(1 - rate, generator=generator)
    return x * keep / (1 - rate)
