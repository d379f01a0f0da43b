"""The trainable networks of the LGR paper: the top and the variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def linear(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    """A linear layer, weights and bias uniform in +-1/sqrt(inputs), as in the LGR code.

    Inside `with torch.device("meta")` it has shapes only: for counting costs.
    """
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta")
    if torch.get_default_device().type == "meta":
        return layer
    bound = 1 / math.sqrt(inputs)
    for name, like in list(layer.named_parameters()):  # to_empty would import a compiler's sympy
        values = torch.empty(like.shape, device="cpu").uniform_(-bound, bound, generator=generator)
        setattr(layer, name, nn.Parameter(values))
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
            x = x * _mask(x, self._keep, dropout).div_(self._keep)
        out: Tensor = self.output(x)
        return out


def _mask(like: Tensor, keep: float, stream: torch.Generator) -> Tensor:
    """1 with probability `keep`, else 0.  `bernoulli_` draws the same numbers for the same values,
    but compares one after the other, which takes 2.5 times as long (0.1 of a step of `none`)."""
    drawn = torch.empty(like.shape, dtype=torch.float64, device=like.device)
    return torch.lt(drawn.uniform_(generator=stream), keep, out=torch.empty_like(like))


class VAE(nn.Module):
    """G: P -> h -> h -> (mean, log variance) of z -> h -> h -> P (LGR, supplementary VIII, IX).

    ReLU after each hidden layer.  The log variance has no bias, and there is no
    normalisation or dropout, as in the LGR code.  Parameters: P = 4096, h = 200,
    z = 100: 1,783,396; P = 30000, h = 1600: 101,636,500.  (The paper's 1,785,004
    and 101,649,308 count a classifier row of 8 (h + 1) that its code holds and
    never trains; it is not built here.)

    The output fits what is learnt.  `unit`: values in [0, 1], a sigmoid at the
    end, as in the paper.  Otherwise the values may be any: `fit` takes their
    means and deviations, and the network works on standardised ones, its output
    linear.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        size: int,
        generator: torch.Generator,
        hidden: int = 200,
        z: int = 100,
        *,
        unit: bool = True,
    ) -> None:
        super().__init__()
        self.z, self.unit = z, unit
        self.encoder_1 = linear(size, hidden, generator)
        self.encoder_2 = linear(hidden, hidden, generator)
        self.mean = linear(hidden, z, generator)
        self.log_variance = linear(hidden, z, generator, bias=False)
        self.decoder_1 = linear(z, hidden, generator)
        self.decoder_2 = linear(hidden, hidden, generator)
        self.output = linear(hidden, size, generator)
        if not unit:
            self.register_buffer("shift", torch.zeros(size))
            self.register_buffer("scale", torch.ones(size))

    def fit(self, parts: Iterable[Tensor]) -> None:
        """Take the scale of each value from x (N, P), which comes in parts; nothing to do for
        values in [0, 1].

        A value that hardly varies keeps a hundredth of the mean deviation, so
        that noise in it is not blown up.
        """
        if self.unit:
            return
        mean, deviation = mean_and_deviation(parts)
        self.shift.copy_(mean)
        self.scale.copy_(deviation.clamp_min(max(float(deviation.mean()) / 100, 1e-6)))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P) -> mean and log variance of z, each (B, z)."""
        if not self.unit:
            x = self.standardised(x)
        h = torch.relu(self.encoder_2(torch.relu(self.encoder_1(x))))
        return self.mean(h), self.log_variance(h)

    def standardised(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale

    def decode_raw(self, z: Tensor) -> Tensor:
        """(B, z) -> the last layer's output: before the sigmoid, or standardised; (B, P)."""
        out: Tensor = self.output(torch.relu(self.decoder_2(torch.relu(self.decoder_1(z)))))
        return out

    def code(self, count: int, generator: torch.Generator) -> Tensor:
        """z ~ N(0, I): float (count, z)."""
        device = self.output.weight.device
        return torch.empty(count, self.z, device=device).normal_(generator=generator)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """(B, z) -> (B, P): in (0, 1), or in the units of what was learnt."""
        raw = self.decode_raw(z)
        return raw.sigmoid_() if self.unit else raw * self.scale + self.shift

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` things drawn: float (count, P)."""
        return self.decode(self.code(count, generator))


def mean_and_deviation(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Of each column of x (N, P), N at least 1, which comes in parts: float64 (P,) each, the
    deviation divided by N.

    Parts are joined by Chan, Golub & LeVeque's rule (1979), which loses nothing where the mean is
    much larger than the deviation.
    """
    count = 0
    mean = squares = torch.zeros((), dtype=torch.float64)
    for part in parts:
        x = part.double()
        centre = x.mean(0)
        off = (x - centre).square_().sum(0)
        both = count + len(x)
        step = centre - mean
        mean = mean + step * (len(x) / both)
        squares = squares + off + step.square() * (count * len(x) / both)
        count = both
    return mean, (squares / count).sqrt()


def macs(*layers: nn.Module) -> int:
    """Multiply-accumulates of one row through the linear layers in these."""
    found = (m for layer in layers for m in layer.modules() if isinstance(m, nn.Linear))
    return sum(layer.weight.numel() for layer in found)


def decoder_macs(vae: VAE) -> int:
    """Of drawing one row."""
    return macs(vae.decoder_1, vae.decoder_2, vae.output)


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
