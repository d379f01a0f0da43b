"""Our Adam is torch's, bit by bit, and goes on after a copy of its state."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from stages.train.adam import Adam


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3, bias=False))


def steps(network: nn.Module, optimiser: Adam | torch.optim.Adam, count: int, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimiser.zero_grad()
        network(torch.rand(5, 12, generator=stream)).square().mean().backward()
        optimiser.step()


def test_bits_are_those_of_torch_optim() -> None:
    ours, theirs = make_network(), make_network()
    start = deepcopy(ours.state_dict())
    adam = Adam(ours.parameters(), 3e-3)
    other = torch.optim.Adam(theirs.parameters(), lr=3e-3, fused=True)
    steps(ours, adam, 20, 0)
    steps(theirs, other, 20, 0)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
        assert not torch.equal(start[name], value)
    for k, moments in other.state_dict()["state"].items():
        assert adam.state[k].keys() == moments.keys()
        assert all(torch.equal(adam.state[k][name], moments[name]) for name in moments)


def test_parameters_without_a_gradient_stay() -> None:
    network = make_network()
    adam = Adam(network.parameters(), 1.0)
    before = deepcopy(network.state_dict())
    network[0].weight.grad = torch.ones_like(network[0].weight)
    adam.step()
    assert adam.state.keys() == {0}
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"0.weight"}


def test_a_loaded_state_is_a_copy_and_goes_on() -> None:
    network = make_network()
    adam = Adam(network.parameters(), 1e-2)
    steps(network, adam, 3, 0)
    twin = deepcopy(network)
    again = Adam(twin.parameters(), 1e-2)
    again.load_state(adam.state)
    steps(network, adam, 3, 1)
    steps(twin, again, 3, 1)
    assert all(map(torch.equal, twin.state_dict().values(), network.state_dict().values()))
