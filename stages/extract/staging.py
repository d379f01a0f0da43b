"""A network in stages, each of which goes through a group of crops in pieces that fit a cache.

The first maps of a network are large: of 32 crops VGG-16's take 82 MB each,
which are read from memory and for which the system hands out fresh pages
every time.  The last ones are small, and their weights large: there a whole
group shares one reading of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from stages.extract.folding import PROBE, shape_of

BYTES = 16_000_000
"""Input and output of a layer, for a piece."""


class Staged(nn.Module):
    """Stages in turn."""

    def __init__(self, stages: list[nn.Module], pieces: list[int]) -> None:
        """`pieces`: crops at a time, for each stage."""
        super().__init__()
        self._stages, self._pieces = nn.ModuleList(stages), pieces

    def forward(self, x: Tensor) -> Tensor:
        for stage, piece in zip(self._stages, self._pieces, strict=True):
            parts = [stage(part) for part in torch.split(x, piece)]
            x = torch.cat(parts) if len(parts) > 1 else parts[0]
        return x


def pieces_of(graph: fx.Graph, most: int) -> dict[fx.Node, int]:
    """How many crops at a time each node sees: powers of 2 up to `most`, never fewer than before;
    they change only where one tensor is all that is handed on."""
    nodes = list(graph.nodes)
    pieces: dict[fx.Node, int] = {}
    least = most
    for start, stop in reversed(_between_cuts(nodes)):
        least = min([least, *(_piece(node, most) for node in nodes[start:stop])])
        pieces |= dict.fromkeys(nodes[start:stop], least)
    return pieces


def _between_cuts(nodes: list[fx.Node]) -> list[tuple[int, int]]:
    """Where the list can be cut: all that comes later needs of what came before is one tensor."""
    places = {node: place for place, node in enumerate(nodes)}
    needed = 0  # the last place that needs something from before this one
    stops = []
    for place, node in enumerate(nodes[:-1]):
        if needed <= place and shape_of(node)[:1] == (PROBE,) and node.op != "placeholder":
            stops.append(place + 1)
        needed = max([needed, *(places[user] for user in node.users)])
    stops.append(len(nodes))
    return list(zip([0, *stops], stops, strict=False))


def _piece(node: fx.Node, most: int) -> int:
    around = [shape_of(one) for one in (node, *node.all_input_nodes)]
    size = 4 * sum(math.prod(shape) for shape in around if shape) // PROBE
    piece = most
    while piece > 1 and piece * size > BYTES:
        piece //= 2
    return piece


def staged(network: fx.GraphModule, pieces: dict[fx.Node, int]) -> nn.Module:
    """`network` as stages, one for each number of crops in `pieces`."""
    sizes = sorted({pieces[node] for node in network.graph.nodes})
    stages: list[nn.Module] = []
    before: fx.Node | None = None
    for size in sizes:
        graph = fx.Graph()
        copies = {} if before is None else {before: graph.placeholder("handed_on")}
        nodes = [node for node in network.graph.nodes if pieces[node] == size]
        for node in nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        if nodes[-1].op != "output":
            graph.output(copies[nodes[-1]])
        stages.append(fx.GraphModule(network, graph))
        before = nodes[-1]
    return Staged(stages, sizes)
