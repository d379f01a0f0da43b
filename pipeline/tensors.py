"""Safetensors, written here: `save_file` makes files that only their owner can read (safetensors
issue 782) under temporary names of its own, `save` holds all bytes twice, and both put metadata
in an order that is another each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.files import write_atomically

HEADER_LIMIT = 8_000_000
"""Bytes of JSON; a longer header is neither written nor read."""

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Those that numpy has too, by their names in safetensors."""


def write_tensors(path: Path, metadata: dict[str, str], tensors: Mapping[str, Tensor]) -> None:
    """One file, whole or not there; equal bytes for equal tensors on the CPU.

    Raises:
        OSError: it cannot be written; what was there is as it was.
        ValueError: another dtype, or a header that is too long.
    """
    # Biggest numbers first keeps each tensor aligned to its own.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": metadata}
    stop = 0
    for name in names:
        tensor = tensors[name]
        start, stop = stop, stop + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": dtype_of(name, tensor),
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
    packed = json.dumps(header).encode()
    packed += b" " * (-len(packed) % 8)
    if len(packed) > HEADER_LIMIT:
        raise ValueError(f"{path}: the header is longer than {HEADER_LIMIT} bytes")

    def fill(handle: BinaryIO) -> None:
        handle.write(len(packed).to_bytes(8, "little") + packed)
        for name in names:
            handle.write(bytes_of(tensors[name]))

    write_atomically(path, fill)


def bytes_of(tensor: Tensor) -> memoryview:
    """A CPU tensor's values in C order; its own memory where that is what it holds."""
    if not tensor.numel():  # numpy's empty ones have strides that torch cannot look through
        return memoryview(b"")
    flat: NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return flat.data


def dtype_of(name: str, tensor: Tensor) -> str:
    """Its name in safetensors.

    Raises:
        ValueError: none that is written.
    """
    if tensor.dtype not in DTYPES:
        raise ValueError(
            f"{name} is {tensor.dtype}; what is written is {', '.join(DTYPES.values())}"
        )
    return DTYPES[tensor.dtype]
