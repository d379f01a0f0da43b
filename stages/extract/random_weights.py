"""Roots without pre-training: random filters from a seed."""

from __future__ import annotations

import torch
from torch import nn

from stages.extract.backbones import Tap, skeleton
from stages.extract.classifiers import give_storage

RANDOM_VERSION = 1
"""Part of the fingerprint: raise it when `random_network` gives other weights."""
_NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def random_network(tap: Tap, seed: int) -> nn.Module:
    """A network of random filters, the same for a seed on every machine.

    He's initialisation (fan-in); the filters of the first layer have their
    mean taken out, so that they see edges and not how bright the picture is:
    without that more than half of the variance of random VGG-16 latents is
    one direction, lighting and skin.
    """
    network = give_storage(skeleton(tap))
    generator = torch.Generator().manual_seed(seed)
    first = True
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_in", nonlinearity="relu", generator=generator
            )
            if first and isinstance(module, nn.Conv2d):
                module.weight.data -= module.weight.data.mean((2, 3), keepdim=True)
                first = False
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, _NORMS):
            module.reset_parameters()
        else:
            _fill_own(module, generator)
    return network


def _fill_own(module: nn.Module, generator: torch.Generator) -> None:
    """Parameters of no usual layer: tokens, positions, scales of branches, attention."""
    for name, parameter in module.named_parameters(recurse=False):
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name == "weight" and parameter.ndim == 1:
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=0.02, generator=generator)
