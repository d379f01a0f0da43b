"""Fashion-MNIST: 70,000 pictures of clothes, in the files and the shape of MNIST.

ROOT/FashionMNIST/raw/train-images-idx3-ubyte[.gz]    as for MNIST
"""

from __future__ import annotations

from pathlib import Path

from stages.datasets import mnist
from stages.datasets.sample import About, Dataset

_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

ABOUT = About(
    "Fashion-MNIST, pictures of clothes",
    mnist.layout("FashionMNIST"),
    "--download fetches it; https://github.com/zalandoresearch/fashion-mnist",
    _CLASSES,
    {"train+pretrain": dict.fromkeys(_CLASSES, 6000), "test": dict.fromkeys(_CLASSES, 1000)},
    size=32,
    faces=False,
)


def read(root: Path, *, download: bool = False, split_seed: int = 0) -> Dataset:
    """Raises Refused: files missing, damaged, or not to be fetched."""
    return mnist.read_as("fashion-mnist", "FashionMNIST", ABOUT, root, download, split_seed)
