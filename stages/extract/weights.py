"""Where a root's weights come from: torchvision's ImageNet, a file, or a seed.

Files from others are untrusted: safetensors, or `torch.load` with
`weights_only=True`; nothing is executed.  A file that `pretrain` wrote says
in its metadata what the network has seen.
"""

from __future__ import annotations

import hashlib
import pickle
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from cache.errors import Refused
from cache.schema import TrainedOn
from stages.extract import imagenet
from stages.extract.backbones import Activation, Normalize, Root, Tap, skeleton
from stages.extract.frozen import Frozen
from stages.extract.random_weights import RANDOM_VERSION, random_network

METADATA = "lgr-pipe"
"""Key in the metadata of a safetensors file; its value is a TrainedOn as JSON."""
_METADATA_LIMIT = 1_000_000  # characters; a longer text is not read


@dataclass
class Weights:
    """A network with weights, how they enter the fingerprint, and how to speak of them."""

    network: nn.Module | None
    """None: somebody has taken it."""
    fingerprinted: dict[str, Any]
    words: str
    asked: tuple[Tap, str, int]
    """What `load` was asked for."""
    needs_calibration: bool = False
    trained_on: TrainedOn | None = None
    """None: of random weights, and of a file that does not say."""

    def take(self) -> nn.Module:
        """The network, for the caller alone, who changes it: VGG-16's first linear layer has
        411 MB, which are not to stay beside what is made of them.  Made anew where it was taken
        before.

        Raises:
            Refused: the weights are no longer there, or others are.
        """
        network, self.network = self.network, None
        if network is not None:
            return network
        again = load(*self.asked)
        if again.fingerprinted != self.fingerprinted:
            raise Refused(f"{self.asked[1]} holds other weights than when it was read first.")
        return again.take()


def load(tap: Tap, weights: str, seed: int) -> Weights:
    """The network of `tap` with weights.

    `weights` is "imagenet", one of torchvision's members such as
    "IMAGENET1K_V2", "random" (then by `seed`), or the path of a file.

    Raises:
        Refused: weights that cannot be downloaded, found or read, or that
            belong to another network.
    """
    check_names(tap, weights)
    asked = (tap, weights, seed)
    if weights == "random":
        words = f"random (seed {seed}, calibrated)"
        key = {"kind": "random", "seed": seed, "version": RANDOM_VERSION}
        return Weights(random_network(tap, seed), key, words, asked, needs_calibration=True)
    member = imagenet.member(tap, weights)
    if member is None:
        return _of_file(asked, Path(weights))
    return _of_member(asked, member)


def _of_member(asked: tuple[Tap, str, int], member: Any) -> Weights:
    tap = asked[0]
    path = imagenet.file(tap.name, member.url)
    sha = _sha256(path)
    imagenet.check_digest(path, sha)
    return Weights(
        _filled(tap, read_state(path), str(path)),
        {"kind": "imagenet", "member": str(member), "sha256": sha},
        f"ImageNet ({member.name})",
        asked,
        trained_on=imagenet.trained_on(member),
    )


def _of_file(asked: tuple[Tap, str, int], path: Path) -> Weights:
    sha = _sha256(path)
    return Weights(
        _filled(asked[0], read_state(path), str(path)),
        {"kind": "file", "sha256": sha},
        f"file {path.name}",
        asked,
        trained_on=read_trained_on(path),
    )


def check_names(tap: Tap, weights: str) -> None:
    """Raise Refused for weights that there are none of: before any work is done."""
    if weights == "random" or imagenet.member(tap, weights) is not None:
        return
    if not Path(weights).is_file():
        choices = ["imagenet", *imagenet.members(tap.name)] if imagenet.members(tap.name) else []
        raise Refused(
            f"--weights of {tap.name} must be {', '.join([*choices, 'random'])} or a file; "
            f"there is no file {weights}."
        )


def make_root(tap: Tap, weights: Weights, activation: Activation, normalize: Normalize) -> Root:
    """The root of these weights, which it takes, on the CPU, not calibrated.

    Raises:
        Refused: ImageNet's normalisation for a root that sees grey crops.
    """
    if tap.grey and normalize == "imagenet":
        raise Refused(
            f"--normalize imagenet is for three colours; {tap.name} sees grey crops in [0, 1]: "
            "use --normalize none."
        )
    return Root(Frozen(weights.take()), activation, normalize, grey=tap.grey)


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


def read_trained_on(path: Path) -> TrainedOn | None:
    """What the metadata of a safetensors file say; None for a file without them.

    Raises:
        Refused: metadata under lgr-pipe's key that are not a TrainedOn.
    """
    if not _is_safetensors(path):
        return None
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA)
    if text is None:
        return None
    if len(text) > _METADATA_LIMIT:
        raise Refused(f"The metadata of {path} are longer than {_METADATA_LIMIT} characters.")
    try:
        found = TrainedOn.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        first = " ".join(str(error).splitlines()[:3])
        raise Refused(
            f"The metadata of {path} do not say what it was trained on: {first}"
        ) from None
    # Tables show these texts: nothing in them may steer a terminal.
    shown = "".join((found.data, found.crops, *found.names))
    if any(unicodedata.category(character) == "Cc" for character in shown):
        raise Refused(f"The metadata of {path} hold control characters.")
    return found


def _is_safetensors(path: Path) -> bool:
    """By its beginning: the length of a JSON header, then the header."""
    with path.open("rb") as handle:
        start = handle.read(9)
    length = int.from_bytes(start[:8], "little")
    return len(start) == 9 and start[8:] == b"{" and length <= path.stat().st_size


def _filled(tap: Tap, state: dict[str, Tensor], source: str) -> nn.Module:
    """The network with the tensors it needs; further ones (last layers) are left aside."""
    network = skeleton(tap)
    needed = network.state_dict()
    optional = {name for name in needed if name.endswith("num_batches_tracked")}
    for name, tensor in needed.items():
        if name not in state and name not in optional:
            raise Refused(f"{source} does not fit {tap.name}: it has no tensor {name}.")
        if name in state and state[name].shape != tensor.shape:
            raise Refused(
                f"{source} does not fit {tap.name}: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}."
            )
        if name in state and tensor.is_floating_point() and not state[name].is_floating_point():
            raise Refused(f"{source}: {name} holds {state[name].dtype}; dequantise the file first.")
    chosen = {
        name: state[name].to(tensor.dtype) if name in state else torch.zeros((), dtype=torch.int64)
        for name, tensor in needed.items()
    }
    network.load_state_dict(chosen, assign=True)  # the tensors themselves: no second copy
    return network


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
