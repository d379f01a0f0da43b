"""Known data sets as distributed, in miniature, and tools for tests that read them."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import Refused
from stages.datasets import module, read
from stages.datasets.sample import Dataset

Change = Callable[[Path], object]
"""What a test does to a replica before it is read."""


def put(path: Path, content: str | bytes = b"") -> None:
    """Write a file and make the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def link_out(inside: str, target: str) -> Change:
    """Put a link in place of the file `inside` that leads to `target`, beside the root."""

    def change(root: Path) -> None:
        put(root.parent / target)
        (root / inside).unlink(missing_ok=True)
        (root / inside).symlink_to(root.parent / target)

    return change


def tally(dataset: Dataset) -> dict[tuple[str | None, str], int]:
    """How many images there are of each split and class."""
    return dict(Counter((s.split, s.label) for s in dataset.samples))


def refused(name: str, root: Path, says: str, **given: Any) -> str:
    """Reading is refused with a message that has `says` in it; the whole message."""
    with pytest.raises(Refused) as caught:
        read(name, root, **given)
    assert says in str(caught.value), str(caught.value)
    return str(caught.value)


def moved_below(root: Path, name: str) -> None:
    """As after unpacking an archive with a top folder."""
    inside = root / "archive"
    inside.mkdir()
    for entry in [p for p in root.iterdir() if p != inside]:
        entry.rename(inside / entry.name)
    refused(name, root, f"Did you mean --root {inside}?")
    assert read(name, inside).size


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


CKPLUS_CLASSES = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")


def make_ckplus(root: Path, people: int = 10, frames: int = 6) -> Path:
    """cohn-kanade-images/S***/***/*.png and Emotion/S***/***/*_emotion.txt.

    Each person shows each expression; and one sequence without a label.
    """
    for who in range(people):
        for code in range(1, 9):
            folder = f"S{who:03}/{code:03}"
            for frame in range(1, frames + 1):
                # not in the order of the names, as some of CK+ is numbered by time
                name = f"S{who:03}_{code:03}_{frame * 3:0{8 if frame > 3 else 2}}.png"
                put(root / "cohn-kanade-images" / folder / name)
            label = root / "Emotion" / folder / f"S{who:03}_{code:03}_00000018_emotion.txt"
            label.parent.mkdir(parents=True)
            if code < 8:
                put(label, f"   {code}.0000000e+00\n")
    put(root / "cohn-kanade-images/S000/.DS_Store")
    put(root / "cohn-kanade-images/S000/001/Thumbs.db")
    return root


RAFDB_LIST = "basic/EmoLabel/list_patition_label.txt"


def make_rafdb(root: Path, *more: str, images: str = "original") -> Path:
    """basic/EmoLabel/list_patition_label.txt and basic/Image/original (or aligned)/*.jpg.

    Two training images and one test image for each class.
    """
    lines = []
    for code in range(1, 8):
        for name in (f"train_{code:05}", f"train_{code + 7:05}", f"test_{code:04}"):
            lines.append(f"{name}.jpg {code}")
            put(root / f"basic/Image/{images}/{name}{'_aligned' * (images == 'aligned')}.jpg")
    put(root / RAFDB_LIST, "\n".join([*lines, *more]) + "\n")
    return root


AFFECTNET_CLASSES = (
    "neutral",
    "happiness",
    "sadness",
    "surprise",
    "fear",
    "disgust",
    "anger",
    "contempt",
)
AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,"
    "expression,valence,arousal"
)


def affectnet_row(name: str, code: object, box: str = "10,20,30,40") -> str:
    """A line of training.csv or validation.csv."""
    return f"{name},{box},1.0;2.0,{code},-0.5,0.25"


def make_affectnet(
    root: Path,
    *more: str,
    tables: str = "",
    images: str = "Manually_Annotated/Manually_Annotated_Images",
    valid_header: bool = True,
) -> Path:
    """The original release: training.csv, validation.csv and folders of images.

    Three training images and one of validation for each of eleven codes.
    """
    for table_name, count in (("training", 3), ("validation", 1)):
        rows = [AFFECTNET_HEADER] if valid_header or table_name == "training" else []
        for code in range(11):
            for k in range(count):
                rows.append(affectnet_row(f"{k}/{table_name}{code}.jpg", code))
                put(root / images / f"{k}/{table_name}{code}.jpg")
        put(root / tables / f"{table_name}.csv", "\n".join(rows + list(more)) + "\n")
        more = ()
    return root


