"""The losses of LGR (section 4.2 of the paper's code, corrected where said)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stages.train.networks import VAE


def head_mask(heads: Sequence[range], classes: int, device: torch.device) -> Tensor:
    """bool (len(heads), classes): which outputs belong to which head."""
    mask = torch.zeros(len(heads), classes, dtype=torch.bool, device=device)
    for k, head in enumerate(heads):
        mask[k, head.start : head.stop] = True
    return mask


def penalties(mask: Tensor) -> Tensor:
    """float32 like bool `mask`: 0 where an output may answer, minus infinity elsewhere.

    Added to logits it is cheaper than to fill them: its gradient is a pass-through.
    """
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)


def masked_cross_entropy(logits: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    """Cross entropy in which each row may answer only outputs without penalty; mean, scalar.

    logits (B, C), targets int64 (B,), penalty (B, C) or (C,), see `penalties`.
    """
    return functional.cross_entropy(logits + penalty, targets)


def hard_replay(new: Tensor, old: Tensor, old_head: range, new_head: range) -> Tensor:
    """Cross entropy of the new top against the old top's answer; mean, scalar.

    The answer is the largest of `old[..., old_head]`; the student chooses among
    `new_head`, which contains `old_head` (equal to it task-incrementally).
    new and old (..., C): rows, or rows x heads of one width.
    """
    answer = old[..., old_head.start : old_head.stop].argmax(-1) + (old_head.start - new_head.start)
    asked = new[..., new_head.start : new_head.stop]
    return functional.cross_entropy(asked.flatten(0, -2), answer.flatten())


def soft_replay(
    new: Tensor, old: Tensor, old_head: range, new_head: range, temperature: float
) -> Tensor:
    """Distillation: tau^2 * cross entropy of softened answers; mean, scalar.

    Hinton et al. 2015; tau = 2 in the LGR code.  Outputs in `new_head` that the
    old top did not know have target 0 (the padding of van de Ven's code).
    Shapes as in `hard_replay`.
    """
    target = torch.softmax(old[..., old_head.start : old_head.stop] / temperature, -1)
    log_q = torch.log_softmax(new[..., new_head.start : new_head.stop] / temperature, -1)
    log_q = log_q[..., old_head.start - new_head.start : old_head.stop - new_head.start]
    return -(target * log_q).sum(-1).mean() * temperature**2


def check_temperature(temperature: float) -> None:
    """Raises ValueError: not above 0 and finite."""
    if not 0 < temperature < math.inf:
        raise ValueError("temperature must be above 0 and finite")


def vae_losses(vae: VAE, x: Tensor, generator: torch.Generator) -> Tensor:
    """Negative ELBO divided by P of each row, (B,).

    mean over p of -log p(x_p | z)  +  1/P * 1/2 * sum_j (mu_j^2 + e^lv_j - 1 - lv_j)
    -log p(x_p | z): binary cross entropy where values lie in [0, 1] (Bernoulli, the LGR
    code's), else half the squared error of standardised values (Gaussian, less its constant).
    x float (B, P).  Kingma & Welling 2014; the division by P is the LGR code's.
    """
    mean, log_variance = vae.encode(x)
    noise = torch.empty_like(mean).normal_(generator=generator)
    raw = vae.decode_raw(mean + noise * torch.exp(0.5 * log_variance))
    if vae.unit:
        misfit = bernoulli_misfit(raw, x)
    else:
        misfit = 0.5 * (raw - vae.standardised(x)).square().mean(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return misfit + divergence / x.shape[1]


def bernoulli_misfit(raw: Tensor, x: Tensor) -> Tensor:
    """Binary cross entropy of sigmoid(raw) with x in [0, 1], mean of each row: (B, P) -> (B,)."""
    found: Tensor = _BernoulliMisfit.apply(raw, x)
    return found


class _BernoulliMisfit(torch.autograd.Function):
    """softplus(raw) - x raw: torch's own function goes over memory about twice as often, and it
    is the largest step that is no matrix product.  The gradient has the same bits."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(raw, x)
        return functional.softplus(raw).addcmul_(raw, x, value=-1).mean(1)

    @staticmethod
    def backward(ctx: Any, of_row: Tensor) -> tuple[Tensor, None]:
        raw, x = ctx.saved_tensors
        of_value = (of_row / raw.shape[1])[:, None]
        return torch.sigmoid(raw).sub_(x).mul_(of_value), None
