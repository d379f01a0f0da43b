"""The root that made a latent cache, again: for strategies that generate images, and to see
whether the latents are what it gives.

What it was stands in the cache's manifest, which is not trusted: the weights
must have the digest that stands there, and the root must give the cache's own
latents for its own crops.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.errors import CacheMismatchError, Refused
from cache.schema import Manifest
from stages.extract.backbones import Activation, Normalize, Tap, choose
from stages.extract.root import Root
from stages.extract.weights import Weights, load, make_root

_TOLERANCE = {"float32": 1e-4, "float16": 2e-3}
"""Difference to a stored latent, per unit of its size, that 99 of 100 values keep within: other
processors add in another order, and calibration divides by deviations that can be tiny (double
precision moves 1 of 10 000 values of a random MobileNet-V2 by up to 4e-3, the others by 6e-5;
another root moves most of them by 0.1)."""


class _WeightsWere(BaseModel):
    model_config = ConfigDict(extra="ignore")

    kind: str
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    member: str = ""


class _RootWas(BaseModel):
    """`settings.root` of a latent cache."""

    model_config = ConfigDict(extra="ignore")

    backbone: str = Field(max_length=200)
    layer: str = Field(max_length=200)
    weights: _WeightsWere
    activation: Activation
    normalize: Normalize


def recover(manifest: Manifest, weights: str | None) -> tuple[Tap, Root]:
    """The root, on the CPU.  `weights`: their name or FILE where the cache's came from a file.

    Raises:
        Refused: weights that are not given, cannot be read or are others.
    """
    try:
        was = _RootWas.model_validate(manifest.settings.get("root"))
    except ValidationError:
        raise CacheMismatchError(
            "The latent cache does not say which root made it: nothing can go through it again."
        ) from None
    tap = choose(was.backbone, was.layer)
    found = load(tap, weights or _named(was), was.weights.seed)
    _refuse_others(found, manifest)
    root = make_root(tap, found, was.activation, was.normalize)
    if found.needs_calibration:
        root.calibrate(*_calibration(manifest))
    return tap, root


def move(root: Root, device: str) -> Root:
    """To the device, and laid out as the root was when it made the cache."""
    root.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if root.shift is not None and root.scale is not None:
        root.calibrate(root.shift.to(device), root.scale.to(device))
    return root


def _named(was: _RootWas) -> str:
    if was.weights.kind == "random":
        return "random"
    if was.weights.kind == "imagenet":
        return was.weights.member.rpartition(".")[2] or "imagenet"
    raise Refused(
        f"These latents were made with weights from a file: name it with --weights FILE, "
        f"so that images can go through the same {was.backbone} again."
    )


def _refuse_others(found: Weights, manifest: Manifest) -> None:
    asked, is_ = manifest.settings["root"]["weights"], found.fingerprinted
    if asked != is_:
        raise CacheMismatchError(
            f"These are not the weights that made the latents: {is_}, the cache says {asked}. "
            "Name the right ones with --weights."
        )


def _calibration(manifest: Manifest) -> tuple[torch.Tensor, torch.Tensor]:
    stored = manifest.info.calibration or {}
    dim = manifest.columns[manifest.bulk].shape[1]
    return _vector(stored.get("mean"), dim), _vector(stored.get("deviation"), dim)


def _vector(text: object, dim: int) -> torch.Tensor:
    try:
        values = np.frombuffer(base64.b64decode(str(text), validate=True), dtype="<f4")
    except (ValueError, binascii.Error):
        values = np.empty(0, dtype="<f4")
    if len(values) != dim or not np.isfinite(values).all():
        raise CacheMismatchError("The latent cache does not hold the calibration of its root.")
    return torch.from_numpy(values.astype(np.float32))


def refuse_other_latents(
    made: NDArray[np.float32], stored: NDArray[np.float32], dtype: str
) -> None:
    """`made` by the root that was recovered, `stored` in the cache, (k, D) of the same crops.

    Raises:
        CacheMismatchError: it is another root.
    """
    if dtype not in _TOLERANCE:
        raise CacheMismatchError(f"The latent cache holds {dtype}, which no root gives.")
    off = float(np.quantile(np.abs(made - stored) / np.maximum(1, np.abs(stored)), 0.99))
    if not off <= _TOLERANCE[dtype]:
        raise CacheMismatchError(
            f"The root does not give the cache's latents for its own crops (1 in 100 values "
            f"differs by more than {off:.3g}): it was made by another version, or its crops are "
            "others."
        )
