"""MNIST as torchvision lays it out: 70,000 handwritten digits, made 32 x 32 RGB.

    ROOT/MNIST/raw/train-images-idx3-ubyte[.gz]    train-labels-idx1-ubyte[.gz]
    ROOT/MNIST/raw/t10k-images-idx3-ubyte[.gz]     t10k-labels-idx1-ubyte[.gz]

Two black pixels are added on each side.  10,000 of the 60,000 training images
are held out for training a root on, as in the LGR paper.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cache.errors import Refused
from stages.datasets.arrays import Part, dataset, require_files
from stages.datasets.files import is_file, own_file
from stages.datasets.idx import read_idx
from stages.datasets.sample import About, Dataset

CLASSES = tuple("0123456789")
_TRAIN = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
_TEST = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)


def layout(folder: str) -> str:
    return "\n".join(
        f"{folder}/raw/{part}-{kind}-ubyte, or the same with .gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    )


ABOUT = About(
    "MNIST, handwritten digits",
    layout("MNIST"),
    "--download fetches it; http://yann.lecun.com/exdb/mnist/",
    CLASSES,
    {
        "train+pretrain": dict(zip(CLASSES, _TRAIN, strict=True)),
        "test": dict(zip(CLASSES, _TEST, strict=True)),
    },
    size=32,
    faces=False,
)


def read(root: Path, *, download: bool = False, split_seed: int = 0) -> Dataset:
    """Raises Refused: files missing, damaged, or not to be fetched."""
    return read_as("mnist", "MNIST", ABOUT, root, download, split_seed)


def read_as(name: str, folder: str, about: About, root: Path, download: bool, seed: int) -> Dataset:
    """As `read`, for a data set in the same files; `folder` is its torchvision class, too."""
    files = [line.partition(",")[0] for line in about.layout.splitlines()]
    either = [f"{file}|{file}.gz" for file in files]
    require_files(root, either, about, torchvision_name=folder, download=download)
    paths = [own_file(root, f if is_file(root / f) else f"{f}.gz") for f in files]
    train = _part(paths[0], paths[1], len(about.classes))
    test = _part(paths[2], paths[3], len(about.classes))
    return dataset(name, about, about.classes, (train, test), seed)


def _part(images: Path, labels: Path, classes: int) -> Part:
    pixels, codes = read_idx(images, (28, 28)), read_idx(labels, ())
    if len(pixels) != len(codes):
        raise Refused(f"{images} has {len(pixels)} images, {labels} {len(codes)} labels.")
    if codes.max() >= classes:
        raise Refused(f"{labels} has the label {codes.max()}, expected 0 to {classes - 1}.")
    square = np.zeros((len(pixels), 32, 32, 1), np.uint8)
    square[:, 2:30, 2:30, 0] = pixels
    # Three equal channels are one channel in memory.
    return Part(np.broadcast_to(square, (len(square), 32, 32, 3)), codes.tolist())
