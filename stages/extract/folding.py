"""The same network in fewer operations, for crops of one size: same values but for the last bits.

    convolution, batch norm                  ->  convolution
    average pooling to more, flatten, linear ->  flatten, linear (fewer weights)

VGG-16's features of a 100 x 100 crop end at 3 x 3, and its pooling repeats and
averages them to 7 x 7: fc6 after it is a layer of 4608 inputs, not 25 088.
Everything is folded in double precision and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_IDLE = (nn.Dropout, nn.Identity)
_IDLE_FUNCTIONS = ("stochastic_depth", "dropout")
PROBE = 2
"""Crops that the shapes at the nodes are for: more than one, to tell B from numbers of its own."""
_ROWS = 16  # of a linear layer that are in double precision at a time: they fit a cache


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Of its output for PROBE crops; empty: it is no tensor."""
    shape: tuple[int, ...] = tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))
    return shape


def module_of(node: fx.Node) -> nn.Module | None:
    """What the node calls."""
    owner = node.graph.owning_module
    if node.op != "call_module" or owner is None:
        return None
    found: nn.Module = owner.get_submodule(str(node.target))
    return found


def own_module_of(node: fx.Node) -> nn.Module | None:
    """What the node calls, if nothing else calls it: it may be changed."""
    calls = sum(other.target == node.target for other in node.graph.nodes)
    return module_of(node) if calls == 1 else None


def only_user(node: fx.Node) -> fx.Node | None:
    """Who takes the node's output, where it is one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def bypass(node: fx.Node) -> None:
    """Whoever took its output takes its input."""
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    node.graph.erase_node(node)


def fold(network: fx.GraphModule) -> None:
    """In place; the shapes must stand at its nodes (ShapeProp)."""
    nodes: list[fx.Node] = list(network.graph.nodes)
    for node in nodes:
        if isinstance(module_of(node), _IDLE) or _is_idle(node):
            bypass(node)
    for node in list(network.graph.nodes):
        norm = module_of(node)
        before = node.args[0] if node.args else None
        if isinstance(norm, nn.BatchNorm2d) and isinstance(before, fx.Node):
            conv = own_module_of(before)
            if isinstance(conv, nn.Conv2d) and set(before.users) == {node}:
                _fold_norm(conv, norm)
                bypass(node)
    for node in list(network.graph.nodes):
        if isinstance(module_of(node), nn.AdaptiveAvgPool2d):
            _fold_pool(network, node)
    network.graph.lint()
    network.recompile()


def _is_idle(node: fx.Node) -> bool:
    """Functions that do nothing in eval mode."""
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _IDLE_FUNCTIONS


def _fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """In eval mode a batch norm multiplies each plane by one number and adds another."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("A batch norm of a root must have stored statistics.")

    def double(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.double()

    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(),
        double(conv.bias),
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        double(norm.weight),
        double(norm.bias),
    )
    conv.weight = nn.Parameter(weight.detach().float(), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().float(), requires_grad=False)


def _fold_pool(network: fx.GraphModule, pool: fx.Node) -> None:
    """pool -> flatten -> linear becomes flatten -> linear where that has fewer weights."""
    flat = only_user(pool)
    last = only_user(flat) if flat is not None and _flattens(flat) else None
    linear = None if last is None else own_module_of(last)
    if last is None or not isinstance(linear, nn.Linear):
        return
    before = pool.args[0]
    assert isinstance(before, fx.Node)
    inside, outside = _plane(before), _plane(pool)
    if inside[0] * inside[1] >= outside[0] * outside[1]:
        return
    network.set_submodule(str(last.target), folded_linear(linear, inside, outside))
    bypass(pool)


def _plane(node: fx.Node) -> tuple[int, int]:
    height, width = shape_of(node)[2:]
    return height, width


def _flattens(node: fx.Node) -> bool:
    """Is torch.flatten(x, 1), x.flatten(1) or nn.Flatten()."""
    module = module_of(node)
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    called = node.op == "call_method" and node.target == "flatten"
    called = called or (node.op == "call_function" and node.target is torch.flatten)
    return called and tuple(node.args[1:]) == (1,) and not node.kwargs


def folded_linear(
    linear: nn.Linear, inside: tuple[int, int], outside: tuple[int, int]
) -> nn.Linear:
    """`linear` after the adaptive average pooling of planes `inside` to planes `outside`, (h, w)
    each, as a linear layer of the planes before the pooling."""
    pixels = inside[0] * inside[1]
    weight = linear.weight
    planes = linear.in_features // (outside[0] * outside[1])
    units = torch.eye(pixels, dtype=torch.float64, device=weight.device).view(-1, 1, *inside)
    spread = nn.AdaptiveAvgPool2d(outside)(units).flatten(1)  # (inside, outside)
    made = weight.new_empty(linear.out_features, planes * pixels)
    for rows, into in zip(torch.split(weight, _ROWS), torch.split(made, _ROWS), strict=True):
        by_plane = rows.double().view(len(rows), planes, -1)
        into.copy_((by_plane @ spread.T).flatten(1))
    folded = nn.Linear(1, 1, device="meta")  # no storage for what is not kept
    folded.in_features, folded.out_features = planes * pixels, linear.out_features
    folded.weight = nn.Parameter(made, requires_grad=False)
    folded.bias = linear.bias
    return folded
