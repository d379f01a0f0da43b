"""Which processor the networks run on."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable

import torch

from cache.errors import Refused
from stages.train.products import unrounded


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
        torch.backends.cudnn.allow_tf32 = False
    elif wanted != "cpu":
        raise Refused(f"--device must be auto, cpu or cuda, got {wanted!r}.")
    # Latents must not depend on the machine; `multiply` is for what is learnt from them.
    torch.set_float32_matmul_precision("highest")
    return wanted


_MADE_FOR = {"tf32": "cuda", "bf16": "cpu"}
_CALLED = {"cuda": "a GPU", "cpu": "a processor"}
_OF_TORCH = {"fp32": "highest", "tf32": "high", "bf16": "medium"}


def multiply(precision: str, device: str) -> None:
    """From now on, matrix products of float32 with factors rounded to this `precision`: "fp32"
    (not at all), "tf32" (10 bits behind the point), "bf16" (7 bits).  Sums, and whatever is no
    matrix product, stay float32, and so do products that torch finds too small (on a processor
    32768 multiplications and fewer): a row's answer may depend on how many are answered with it.

    Raises:
        Refused: the device, "cpu" or "cuda", has no such products.
    """
    meant = _MADE_FOR.get(precision, device)
    if meant != device:
        other = next(name for name, its in _MADE_FOR.items() if its == device)
        raise Refused(
            f"--precision {precision} is for {_CALLED[meant]}; this run is on {_CALLED[device]}: "
            f"use --precision {other} or fp32."
        )
    torch.set_float32_matmul_precision(_OF_TORCH[precision])
    if precision != "fp32" and not _rounds(device):
        torch.set_float32_matmul_precision("highest")
        raise Refused(
            f"--precision {precision}: {_CALLED[device]} of this kind multiplies nothing but "
            "fp32. Leave the option out."
        )


def refuse_precisions(precisions: Iterable[str], device: str) -> None:
    """Before anything is run with them.

    Raises:
        Refused: as `multiply`.
    """
    with unrounded():
        for precision in dict.fromkeys(precisions):
            multiply(precision, device)


def _rounds(device: str) -> bool:
    """Whether products are made with rounded factors: 1 + 2^-12 is then 1."""
    side = 256
    factor = torch.full((side, side), 1 + 2.0**-12, device=device)
    return bool((factor @ factor == side).all())


_WEIGHTS_A_THREAD = 200_000
"""Of the largest layer.  Two idle cores against one (128 rows and, for lgr+d, 128 replayed):

    latents     128-d    512-d    1280-d    4096-d
    none        1.06     1.16     1.19      1.6
    lgr+d       1.22     1.42     1.56      1.7

Below, a second thread gains little and costs much where another program has its core, for threads
wait for each other in each step."""


def threads_for(weights: int) -> int:
    """Threads of the processor for networks whose largest layer has so many weights: one for
    small ones, torch's own choice for large ones."""
    return 1 if weights < _WEIGHTS_A_THREAD else torch.get_num_threads()


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
_KEPT = 1 << 30
"""Bytes: more than any tensor of a step takes."""


def prepare(threads: int) -> None:
    """The processor for learning; nothing that is computed changes.

    Units that have died get no gradient, and Adam's first moments of their weights shrink until
    they are denormal, where they stay: four in ten of all after 1500 iterations of lgr+d (512-d,
    learning rate 1e-3).  Arithmetic on such numbers takes 20 times as long, so they
    become nought here.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """A step takes and frees the same large blocks each time, and so does a root's pass.  glibc
    gives some of them back to the system, which must clear them page by page when they are taken
    again (lgr+d on 4096-d latents: up to 3 ms of 40; mobilenet_v2: a tenth of a pass); so what is
    freed is kept for the next."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def return_freed_memory() -> None:
    """What was taken for the record alone is not to be found in what learning takes later."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
