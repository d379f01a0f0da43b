"""torchvision's ImageNet weights: which there are, and the file of one on this disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision

from cache.errors import Refused
from cache.schema import TrainedOn
from stages.extract import classifiers
from stages.extract.backbones import Tap


def members(name: str) -> list[str]:
    """Names of the weights that hold all of this backbone, such as IMAGENET1K_V1."""
    return [member.name for member in _all(name) if not _misfit(name, member)]


def member(tap: Tap, weights: str) -> Any:
    """torchvision's entry for "imagenet" or the name of a member; None for other words.

    "imagenet" is IMAGENET1K_V1 (in the table: what the paper's `pretrained=True`
    meant), or torchvision's default where there is no such member.

    Raises:
        Refused: there are none for this backbone, or the member does not hold
            all of it.
    """
    found = _all(tap.name)
    if weights == "imagenet":
        fitting = members(tap.name)
        if not fitting:
            raise Refused(
                f"There are no ImageNet weights for {tap.name}. Train it (lgr-pipe pretrain) and "
                "name the file: --weights FILE; or run without pre-training: --weights random."
            )
        default = found.DEFAULT.name
        order = ["IMAGENET1K_V1", default, *fitting]
        return found[next(name for name in order if name in fitting)]
    if not found or weights not in found.__members__:
        return None
    reason = _misfit(tap.name, found[weights])
    if reason:
        choices = " or ".join(members(tap.name))
        raise Refused(f"--weights {weights}: {reason}. For {tap.name} choose {choices}.")
    return found[weights]


def _all(name: str) -> Any:
    return torchvision.models.get_model_weights(name) if name in classifiers.names() else ()


def _misfit(name: str, member: Any) -> str:
    """Why these weights cannot fill the network, or nothing."""
    if not member.meta["categories"]:
        return "they are for the convolutions only, without the layers of the classifier"
    have = sum(p.numel() for p in classifiers.skeleton(name).parameters())
    if member.meta["num_params"] > have:
        return f"they are for images of {member.meta['min_size'][0]} pixels and another network"
    return ""


def trained_on(member: Any) -> TrainedOn:
    before = ", after hashtags of Instagram pictures (SWAG)" if "SWAG" in member.name else ""
    return TrainedOn(data=f"ImageNet-1k{before}", classes=1000)


def file(name: str, url: str) -> Path:
    """torchvision's weight file on this disk, downloaded where it is not there yet.

    Raises:
        Refused: it cannot be downloaded; the text says which file, where to put
            it, and what else can be done.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                url, str(path), hash_prefix=_digest_in(path), progress=True
            )
        except Exception as error:  # no network, a proxy's answer, a broken transfer, a full disk
            raise Refused(
                f"The ImageNet weights of {name} cannot be downloaded ({error}).\n"
                f"Either fetch {url} elsewhere and put it at {path},\n"
                "or name a file you have: --weights FILE (safetensors, or a torch state dict),\n"
                "or run without pre-training: --weights random (tables will say so)."
            ) from None
    return path


def check_digest(path: Path, sha256: str) -> None:
    """Raise Refused unless the file is what its name says."""
    expected = _digest_in(path)
    if not sha256.startswith(expected):
        raise Refused(
            f"{path} is damaged: its sha256 begins with {sha256[: len(expected)]}, "
            f"its name says {expected}. Delete it and download it again."
        )


def _digest_in(path: Path) -> str:
    return path.stem.rpartition("-")[2]  # torchvision names files by their digest
