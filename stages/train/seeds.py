"""All randomness of a run from one seed: named streams, never a global generator."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *name: object, device: str = "cpu") -> torch.Generator:
    """A random stream of its own for each (seed, name).

    Streams do not depend on the order in which they are asked for, so a
    strategy that draws more does not shift what another one sees: strategies
    with the same seed meet the same batches.
    """
    text = "/".join(str(part) for part in (seed, *name))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    if device == "meta":  # shapes only: nothing will be drawn
        device = "cpu"
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
