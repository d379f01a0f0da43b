"""The trainable networks of the LGR paper: the top and the variational autoencoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def linear(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    """A linear layer, weights and bias uniform in +-1/sqrt(inputs), as in the LGR code."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


class Top(nn.Module):
    """T: latent -> 128 -> ReLU -> dropout 0.5 -> one output a class (LGR, section 4.1).

    With D = 4096 and 8 classes: 525,448 parameters.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        generator: torch.Generator,
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.hidden = linear(dim, hidden, generator)
        self.output = linear(hidden, classes, generator)
        self._keep = 1 - dropout

    def forward(self, latents: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """float (B, D) -> logits (B, classes).

        Dropout acts only where a random stream is given: training passes one,
        everything else does not.
        """
        x = torch.relu(self.hidden(latents))
        if dropout is not None:
            mask = torch.empty(x.shape, device=x.device).bernoulli_(self._keep, generator=dropout)
            x = x * mask / self._keep
        out: Tensor = self.output(x)
        return out


class VAE(nn.Module):
    """G: D -> h -> h -> (mean, log variance) of z -> h -> h -> D (LGR, supplementary VIII).

    ReLU after each hidden layer, sigmoid at the end: values in (0, 1).  The log
    variance has no bias, and there is no normalisation or dropout, as in the
    LGR code.  Parameters: D = 4096, h = 200, z = 100: 1,783,396.  (The paper's
    1,785,004 counts a classifier row of 8 x 201 that its code holds and never
    trains; it is not built here.)
    """

    def __init__(
        self, dim: int, generator: torch.Generator, hidden: int = 200, z: int = 100
    ) -> None:
        super().__init__()
        self.z = z
        self.encoder_1 = linear(dim, hidden, generator)
        self.encoder_2 = linear(hidden, hidden, generator)
        self.mean = linear(hidden, z, generator)
        self.log_variance = linear(hidden, z, generator, bias=False)
        self.decoder_1 = linear(z, hidden, generator)
        self.decoder_2 = linear(hidden, hidden, generator)
        self.output = linear(hidden, dim, generator)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) in [0, 1] -> mean and log variance of z, each (B, z)."""
        h = torch.relu(self.encoder_2(torch.relu(self.encoder_1(x))))
        return self.mean(h), self.log_variance(h)

    def decode_logits(self, z: Tensor) -> Tensor:
        """(B, z) -> what the final sigmoid is applied to, (B, D)."""
        out: Tensor = self.output(torch.relu(self.decoder_2(torch.relu(self.decoder_1(z)))))
        return out

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` latents from z ~ N(0, I): float (count, D) in (0, 1)."""
        device = self.output.weight.device
        z = torch.empty(count, self.z, device=device).normal_(generator=generator)
        return torch.sigmoid(self.decode_logits(z))


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
