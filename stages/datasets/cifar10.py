"""CIFAR-10 as published for Python: 60,000 pictures of ten kinds of things, 32 x 32.

ROOT/cifar-10-batches-py/data_batch_1 ... data_batch_5, test_batch, batches.meta
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.datasets import cifar_files
from stages.datasets.arrays import Part, dataset, require_files
from stages.datasets.files import is_file, own_file
from stages.datasets.sample import About, Dataset

_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_FOLDER = "cifar-10-batches-py"
_TRAIN = [f"{_FOLDER}/data_batch_{k}" for k in range(1, 6)]
_TEST = [f"{_FOLDER}/test_batch"]
_META = f"{_FOLDER}/batches.meta"

ABOUT = About(
    "CIFAR-10, small pictures of ten kinds of things",
    "\n".join([*_TRAIN, *_TEST, _META]),
    "--download fetches it; https://www.cs.toronto.edu/~kriz/cifar.html",
    _CLASSES,
    {"train+pretrain": dict.fromkeys(_CLASSES, 5000), "test": dict.fromkeys(_CLASSES, 1000)},
    size=32,
    faces=False,
)


def read(root: Path, *, download: bool = False, split_seed: int = 0) -> Dataset:
    """Raises Refused: files missing, damaged, or not to be fetched."""
    files = [*_TRAIN, *_TEST]
    require_files(root, files, ABOUT, torchvision_name="CIFAR10", download=download)
    parts = (read_part(root, _TRAIN, "labels", 10), read_part(root, _TEST, "labels", 10))
    classes = read_classes(root, _META, "label_names", _CLASSES)
    return dataset("cifar10", ABOUT, classes, parts, split_seed)


def read_part(root: Path, files: list[str], key: str, classes: int) -> Part:
    """The files one after the other, as rows of one set."""
    images, labels = [], []
    for name in files:
        path = own_file(root, name)
        content = cifar_files.read_pickle(path)
        images.append(cifar_files.images(path, content))
        labels += cifar_files.labels(path, content, key, len(images[-1]), classes)
    return Part(images[0] if len(images) == 1 else np.concatenate(images), labels)


def read_classes(root: Path, meta: str, key: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """As the file of names has them; as published where that file is missing."""
    if not is_file(root / meta):
        return known
    return cifar_files.names(own_file(root, meta), key, len(known))
