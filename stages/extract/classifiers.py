"""torchvision's image classifiers: built without storage, cut at any layer.

A network is built as a *skeleton*: its weights have shapes and no storage
(the meta device), so that a 1 GB network costs milliseconds; what a
constructor computes (tables of relative positions, ...) has its values.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from cache.errors import Refused
from stages.extract.lenet import LeNetRoot

_SHOWN = 4  # layers or names that an error text lists
# Pre-trained, these two bring ImageNet-normalised input to what they were trained with.
_INCEPTION = {"init_weights": False, "transform_input": True}
_OPTIONS = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}


@functools.cache
def names() -> tuple[str, ...]:
    """All classifiers that torchvision has; detectors and the like are in sub-modules of its."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def skeleton(name: str) -> nn.Module:
    """The whole network, in eval mode, in torchvision's names."""
    if name == "lenet":
        with _without_storage():
            return LeNetRoot().eval()
    if name not in names():
        raise Refused(f"{name!r} is no image classifier of torchvision.{close(name, names())}")
    with _without_storage():
        model: nn.Module = torchvision.models.get_model(
            name, weights=None, **_OPTIONS.get(name, {})
        )
    return model.eval()


class _EmptyIsMeta(TorchFunctionMode):
    """Layers allocate their weights by torch.empty, and compute everything else."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@contextlib.contextmanager
def _without_storage() -> Iterator[None]:
    # Some constructors draw numbers: the caller's global stream must not notice.
    with torch.random.fork_rng(devices=[]), _EmptyIsMeta():
        yield


@torch.no_grad()
def give_storage(network: nn.Module) -> nn.Module:
    """The same network with weights on the CPU; all NaN, so that none is forgotten unseen."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                setattr(module, name, nn.Parameter(_not_a_number(parameter)))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, _not_a_number(buffer))
    return network


def _not_a_number(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan, device="cpu")


@functools.cache
def layers(name: str) -> tuple[str, ...]:
    """Everything in the network that can be named, in the order of its work.

    Raises:
        Refused: torchvision cannot trace the network.
    """
    try:
        _, found = get_graph_node_names(skeleton(name), suppress_diff_warning=True)
    except Refused:
        raise
    except Exception as error:  # whatever a network does that cannot be traced
        raise Refused(f"{name} cannot be cut at a layer: {first_line(error)}") from None
    return tuple(found[1:])  # the first is the input


def check_layer(name: str, layer: str) -> None:
    """Raise Refused, with what is near, unless the network has this layer."""
    known = layers(name)
    if not any(node == layer or node.startswith(f"{layer}.") for node in known):
        near = close(layer, {*known, *_modules(known)})
        raise Refused(f"{name} has no layer {layer!r}.{near} Its last ones are {last(name)}.")


def last(name: str) -> str:
    """The layers before the class scores, in words; the last is the nearest to them."""
    return ", ".join(_modules(layers(name))[:-1][-_SHOWN:])


def _modules(nodes: Iterable[str]) -> list[str]:
    """Node names without what happens inside of a block: its name gives its output."""
    return list(
        dict.fromkeys(
            node if node.rpartition(".")[2].isdigit() else node.rpartition(".")[0] or node
            for node in nodes
        )
    )


def cut_at(name: str, layer: str) -> nn.Module:
    """The network up to this layer, as one that returns the layer's output.

    A skeleton; parameter names are torchvision's.

    Raises:
        Refused: no such network or layer.
    """
    check_layer(name, layer)
    model = skeleton(name)
    cut = create_feature_extractor(model, {layer: "latent"}, suppress_diff_warning=True)
    graph: fx.Graph = cut.eval_graph
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = (output.args[0]["latent"],)
    network = fx.GraphModule(cut, graph, class_name=name).eval()
    for constant, value in list(network.named_buffers(recurse=False)):
        if constant.startswith("_tensor_constant"):  # computed in tracing: in nobody's state dict
            delattr(network, constant)
            network.register_buffer(constant, value, persistent=False)
    return network


def close(wanted: str, known: Iterable[str]) -> str:
    """A question for the end of an error text, or nothing where nothing is near."""
    near = difflib.get_close_matches(wanted, sorted(known), n=_SHOWN)
    return f" Did you mean {', '.join(near)}?" if near else ""


def first_line(error: Exception) -> str:
    """What a network says, without the names that tracing gives its values."""
    words = re.sub(r" but got Proxy\(.*?\)", "", str(error).strip())
    return (words.splitlines() or [type(error).__name__])[0]
