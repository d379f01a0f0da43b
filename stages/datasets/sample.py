"""A data set as rows, and the split for those that come without one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cache.errors import Refused

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Sample:
    """One image.  `id` is its path below the root, with `/`, unique in the set."""

    id: str
    path: Path
    label: str
    subject: str
    """Who is shown; "" where the data set does not say."""
    split: Split | None


@dataclass(frozen=True)
class Dataset:
    """Rows in a fixed order (by id), whatever order the disk lists them in."""

    name: str
    classes: tuple[str, ...]
    """Label k is `classes[k]`."""
    samples: tuple[Sample, ...]

    @property
    def size(self) -> int:
        return len(self.samples)


def build(name: str, samples: Iterable[Sample], classes: tuple[str, ...] | None = None) -> Dataset:
    """Sort, split where no split is given, and order the classes (by name unless given)."""
    rows = sorted(samples, key=lambda sample: sample.id)
    if any(sample.split is None for sample in rows):
        rows = split_by_subject(rows)
    labels = {sample.label for sample in rows}
    order = classes if classes is not None else tuple(sorted(labels))
    strange = sorted(labels - set(order))
    if strange:
        raise Refused(
            f"The data set {name} has no class {', '.join(strange)}. Its classes: "
            f"{', '.join(order)}. For classes of your own use --dataset folder."
        )
    return Dataset(name, tuple(c for c in order if c in labels), tuple(rows))


def split_by_subject(samples: list[Sample], test_share: float = 0.3) -> list[Sample]:
    """Train and test without a subject in both, class proportions nearly kept.

    Subjects (images, where subjects are unknown) are taken in an order given by
    a hash of their names; each goes to the test set if its classes have less
    than `test_share` there so far.  No random generator: the same names give
    the same split everywhere, and adding a person moves few others.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.subject or sample.id, []).append(sample)
    seen: Counter[str] = Counter()
    tested: Counter[str] = Counter()
    chosen: dict[str, Split] = {}
    for name in sorted(groups, key=lambda n: hashlib.blake2b(n.encode(), digest_size=8).digest()):
        members = Counter(sample.label for sample in groups[name])
        seen += members
        wanted = sum(test_share * seen[label] - tested[label] for label in members)
        is_test = wanted >= sum(members.values()) / 2
        if is_test:
            tested += members
        chosen[name] = "test" if is_test else "train"
    return [replace(sample, split=chosen[sample.subject or sample.id]) for sample in samples]
