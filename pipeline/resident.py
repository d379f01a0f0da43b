"""Where the latents lie while they are learnt from: on the GPU, in main memory, or on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cache.errors import Refused
from cache.memory import available_memory
from cache.reader import Cache
from cache.schema import Manifest, read_manifest
from cache.source import Place
from pipeline.console import bytes_text, say
from pipeline.params import TrainParams
from stages.train.disk import OnDisk, Reader
from stages.train.view import Data, Source

Form = Literal["gpu", "ram", "disk"]

_SHARE = 0.8
"""Of what is free, that latents may take unasked."""
_WHERE = {"gpu": "on the GPU", "ram": "in memory", "disk": "left on disk"}


@dataclass(frozen=True)
class Resident:
    """What was chosen, and why."""

    form: Form
    why: str
    """"asked for", or sizes."""
    memory_mb: int = 0
    """On disk: what the latents may take of memory."""

    def record(self) -> dict[str, Any]:
        """For run.json."""
        return {name: value for name, value in asdict(self).items() if value}

    def sentence(self) -> str:
        said = f"Latents are {_WHERE[self.form]} ({self.why})."
        if self.form != "disk":
            return said
        return (
            f"{said} At most {self.memory_mb} MB of them are in memory at a time "
            "(--resident-memory); a task that takes more than three quarters of that comes in "
            "another order than from memory, each row still once a pass."
        )


def latent_bytes(manifest: Manifest) -> int:
    """Of all latents in memory, float32."""
    rows, dim = manifest.columns[manifest.bulk].shape
    return 4 * rows * dim


def bulk_bytes(cache: Place) -> int:
    """Of all crops or latents, as they are stored."""
    manifest = read_manifest(cache)
    return manifest.columns[manifest.bulk].nbytes


def choose(settings: TrainParams, device: str, latents: int, crops: int = 0) -> Resident:
    """`latents` and `crops`: their bytes; crops are in main memory in any case.  `device`: cpu or
    cuda.

    Raises:
        Refused: latents do not fit where they are asked to be.
    """
    wanted = settings.resident
    if wanted == "disk":
        return Resident("disk", "asked for", settings.resident_memory)
    if wanted == "gpu" or (wanted == "auto" and device == "cuda"):
        free = _free_of_gpu(device)
        sizes = f"they take {bytes_text(latents)}, {bytes_text(free)} of the GPU's memory are free"
        if wanted == "gpu":
            _refuse_larger(latents, free, f"--resident gpu: the latents do not fit: {sizes}")
            return Resident("gpu", "asked for")
        if latents <= _SHARE * free:
            return Resident("gpu", sizes)
    free = max(0, available_memory() - crops)
    beside = " beside the crops" if crops else ""
    sizes = f"they take {bytes_text(latents)}, {bytes_text(free)} of memory are free{beside}"
    if wanted == "ram":
        _refuse_larger(latents, free, f"--resident ram: the latents do not fit: {sizes}")
        return Resident("ram", "asked for")
    if latents <= _SHARE * free:
        return Resident("ram", sizes)
    return Resident("disk", sizes, settings.resident_memory)


def settled(
    settings: TrainParams, device: str, manifest: Manifest, crops: Path | None
) -> tuple[str, int]:
    """For all runs of a sweep: --resident, and the bytes of latents in the memory of each.

    Settled once: no run may come to another order because others beside it have the memory.
    `device`: also auto, of machines that are not known here.
    """
    form: str = settings.resident
    if form == "auto":
        beside = 0 if crops is None else bulk_bytes(crops)
        chosen = choose(settings, device, latent_bytes(manifest), beside)
        if chosen.form == "disk":
            say(chosen.sentence())
        form = chosen.form if device != "auto" or chosen.form == "disk" else "auto"
    memory = settings.resident_memory * 1_000_000 if form == "disk" else latent_bytes(manifest)
    return form, memory


def _free_of_gpu(device: str) -> int:
    if device != "cuda":
        raise Refused(
            f"--resident gpu keeps the latents on a GPU, but the networks are on {device}: "
            "use --device cuda, or --resident auto."
        )
    return int(torch.cuda.mem_get_info()[0])


def _refuse_larger(latents: int, free: int, what: str) -> None:
    if latents > free:
        raise Refused(
            f"{what}. Use --resident disk, which reads them as they are needed, or a machine "
            "with more."
        )


def load(cache: Cache, resident: Resident, targets: Tensor, crops: Tensor | None) -> Source:
    """The latents of an open cache where they are to be, every row checked when it is read;
    `targets` int64 (N,) are on the training device.

    On disk the cache must stay open.
    """
    if resident.form == "disk":
        return OnDisk(Reader(cache), targets, crops, resident.memory_mb * 1_000_000)
    if resident.form == "ram":
        return Data(torch.from_numpy(cache.bulk("float32")), targets, crops)
    return Data(_on_gpu(cache, targets.device), targets, crops)


def _on_gpu(cache: Cache, device: torch.device) -> Tensor:
    """A shard at a time: main memory never has them all."""
    manifest = cache.manifest
    out = torch.empty(manifest.columns[manifest.bulk].shape, device=device)
    for start in range(0, manifest.rows, manifest.shard_rows):
        stop = min(start + manifest.shard_rows, manifest.rows)
        rows = cache.bulk_rows(start, stop).astype("float32", copy=False)
        out[start:stop] = torch.from_numpy(rows)
    return out
