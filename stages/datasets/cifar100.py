"""CIFAR-100 as published for Python: 60,000 pictures, 32 x 32; the hundred fine classes.

ROOT/cifar-100-python/train, test, meta
"""

from __future__ import annotations

from pathlib import Path

from stages.datasets.arrays import dataset, require_files
from stages.datasets.cifar10 import read_classes, read_part
from stages.datasets.sample import About, Dataset

_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_CLASSES = tuple(_NAMES.split())
_TRAIN, _TEST, _META = (f"cifar-100-python/{name}" for name in ("train", "test", "meta"))

ABOUT = About(
    "CIFAR-100, small pictures of a hundred kinds of things",
    f"{_TRAIN}\n{_TEST}\n{_META}",
    "--download fetches it; https://www.cs.toronto.edu/~kriz/cifar.html",
    _CLASSES,
    {"train+pretrain": dict.fromkeys(_CLASSES, 500), "test": dict.fromkeys(_CLASSES, 100)},
    size=32,
    faces=False,
)


def read(root: Path, *, download: bool = False, split_seed: int = 0) -> Dataset:
    """Raises Refused: files missing, damaged, or not to be fetched."""
    require_files(root, [_TRAIN, _TEST], ABOUT, torchvision_name="CIFAR100", download=download)
    train = read_part(root, [_TRAIN], "fine_labels", len(_CLASSES))
    test = read_part(root, [_TEST], "fine_labels", len(_CLASSES))
    classes = read_classes(root, _META, "fine_label_names", _CLASSES)
    return dataset("cifar100", ABOUT, classes, (train, test), split_seed)
