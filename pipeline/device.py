"""Which processor the networks run on."""

from __future__ import annotations

import torch

from cache.errors import Refused


def choose(wanted: str) -> str:
    """auto: cuda where there is one, else cpu.

    Raises:
        Refused: no such device here.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda":
        if not torch.cuda.is_available():
            raise Refused(
                "--device cuda: this machine has no usable GPU. Use --device cpu or auto."
            )
        # Latents must not depend on the card: full float32, no TF32.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    elif wanted != "cpu":
        raise Refused(f"--device must be auto, cpu or cuda, got {wanted!r}.")
    return wanted


_MACS_A_THREAD = 150_000_000
"""Of an iteration.  Below, a second thread gains little (two idle cores: lgr on 128-d latents
nothing, lr on 4096-d a third of the time) and costs much where another program has its core
(lr: eight times the time): threads wait for each other, each step."""


def threads_for(macs: int) -> int:
    """Threads of the processor for iterations of so many multiply-accumulates: one for small
    networks, torch's own choice for large ones."""
    return 1 if macs < _MACS_A_THREAD else torch.get_num_threads()
