"""Convolutions in oneDNN's own layout, with the addition and the activation that follow in them.

PyTorch lays a filter out anew in every call, and its ReLU and addition read
and write everything once more.  These are the operations that torch.compile
uses on a processor; they need no compiler.  Where they are missing (other
processors than x86, other builds) the network stays as it is.
"""

from __future__ import annotations

import operator
import platform

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from stages.extract.folding import bypass, module_of, only_user, own_module_of, shape_of

_Activation = tuple[str, list[float]]
_NONE: _Activation = ("none", [])
_MODULES: dict[type[nn.Module], _Activation] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Sigmoid: ("sigmoid", []),
    nn.Hardswish: ("hardswish", []),
    nn.Hardsigmoid: ("hardsigmoid", []),
}
_FUNCTIONS = (functional.relu, torch.relu)
_ADDITIONS = (operator.add, operator.iadd, torch.add)


def available() -> bool:
    """These operations are there."""
    names = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch._C._has_mkldnn
        and all(hasattr(torch.ops.mkldnn, name) for name in names)
    )


class PackedConv(nn.Module):
    """A convolution, then an addition if there is something to add, then an activation."""

    def __init__(self, conv: nn.Conv2d, shape: tuple[int, ...], activation: _Activation) -> None:
        """`shape`: (B, C, H, W) of what it will mostly see."""
        super().__init__()
        self._how = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        # No parameters: they live where oneDNN keeps them, and nothing else can read them.
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._how, shape)
        self._bias = None if conv.bias is None else conv.bias.detach()
        self._activation, self._numbers = activation

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """float32 (B, C, H, W); the sum is put in the place of `added`."""
        ops, rest = torch.ops.mkldnn, (self._weight, self._bias, *self._how)
        if added is None:
            out: Tensor = ops._convolution_pointwise(x, *rest, self._activation, self._numbers, "")
        else:
            after = None if self._activation == "none" else self._activation
            out = ops._convolution_pointwise_.binary(
                added, x, *rest, "add", 1.0, after, self._numbers, ""
            )
        return out


def pack(network: fx.GraphModule, batch: dict[fx.Node, int]) -> None:
    """In place, on a processor; `batch`: how many crops at a time each node will see.  The shapes
    must stand at its nodes (ShapeProp)."""
    for node in list(network.graph.nodes):
        conv = own_module_of(node)
        if isinstance(conv, nn.Conv2d) and conv.padding_mode == "zeros":
            if isinstance(conv.padding, str) or conv.weight.dtype != torch.float32:
                continue
            source = node.args[0]
            assert isinstance(source, fx.Node)
            shape = (batch[node], *shape_of(source)[1:])
            activation = _take_activation(node)
            if activation is _NONE:
                activation = _take_addition(node)
            network.set_submodule(str(node.target), PackedConv(conv, shape, activation))
    network.graph.lint()
    network.recompile()


def _take_activation(node: fx.Node) -> _Activation:
    """The activation that follows `node`, which is taken out of the graph."""
    user = only_user(node)
    if user is None:
        return _NONE
    module = module_of(user)
    found = _NONE if module is None else _MODULES.get(type(module), _NONE)
    if user.op == "call_function" and user.target in _FUNCTIONS:
        found = ("relu", [])
    if found is not _NONE:
        bypass(user)
    return found


def _take_addition(node: fx.Node) -> _Activation:
    """Add what is added to the output of `node` in it; the activation that follows, if one does."""
    total = only_user(node)
    if total is None or total.op != "call_function" or total.target not in _ADDITIONS:
        return _NONE
    other = next((arg for arg in total.args if arg is not node), None)
    if len(total.args) != 2 or total.kwargs or not isinstance(other, fx.Node):
        return _NONE
    if shape_of(other) != shape_of(node) or not _may_be_overwritten(other, node, total):
        return _NONE
    node.args = (node.args[0], other)
    total.replace_all_uses_with(node)
    total.graph.erase_node(total)
    return _take_activation(node)


def _may_be_overwritten(other: fx.Node, by: fx.Node, total: fx.Node) -> bool:
    """A convolution or a max-pooling made `other` afresh, and all others that read it have done so
    before `by`, at which it will be lost."""
    places = {node: place for place, node in enumerate(other.graph.nodes)}
    read = [user for user in other.users if user is not total]
    fresh = isinstance(module_of(other), PackedConv | nn.MaxPool2d)
    return fresh and all(places[node] < places[by] for node in [other, *read])
