"""Train the small root on the images that a data set keeps aside for it (LGR, section 4.4).

The whole LeNet learns all classes of the `pretrain` rows: Adam, cross-entropy,
dropout.  No task ever sees these rows, but the root has then seen every
class: the file says so in its metadata, and the latent cache repeats it.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from cache.errors import Refused
from cache.files import write_atomically
from cache.reader import Cache
from cache.schema import TrainedOn
from stages.extract.lenet import SIZE, LeNet
from stages.extract.root import to_grey
from stages.extract.source import usable_rows
from stages.extract.weights import METADATA

WITH_PRETRAIN_ROWS = ("mnist", "fashion-mnist", "cifar10", "cifar100")
"""Data sets that keep rows aside for the root."""
_TEST_ROWS = 256  # at a time: no more memory than training takes


@dataclass(frozen=True)
class PretrainSettings:
    """The LGR code's."""

    iters: int = 1000
    batch_size: int = 32
    lr: float = 0.001
    seed: int = 0


@dataclass(frozen=True)
class Pretrained:
    """What came of it."""

    trained_on: TrainedOn
    rows: int
    """Images that were learnt from."""
    seconds: float
    """Of training alone."""
    accuracy: float
    """Fraction right of the `train` rows, which the root has not seen."""
    parameters: int


def pretrain(
    crops: Cache,
    settings: PretrainSettings,
    out: Path,
    *,
    device: str,
    tick: Callable[[int], None],
) -> Pretrained:
    """Train a LeNet on the `pretrain` rows and write it to `out` as safetensors, float32.

    On the CPU the file is the same for the same crops and settings.

    Raises:
        CacheMismatchError: `crops` is no crop cache.
        Refused: no rows are kept aside or none are left to test on, fewer than
            two classes, crops that are not 32 x 32, training that diverges.
    """
    rows, test_rows = _rows(crops)
    labels = crops.side("label").astype(np.int64)
    seen = np.unique(labels[rows])
    if len(seen) < 2:
        raise Refused(f"{crops.path}: its pretrain rows have one class; two are needed to learn.")
    manifest = crops.manifest
    trained_on = TrainedOn(
        data=f"{manifest.info.dataset} (pretrain split)",
        classes=len(seen),
        names=tuple(manifest.classes[k] for k in seen),
        crops=manifest.fingerprint,
        rows=len(rows),
    )
    images = torch.cat([grey for grey, _ in _grey_crops(crops, rows)])
    targets = torch.from_numpy(labels[rows]).to(device)
    with _one_thread():
        started = time.perf_counter()
        model = _train(images.to(device), targets, len(manifest.classes), settings, tick)
        seconds = time.perf_counter() - started
        accuracy = _accuracy(model, crops, test_rows, labels, device)
    _write(model, trained_on, out)
    parameters = sum(p.numel() for p in model.parameters())
    return Pretrained(trained_on, len(rows), seconds, accuracy, parameters)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are taken in the same order on any number of cores, and so small a network gains
    nothing from a second one (waits on it: up to 18 times slower where cores are shared)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rows(crops: Cache) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from, and rows to test on."""
    crops.expect("crops")
    usable = usable_rows(crops)
    learn, test = (np.intersect1d(usable, crops.split_rows(name)) for name in ("pretrain", "train"))
    if not len(learn):
        raise Refused(
            f"{crops.path} ({crops.manifest.info.dataset}) has no rows of split pretrain: images "
            "that are kept aside for the root, so that no task tests what it was trained on. "
            f"Data sets that have them: {', '.join(WITH_PRETRAIN_ROWS)}."
        )
    shape = crops.manifest.columns[crops.manifest.bulk].shape[1:]
    if shape != (SIZE, SIZE, 3):
        raise Refused(
            f"{crops.path} holds crops of {shape[0]} x {shape[1]} pixels; lenet takes "
            f"{SIZE} x {SIZE}: make them with lgr-pipe crop --size {SIZE}."
        )
    if not len(test):
        raise Refused(f"{crops.path} has no rows of split train to test the root on.")
    return learn, test


def _grey_crops(
    crops: Cache, rows: NDArray[np.int64]
) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    """uint8 (k, 32, 32) and which rows these are; in memory is one shard at a time."""
    step = crops.manifest.shard_rows
    for start in range(0, crops.manifest.rows, step):
        wanted = rows[(rows >= start) & (rows < start + step)]
        if len(wanted):
            pixels = crops.bulk_rows(int(wanted[0]), int(wanted[-1]) + 1)[wanted - wanted[0]]
            yield to_grey(torch.from_numpy(pixels)), wanted


def _train(
    images: Tensor,
    labels: Tensor,
    classes: int,
    settings: PretrainSettings,
    tick: Callable[[int], None],
) -> LeNet:
    """uint8 (N, 32, 32), int64 (N,) -> a trained LeNet on their device."""
    model = LeNet(classes)
    model.initialise(_stream(settings.seed, "weights"))
    model.to(images.device)
    dropout = _stream(settings.seed, "dropout", images.device)
    batches = _batches(len(images), settings.batch_size, _stream(settings.seed, "batches"))
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
    for _ in range(settings.iters):
        batch = next(batches).to(images.device)
        logits = model.logits(_floats(images[batch]), dropout)
        loss = functional.cross_entropy(logits, labels[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        tick(1)
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise Refused("Training diverged: weights became NaN or infinite. Lower --lr.")
    return model


def _floats(grey: Tensor) -> Tensor:
    """uint8 (B, 32, 32) -> float (B, 1, 32, 32) in [0, 1], as root.py has it."""
    return grey.unsqueeze(1).float() / 255


def _batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Positions int64 (size,): passes over all rows, each in a new order, without end.

    The rows that are left over at the end of a pass are dropped (as in the LGR
    code), unless there are fewer than one batch.
    """
    size = min(size, rows)
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from torch.split(order[: rows - rows % size], size)


def _stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random stream of its own for each name, whatever the others draw."""
    digest = hashlib.blake2b(f"{seed}/pretrain/{name}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def _accuracy(
    model: LeNet,
    crops: Cache,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    device: str,
) -> float:
    right = 0
    with torch.inference_mode():
        for grey, which in _grey_crops(crops, rows):
            parts = torch.split(grey.to(device), _TEST_ROWS)
            answers = torch.cat([model.logits(_floats(part)).argmax(1) for part in parts])
            right += int((answers.cpu().numpy() == labels[which]).sum())
    return right / len(rows)


def _write(model: LeNet, trained_on: TrainedOn, out: Path) -> None:
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = save(state, metadata={METADATA: trained_on.model_dump_json()})
    write_atomically(out, lambda handle: handle.write(data))
