"""Networks and optimisers as named tensors: what a checkpoint keeps, what a snapshot is."""

from __future__ import annotations

from torch import Tensor, nn

from stages.train.adam import Adam


def named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters under `prefix.`, not copied: a checkpoint of a large network must not
    take its memory twice."""
    return {f"{prefix}.{name}": t.detach() for name, t in module.state_dict().items()}


def restore(prefix: str, module: nn.Module, state: dict[str, Tensor]) -> None:
    start = f"{prefix}."
    module.load_state_dict(
        {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
    )


def named_optimiser(prefix: str, optimiser: Adam) -> dict[str, Tensor]:
    """Adam's moments and step counts under `prefix.<parameter>.<name>`, not copied."""
    return {
        f"{prefix}.{index}.{name}": value.detach()
        for index, moments in optimiser.state.items()
        for name, value in moments.items()
    }


def restore_optimiser(prefix: str, optimiser: Adam, state: dict[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(f"{prefix}."):
            index, name = key.removeprefix(f"{prefix}.").split(".")
            moments.setdefault(int(index), {})[name] = value
    optimiser.load_state(moments)


def frozen_copy(module: nn.Module, like: nn.Module) -> None:
    """Let `like` hold the parameters of `module` as they are now, without gradients.

    Parameters only: a deep copy of a network that carries its optimiser would
    copy that too (in the LGR code it does, and is counted as memory).
    """
    like.load_state_dict(module.state_dict())
    like.requires_grad_(False)


def parameter_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
