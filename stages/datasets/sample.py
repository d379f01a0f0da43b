"""A data set as rows, and the split for those that come without one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused

Split = Literal["train", "test", "pretrain"]
"""pretrain: held out of the training images, for training a root on; never part of a task."""

Box = tuple[int, int, int, int]
"""left, top, right, bottom in source pixels; right and bottom lie outside."""

Counts = Mapping[str, Mapping[str, int]]
"""split -> class -> images.  A key such as "train+test" stands for both together."""


@dataclass(frozen=True)
class Sample:
    """One image.  `id` is unique in the set: its path below the root, with `/`, or its number."""

    id: str
    image: Path | NDArray[np.uint8] = field(compare=False)
    """A file that may be missing or broken (cropping says so), or uint8 (H, W, 3) RGB."""
    label: str
    subject: str
    """Who is shown; "" where the data set does not say."""
    split: Split | None
    box: Box | None = None
    """The face, where the data set states it."""


@dataclass(frozen=True)
class Dataset:
    """Rows in a fixed order (by id), whatever order the disk lists them in."""

    name: str
    classes: tuple[str, ...]
    """Label k is `classes[k]`."""
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    """What was left out or looks odd, one sentence each, for people; decides nothing."""

    @property
    def size(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class About:
    """What a layout is, for those who look for it."""

    title: str
    layout: str
    """What must lie under --root, one line a file or folder."""
    access: str
    """Where to ask for the data."""
    classes: tuple[str, ...] = ()
    """In the order in which tasks take them; () where the images decide."""
    published: Counts = field(default_factory=dict)
    """What the authors count; {} where there is nothing to compare with."""
    size: int = 100
    """Side of a crop in pixels, unless asked otherwise."""
    faces: bool = True
    """False: there are none to look for; the whole image is the crop, unless asked otherwise."""


def build(
    name: str,
    samples: Iterable[Sample],
    classes: tuple[str, ...] | None = None,
    notes: Iterable[str] = (),
    seed: int = 0,
) -> Dataset:
    """Sort, split where no split is given, and order the classes (by name unless given)."""
    rows = sorted(samples, key=lambda sample: sample.id)
    if any(sample.split is None for sample in rows):
        rows = split_by_subject(rows, seed)
    labels = {sample.label for sample in rows}
    order = classes if classes is not None else tuple(sorted(labels))
    strange = sorted(labels - set(order))
    if strange:
        raise Refused(
            f"The data set {name} has no class {some(strange)}. Its classes: "
            f"{', '.join(order)}. For classes of your own use --dataset folder."
        )
    present = tuple(c for c in order if c in labels)
    return Dataset(name, present, tuple(rows), (*notes, *_leaks(rows)))


def _leaks(rows: list[Sample]) -> list[str]:
    """A note on people who are in train and test, where the split came with the data."""
    people: dict[Split | None, set[str]] = {}
    for sample in rows:
        people.setdefault(sample.split, set()).add(sample.subject)
    both = sorted((people.get("train", set()) & people.get("test", set())) - {""})
    if not both:
        return []
    return [f"{len(both)} subjects are in both train and test: {some(both)}"]


def hash_order(names: Iterable[str], seed: int) -> list[str]:
    """The names in an order that looks random and is the same everywhere, for ever.

    By a hash and not by a random generator: adding a name moves no other.
    """

    def key(name: str) -> bytes:
        text = name if seed == 0 else f"{seed}:{name}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    return sorted(names, key=key)


def split_by_subject(samples: list[Sample], seed: int = 0, test_share: float = 0.3) -> list[Sample]:
    """Train and test without a subject in both, class proportions nearly kept.

    Subjects (images, where subjects are unknown) are taken in hash order; each
    goes to the test set if its classes have less than `test_share` there so
    far.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.subject or sample.id, []).append(sample)
    seen: Counter[str] = Counter()
    tested: Counter[str] = Counter()
    chosen: dict[str, Split] = {}
    for name in hash_order(groups, seed):
        members = Counter(sample.label for sample in groups[name])
        seen += members
        wanted = sum(test_share * seen[label] - tested[label] for label in members)
        is_test = wanted >= sum(members.values()) / 2
        if is_test:
            tested += members
        chosen[name] = "test" if is_test else "train"
    return [replace(sample, split=chosen[sample.subject or sample.id]) for sample in samples]


def limited(dataset: Dataset, count: int) -> Dataset:
    """At most `count` samples, for a quick look: all splits and classes in turn, hash order."""
    if count >= dataset.size:
        return dataset
    by_id = {sample.id: sample for sample in dataset.samples}
    groups: dict[tuple[str, str], list[str]] = {}
    for name in hash_order(by_id, 0):
        sample = by_id[name]
        groups.setdefault((sample.split or "", sample.label), []).append(name)
    queues = [groups[key] for key in sorted(groups)]
    rounds = (queue[k] for k in range(max(map(len, queues))) for queue in queues if k < len(queue))
    kept = {name for name, _ in zip(rounds, range(count), strict=False)}
    samples = tuple(sample for sample in dataset.samples if sample.id in kept)
    labels = {sample.label for sample in samples}
    note = f"limited to {count} of {dataset.size} images"
    return replace(
        dataset,
        samples=samples,
        classes=tuple(name for name in dataset.classes if name in labels),
        notes=(*dataset.notes, note),
    )


def refuse_mistakes(source: Path, mistakes: list[str]) -> None:
    """Raise Refused with all mistakes of a table or folder, the first eight in full."""
    if mistakes:
        shown = "\n  ".join(mistakes[:8])
        more = f"\n  and {len(mistakes) - 8} more" if len(mistakes) > 8 else ""
        raise Refused(f"{source} has mistakes:\n  {shown}{more}")


def some(names: list[str], count: int = 3) -> str:
    """The first few names, and how many more there are.

    >>> some(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{', '.join(map(short, names[:count]))}{more}"


def short(text: str, most: int = 200) -> str:
    """The text, cut: what comes from a file may be of any length, and hold any character.

    >>> short("endless", 3)
    'end...'
    """
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= most else f"{text[:most]}..."
