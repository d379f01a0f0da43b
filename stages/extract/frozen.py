"""A frozen network, laid out for speed when it sees its first crops.

Its values are those of the plain network but for the last bits (the tests hold
1e-5).  What is changed: folding.py, and on a processor packing.py, staging.py.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from stages.extract import packing
from stages.extract.folding import PROBE, fold
from stages.extract.forward import GROUP
from stages.extract.staging import pieces_of, staged


class Frozen(nn.Module):
    """The network in eval mode, for crops of the size of the first.  No gradient goes through."""

    def __init__(self, network: nn.Module) -> None:
        """`network` is used up: its weights are changed."""
        super().__init__()
        self._network: nn.Module = fx.symbolic_trace(network.eval())
        self._size: torch.Size | None = None
        self._once = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        """float32 (B, C, H, W) -> (B, ...), every time of the same C, H, W.

        Raises:
            ValueError: another size than the first, or a gradient is wanted.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError("No gradient goes through a frozen root: use torch.no_grad().")
        with self._once:
            if self._size is None:
                self._lay_out(x)
        if x.shape[1:] != self._size:
            raise ValueError(
                f"This root is for crops of {tuple(self._size or ())}, not {tuple(x.shape[1:])}."
            )
        out: Tensor = self._network(x)
        return out

    def _lay_out(self, x: Tensor) -> None:
        network = self._network
        assert isinstance(network, fx.GraphModule)
        with torch.inference_mode(False), torch.no_grad():
            ShapeProp(network).propagate(x.new_zeros(PROBE, *x.shape[1:]))
            fold(network)
            network.to(memory_format=torch.channels_last)
            if x.device.type == "cpu":
                pieces = pieces_of(network.graph, GROUP)
                if packing.available():
                    packing.pack(network, pieces)
                network = staged(network, pieces)
        self._network, self._size = network.eval(), x.shape[1:]
