"""Where a root's weights come from: torchvision's ImageNet, a file, or a seed.

Files from others are untrusted: safetensors, or `torch.load` with
`weights_only=True`; nothing is executed.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from cache.errors import Refused
from stages.extract.backbones import BACKBONES, empty_network

RANDOM_VERSION = 1
"""Part of the fingerprint: raise it when `random_network` gives other weights."""


@dataclass(frozen=True)
class Weights:
    """A network with weights, how they enter the fingerprint, and how to speak of them."""

    network: nn.Module
    fingerprinted: dict[str, Any]
    words: str
    needs_calibration: bool = False


def load(backbone: str, weights: str, seed: int) -> Weights:
    """`weights` is "imagenet", "random" or the path of a file.

    Raises:
        Refused: unknown backbone; weights that cannot be downloaded, found or
            read, or that belong to another network.
    """
    check_names(backbone, weights)
    if weights == "random":
        words = f"random (seed {seed}, calibrated)"
        key = {"kind": "random", "seed": seed, "version": RANDOM_VERSION}
        return Weights(random_network(backbone, seed), key, words, needs_calibration=True)
    if weights == "imagenet":
        member = BACKBONES[backbone].weights
        path = imagenet_file(backbone)
        sha = _sha256(path)
        expected = path.stem.rpartition("-")[2]  # torchvision names files by their digest
        if not sha.startswith(expected):
            raise Refused(
                f"{path} is damaged: its sha256 begins with {sha[: len(expected)]}, "
                f"its name says {expected}. Delete it and download it again."
            )
        words = f"ImageNet ({member.partition('.')[2]})"
        key = {"kind": "imagenet", "member": member, "sha256": sha}
    else:
        path = Path(weights)
        sha = _sha256(path)
        words = f"file {path.name}"
        key = {"kind": "file", "sha256": sha}
    return Weights(_filled(backbone, read_state(path), str(path)), key, words)


def check_names(backbone: str, weights: str) -> None:
    """Raise Refused for an unknown backbone or a weight file that is not there."""
    if backbone not in BACKBONES:
        raise Refused(f"Unknown backbone {backbone!r}. Known: {', '.join(BACKBONES)}.")
    if weights not in ("imagenet", "random") and not Path(weights).is_file():
        raise Refused(f"--weights must be imagenet, random or a file; there is no file {weights}.")


def imagenet_file(backbone: str) -> Path:
    """torchvision's weight file on this disk, downloaded where it is not there yet.

    Raises:
        Refused: it cannot be downloaded; the text says which file, where to put
            it, and what else can be done.
    """
    url: str = torchvision.models.get_weight(BACKBONES[backbone].weights).url
    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=True
            )
        except Exception as error:  # no network, a proxy's answer, a broken transfer, a full disk
            raise Refused(
                f"The ImageNet weights of {backbone} cannot be downloaded ({error}).\n"
                f"Either fetch {url} elsewhere and put it at {path},\n"
                "or name a file you have: --weights FILE (safetensors, or a torch state dict),\n"
                "or run without pre-training: --weights random (tables will say so)."
            ) from None
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a torch file with `weights_only`.

    Raises:
        Refused: the file is neither, or holds something else than tensors.
    """
    try:
        if _is_safetensors(path):
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise Refused(
            f"{path} is no safetensors file, and as a torch file it is broken or holds more than "
            "plain tensors, which could run code and is not opened. "
            "Save the state dict alone, best as safetensors."
        ) from None
    except Exception as error:
        raise Refused(
            f"{path} cannot be read as weights, neither as safetensors nor as a torch state "
            f"dict: {error}"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise Refused(f"{path} is no state dict (names to tensors).")
    return state


def _is_safetensors(path: Path) -> bool:
    """By its beginning: the length of a JSON header, then the header."""
    with path.open("rb") as handle:
        start = handle.read(9)
    length = int.from_bytes(start[:8], "little")
    return len(start) == 9 and start[8:] == b"{" and length <= path.stat().st_size


def _filled(backbone: str, state: dict[str, Tensor], source: str) -> nn.Module:
    """The network with the tensors it needs; further ones (last layers) are left aside."""
    network = empty_network(backbone)
    needed = network.state_dict()
    optional = {name for name in needed if name.endswith("num_batches_tracked")}
    for name, tensor in needed.items():
        if name not in state and name not in optional:
            raise Refused(f"{source} does not fit {backbone}: it has no tensor {name}.")
        if name in state and state[name].shape != tensor.shape:
            raise Refused(
                f"{source} does not fit {backbone}: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}."
            )
    network.to_empty(device="cpu")
    chosen = {
        name: state[name].float() if name in state else torch.zeros((), dtype=torch.int64)
        for name in needed
    }
    network.load_state_dict(chosen)
    return network


def random_network(backbone: str, seed: int) -> nn.Module:
    """A network of random filters, the same for a seed on every machine.

    He's initialisation (fan-in); the filters of the first layer have their
    mean taken out, so that they see edges and not how bright the picture is:
    without that more than half of the variance of random VGG-16 latents is
    one direction, lighting and skin.
    """
    network = empty_network(backbone).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    first = True
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_in", nonlinearity="relu", generator=generator
            )
            if first:
                module.weight.data -= module.weight.data.mean((2, 3), keepdim=True)
                first = False
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return network


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
