"""Principal components of a few long rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.train.products import unrounded

_NOUGHT = 1e-10
"""Of the largest: a share of the variance that is rounding."""


@dataclass(frozen=True)
class Components:
    axes: Tensor
    """float32 (D, k), orthonormal, the one with most variance first; nought where there is none
    left.  Of each, the value that is largest in size is positive."""
    explained: Tensor
    """float32 (k,), share of the variance of the rows that were fitted; nought without any."""

    @unrounded()
    def scores(self, x: Tensor) -> Tensor:
        """Centred rows (n, D) -> float32 (n, k)."""
        return x @ self.axes


@unrounded()
def fit(x: Tensor, most: int) -> Components:
    """`x`: centred rows float32 (n, D), n at least 1; the first `most` components, fewer where
    there are fewer rows or values.

    By the smaller of the two products of x with itself: memory is that and D x k.
    """
    rows, dim = x.shape
    k = min(most, rows, dim)
    wide = rows < dim
    product = (x @ x.T if wide else x.T @ x).double()
    values, vectors = torch.linalg.eigh(product)
    values, vectors = values.flip(0)[:k].clamp_min(0), vectors.flip(1)[:, :k]
    real = values > _NOUGHT * values[0].clamp_min(1e-300)
    if wide:
        scale = torch.where(real, values.rsqrt(), 0.0)
        axes = x.T @ (vectors * scale).float()
    else:
        axes = (vectors * real).float()
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    total = product.diagonal().sum()
    explained = torch.where(real, values, 0.0) / total if total > 0 else torch.zeros(k)
    return Components(axes * torch.where(largest < 0, -1.0, 1.0), explained.float())