def npy(value: object, pickled: bool = False) -> bytes:
    """A .npy file."""
    out = io.BytesIO()
    np.save(out, np.array(value, dtype=object) if pickled else np.array(value))
    return out.getvalue()


def make_affectnet8(root: Path) -> Path:
    """The release of eight classes: images/*.jpg and annotations/*.npy in train_set and val_set.

    Two training images and one of validation for each code, as text or number.
    """
    for half, ids in (("train_set", range(16)), ("val_set", range(8))):
        for k in ids:
            code = (str(k % 8), k % 8, float(k % 8), np.bytes_(str(k % 8)))[k % 4]
            put(root / half / f"images/{k}.jpg")
            put(root / half / f"annotations/{k}_exp.npy", npy(code))
            for other in ("aro", "val", "lnd"):
                put(root / half / f"annotations/{k}_{other}.npy", b"not read")
    return root


PIXELS = np.random.default_rng(0).integers(0, 256, (120, 28, 28), np.uint8)
DIGITS = (np.arange(120) % 10).astype(np.uint8)


def idx(values: np.ndarray[Any, Any]) -> bytes:
    """A file of bytes in the format of MNIST."""
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def make_mnist(root: Path, folder: str = "MNIST", packed: bool = False) -> Path:
    """MNIST/raw (or FashionMNIST/raw)/*-ubyte, or the same with .gz: 120 and 20 images."""
    for part, count in (("train", 120), ("t10k", 20)):
        for kind, values in (("images-idx3", PIXELS), ("labels-idx1", DIGITS)):
            content = idx(values[:count])
            name = f"{folder}/raw/{part}-{kind}-ubyte{'.gz' * packed}"
            put(root / name, gzip.compress(content) if packed else content)
    return root


def python2_pickle(value: Any) -> bytes:
    """As Python 2 pickled it: protocol 2, text and bytes both as byte strings."""
    if isinstance(value, dict):
        return b"}(" + b"".join(map(python2_pickle, [x for kv in value.items() for x in kv])) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2_pickle, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(data)) + data
    shape = b"".join(map(python2_pickle, value.shape))
    minus = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + minus + minus + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return (
        array
        + b"(K\x01("
        + shape
        + b"t"
        + dtype
        + b"\x89"
        + python2_pickle(value.tobytes())
        + b"tb"
    )


def published_pickle(value: Any) -> bytes:
    """A whole file as CIFAR is published."""
    return b"\x80\x02" + python2_pickle(value) + b"."


PLANES = np.random.default_rng(1).integers(0, 256, (20, 3072), np.uint8)


DUMPS: dict[str, Callable[[Any], bytes]] = {
    "published": published_pickle,
    **{f"protocol {n}": lambda value, n=n: pickle.dumps(value, n) for n in (2, 3, 4, 5)},
}


def make_cifar10(root: Path, dump: Callable[[Any], bytes] = published_pickle) -> Path:
    """cifar-10-batches-py/data_batch_1 to 5 and test_batch, 20 images each."""
    folder = root / "cifar-10-batches-py"
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        labels = [k % 10 for k in range(20)]
        put(folder / name, dump({"batch_label": name, "labels": labels, "data": PLANES}))
    return root


def make_cifar100(root: Path, dump: Callable[[Any], bytes] = published_pickle) -> Path:
    """cifar-100-python/train, test and meta, 20 images each."""
    names = list(module("cifar100").ABOUT.classes)
    for name in ("train", "test"):
        content = {"fine_labels": [5 * k for k in range(20)], "coarse_labels": [0], "data": PLANES}
        put(root / "cifar-100-python" / name, dump(content))
    put(root / "cifar-100-python/meta", dump({"fine_label_names": names}))
    return root
