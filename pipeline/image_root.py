"""Crops and the root in memory, for strategies that work on images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cache.errors import CacheMismatchError, Refused
from cache.reader import Cache
from stages.extract.backbones import cost
from stages.extract.recover import recover, refuse_other_latents
from stages.train.strategy import Images

_CHECKED = 32
"""Latents that are made again, to see that the root is the cache's."""


def load_images(
    latents: Cache,
    values: NDArray[np.float32],
    crops: Path | None,
    weights: str | None,
    device: str,
) -> tuple[Images, torch.Tensor]:
    """The root of `latents` (whose rows are `values`, float32 (N, D)), and the crop of each row.

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
        rows = latents.side("row")
        if not 0 <= rows.min() <= rows.max() < cache.manifest.rows:
            raise CacheMismatchError(f"{latents.path} names crops that {crops} does not have.")
        pictures = torch.from_numpy(cache.bulk()[rows])
    tap, root = recover(latents.manifest, weights)
    root.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = pictures.shape[1]
    channels = 1 if tap.grey else 3

    @torch.no_grad()  # not inference mode: the top learns from what comes out
    def through(pixels: torch.Tensor) -> torch.Tensor:
        return root.latents(pixels.view(-1, channels, side, side))

    def pixels(of: torch.Tensor) -> torch.Tensor:
        return root.pixels(of).flatten(1)

    spots = np.linspace(0, len(values) - 1, min(_CHECKED, len(values))).astype(np.int64)
    made = through(pixels(pictures[torch.from_numpy(spots)].to(device))).cpu().numpy()
    dtype = latents.manifest.columns[latents.manifest.bulk].dtype
    refuse_other_latents(made, values[spots], dtype)
    work = cost(tap, side).macs
    return Images(side, channels * side * side, pixels, through, work), pictures
