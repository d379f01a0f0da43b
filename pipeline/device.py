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


_WEIGHTS_A_THREAD = 200_000
"""Of the largest layer.  Below, a second thread gains nothing (lgr on 128-d latents, two idle
cores) and costs much where another program has its core, for threads wait for each other in
each step; above it does gain (none on 4096-d latents: 3.8 s a seed against 6.5 s)."""


def threads_for(weights: int) -> int:
    """Threads of the processor for networks whose largest layer has so many weights: one for
    small ones, torch's own choice for large ones."""
    return 1 if weights < _WEIGHTS_A_THREAD else torch.get_num_threads()
