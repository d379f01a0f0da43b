"""LGR as its released code runs it: the root in the loop.

Written anew from a description of that code, with lgr-pipe's networks and losses.  Each step reads
its images from their files, resizes them, passes them through the root, takes a step of the top
and one of the VAE; evaluation passes every test image through the root again.  What of the
released code costs time and changes nothing (probes of memory in each step, reading each loss) is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.train.losses import hard_replay, vae_losses
from stages.train.networks import VAE, Top

Pass = Callable[[Tensor], Tensor]
"""float32 (B, 3, 100, 100) in [0, 1] -> latents float32 (B, D)."""


class Files(Dataset[Any]):
    """Images on disk, as torchvision's ImageFolder has them."""

    def __init__(self, paths: Sequence[Path], targets: Sequence[int]) -> None:
        self._paths, self.targets = paths, targets
        self._seen_as = transforms.Compose([transforms.Resize((100, 100)), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        with Image.open(self._paths[row]) as image:
            return self._seen_as(image.convert("RGB")), self.targets[row]

    def batches(self, rows: Tensor, size: int) -> DataLoader[Any]:
        """`rows` in their order, without workers, as the released code loads on a GPU too."""
        return DataLoader(self, batch_size=size, sampler=rows.tolist())


class RootInLoop:
    """The run's networks; `root` is asked in every step."""

    def __init__(self, root: Pass, dim: int, heads: Sequence[range], lr: float) -> None:
        stream = torch.Generator().manual_seed(0)
        classes = heads[-1].stop
        self._root, self._heads, self._stream = root, heads, stream
        self._top, self._vae = Top(dim, classes, stream), VAE(dim, stream)
        self._old_top, self._old_vae = Top(dim, classes, stream), VAE(dim, stream)
        self._top_adam = torch.optim.Adam(self._top.parameters(), lr=lr)
        self._vae_adam = torch.optim.Adam(self._vae.parameters(), lr=lr)

    def step(self, images: Tensor, targets: Tensor, task: int) -> None:
        """An iteration of task `task`, 0-based."""
        with torch.inference_mode():
            latents = self._root(images)
        latents = latents.clone()  # outside, so that it may be learnt from
        replayed = self._old_vae.sample(len(latents), self._stream) if task else None
        self._step_top(latents, targets, replayed, task)
        self._step_vae(latents, replayed, task)

    def _step_top(self, latents: Tensor, targets: Tensor, replayed: Tensor | None, t: int) -> None:
        head, share = self._heads[t], 1 / (t + 1)
        logits = self._top(latents, self._stream)[:, head.start : head.stop]
        loss = torch.nn.functional.cross_entropy(logits, targets - head.start)
        if replayed is not None:
            with torch.no_grad():
                old = self._old_top(replayed)
            new = self._top(replayed, self._stream)
            each = [hard_replay(new, old, known, known) for known in self._heads[:t]]
            loss = share * loss + (1 - share) * sum(each) / t
        _step(self._top_adam, loss)

    def _step_vae(self, latents: Tensor, replayed: Tensor | None, t: int) -> None:
        share = 1 / (t + 1)
        loss = vae_losses(self._vae, latents, self._stream).mean()
        if replayed is not None:
            other = vae_losses(self._vae, replayed, self._stream).mean()
            loss = share * loss + (1 - share) * other
        _step(self._vae_adam, loss)

    def close_task(self) -> None:
        self._old_top.load_state_dict(self._top.state_dict())
        self._old_vae.load_state_dict(self._vae.state_dict())


def _step(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()
