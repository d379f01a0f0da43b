"""What the data sets of small images in a few large files have in common.

Rows are called train/00000, test/00000, ...: their places in the files.  Some
of the training images are held out for training a root on ("pretrain"): 10,000
of those published, the same share of a smaller file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused
from stages.datasets.files import elsewhere, expected, is_dir, is_file
from stages.datasets.sample import About, Dataset, Sample, Split, build, hash_order, short

_HELD_OUT = 10_000


@dataclass(frozen=True)
class Part:
    """The training or the test images."""

    images: NDArray[np.uint8]
    """(N, 32, 32, 3); may be a view that shares its memory."""
    labels: Sequence[int]


def dataset(
    name: str,
    about: About,
    classes: tuple[str, ...],
    parts: tuple[Part, Part],
    seed: int,
    notes: Sequence[str] = (),
) -> Dataset:
    """Train and test to rows, without a copy of an image."""
    train, test = parts
    published = sum(count for key in about.published for count in _train_counts(about, key))
    count = len(train.labels) * _HELD_OUT // published
    names = [f"train/{k:05}" for k in range(len(train.labels))]
    held_out = set(hash_order(names, seed)[:count])
    splits: list[Split] = ["pretrain" if name in held_out else "train" for name in names]
    rows = [
        Sample(name, image, classes[label], "", split)
        for name, image, label, split in zip(names, train.images, train.labels, splits, strict=True)
    ]
    rows += [
        Sample(f"test/{k:05}", image, classes[label], "", "test")
        for k, (image, label) in enumerate(zip(test.images, test.labels, strict=True))
    ]
    return build(name, rows, classes, notes)


def _train_counts(about: About, key: str) -> list[int]:
    return list(about.published[key].values()) if key.startswith("train") else []


def require_files(
    root: Path, files: Sequence[str], about: About, *, torchvision_name: str, download: bool
) -> None:
    """Fetch the files if asked to and any is missing.  `a|b` stands for either of two.

    Raises Refused: files are missing, or cannot be fetched.
    """
    missing = _missing(root, files)
    if missing and download:
        try:
            _fetch(torchvision_name, root)
        except Exception as error:  # the network, the disk, the server: of any kind
            raise Refused(
                f"{about.title} cannot be fetched into {root}: "
                f"{type(error).__name__}: {short(str(error), 500)}. "
                f"Put these files there by hand: {', '.join(missing)}."
            ) from None
        missing = _missing(root, files)
    if missing:
        hints = [elsewhere(root, (name,)) for name in files[0].split("|") if is_dir(root)]
        raise Refused(
            f"There is no {', no '.join(missing)} in {root}.{''.join(hints)} "
            f"Use --download to fetch them.\n{expected(about)}"
        )


def _missing(root: Path, files: Sequence[str]) -> list[str]:
    return [
        choice.replace("|", " or ")
        for choice in files
        if not any(is_file(root / name) for name in choice.split("|"))
    ]


def _fetch(torchvision_name: str, root: Path) -> None:
    """With torchvision's addresses and checksums, but not its reader: it unpickles."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_and_extract_archive

    source = getattr(datasets, torchvision_name)
    root.mkdir(parents=True, exist_ok=True)
    if hasattr(source, "tgz_md5"):
        download_and_extract_archive(
            source.url, str(root), filename=source.filename, md5=source.tgz_md5
        )
        return
    for filename, md5 in source.resources:  # MNIST; its class would load old files of torch
        failures = []
        for mirror in source.mirrors:
            try:
                folder = str(root / torchvision_name / "raw")
                url = f"{mirror}{filename}"
                download_and_extract_archive(url, folder, filename=filename, md5=md5)
                break
            except (OSError, RuntimeError) as error:
                failures.append(f"{mirror}: {error}")
        else:
            raise OSError("; ".join(failures))
