"""Crops and the root in memory, for strategies that work on images."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cache.errors import CacheMismatchError, Refused
from cache.reader import Cache
from cache.source import Place
from stages.extract.backbones import cost
from stages.extract.recover import move, recover, refuse_other_latents
from stages.train.products import unrounded
from stages.train.strategy import Images

_CHECKED = 32
"""Latents that are made again, to see that the root is the cache's."""


class Values(Protocol):
    """Latents, in memory or to be read: (N, D)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float32]: ...


def load_images(
    latents: Cache,
    values: Values,
    crops: Place | None,
    weights: str | None,
    device: str,
) -> tuple[Images, torch.Tensor]:
    """The root of `latents` (whose rows are `values`), and the crop of each row.

    Raises:
        Refused: no crops given, other crops, other weights.
    """
    if crops is None:
        raise Refused(
            "This strategy works on images: name the crop cache that the latents were made of, "
            "--crops PATH."
        )
    with Cache(crops) as cache:
        cache.expect("crops")
        if cache.manifest.fingerprint != latents.manifest.settings.get("crops"):
            raise CacheMismatchError(f"{latents.path} was not made of the crops in {crops}.")
        pictures = _pictures(latents, cache)
    tap, root = recover(latents.manifest, weights)
    move(root, device)
    side = pictures.shape[1]
    costs = cost(tap, side)  # before the root is asked: it may not take crops of this size
    if costs.dim != values.shape[1]:
        raise CacheMismatchError(
            f"{latents.path} holds latents of {values.shape[1]} values, its root gives {costs.dim}."
        )
    channels = 1 if tap.grey else 3

    @unrounded()  # as the cache was made
    @torch.no_grad()  # not inference mode: the top learns from what comes out
    def through(pixels: torch.Tensor) -> torch.Tensor:
        return root.latents(pixels.view(-1, channels, side, side))

    def pixels(of: torch.Tensor) -> torch.Tensor:
        return root.pixels(of).flatten(1)

    rows = values.shape[0]
    spots = np.linspace(0, rows - 1, min(_CHECKED, rows)).astype(np.int64)
    stored = values[spots]
    made = through(pixels(pictures[torch.from_numpy(spots)].to(device))).cpu().numpy()
    dtype = latents.manifest.columns[latents.manifest.bulk].dtype
    refuse_other_latents(made, stored, dtype)
    return Images(side, channels * side * side, pixels, through, costs.macs), pictures


def _pictures(latents: Cache, crops: Cache) -> torch.Tensor:
    """The crop of each latent, uint8 (N, S, S, 3).

    Raises:
        CacheMismatchError: the columns are not those of a latent and a crop cache.
    """
    rows = crop_rows(latents, crops)
    everything = crops.bulk()
    if not np.array_equal(rows, np.arange(len(everything))):  # else a copy for nothing
        everything = everything[rows]
    return torch.from_numpy(everything)


def crop_rows(latents: Cache, crops: Cache) -> NDArray[np.int64]:
    """The row of each latent's crop, int64 (N,).

    Raises:
        CacheMismatchError: the columns are not those of a latent and a crop cache.
    """
    row = latents.manifest.columns.get("row")
    if row is None or len(row.shape) != 1 or not row.dtype.startswith("int"):
        raise CacheMismatchError(f"{latents.path} does not say which crop each latent is of.")
    side_of(crops)
    rows: NDArray[np.int64] = latents.side("row").astype(np.int64)
    if not 0 <= rows.min() <= rows.max() < crops.manifest.rows:
        raise CacheMismatchError(f"{latents.path} names crops that {crops.path} does not have.")
    return rows


def side_of(crops: Cache) -> int:
    """Width and height of the crops in pixels.

    Raises:
        CacheMismatchError: they are not square, or not in three colours.
    """
    pixels = crops.manifest.columns[crops.manifest.bulk]
    side = pixels.shape[1] if len(pixels.shape) > 1 else 0
    if (pixels.dtype, pixels.shape[1:]) != ("uint8", (side, side, 3)):
        raise CacheMismatchError(f"{crops.path} does not hold square crops in three colours.")
    return side
