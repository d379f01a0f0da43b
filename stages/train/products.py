"""Matrix products in full, where a run's are rounded (`train --precision`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def unrounded() -> Iterator[None]:
    """In here products are those of float32, whatever they were: for what must not depend on how
    a run learns.  Also as a decorator, `@unrounded()`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
