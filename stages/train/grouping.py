"""Which classes are learnt together, and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cache.errors import Refused

Groups = list[tuple[str, ...]]
"""The tasks' classes."""


def group_classes(classes: Sequence[str], tasks: int, order: str, *, uneven: bool) -> Groups:
    """Tasks from an order: `natural`, a seed (a number), or the groups themselves.

    Groups are written as `anger,happiness;sadness,surprise`; they decide the
    number of tasks, and may leave classes out.

    Raises:
        Refused: no such order, or groups that do not fit (see `cut_classes`).
    """
    text = order.strip()
    if text == "natural":
        return cut_classes(classes, tasks, uneven=uneven)
    if text.isdecimal():
        return cut_classes(shuffled(classes, int(text)), tasks, uneven=uneven)
    return _explicit(classes, text, uneven=uneven)


def shuffled(classes: Sequence[str], seed: int) -> list[str]:
    """An order that depends on the seed and the names alone, the same everywhere.

    The LGR code shuffles with numpy's generator where it shuffles; the
    published runs on faces keep the natural order (reference: the paper's
    section IV-A says otherwise).
    """

    def key(name: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()

    return sorted(classes, key=key)


def cut_classes(classes: Sequence[str], tasks: int, *, uneven: bool) -> Groups:
    """Groups of consecutive classes, one a task; earlier tasks take the remainder.

    >>> cut_classes("abcd", 2, uneven=False)
    [('a', 'b'), ('c', 'd')]

    Raises:
        Refused: more tasks than classes; or groups of unequal size without `uneven`.
    """
    if not 1 <= tasks <= len(classes):
        raise Refused(
            f"{tasks} tasks cannot be made of {len(classes)} classes ({', '.join(classes)}): "
            f"--tasks must lie between 1 and {len(classes)}."
        )
    base, rest = divmod(len(classes), tasks)
    groups, start = [], 0
    for index in range(tasks):
        stop = start + base + (index < rest)
        groups.append(tuple(classes[start:stop]))
        start = stop
    if rest and not uneven:
        even = [n for n in range(1, len(classes) + 1) if len(classes) % n == 0]
        raise Refused(
            f"{len(classes)} classes do not divide into {tasks} tasks. {_each(groups)} "
            f"Add --uneven to accept that, or choose --tasks "
            f"{' or '.join(str(n) for n in even)}."
        )
    return groups


def _explicit(classes: Sequence[str], text: str, *, uneven: bool) -> Groups:
    groups = [
        tuple(name.strip() for name in group.split(",") if name.strip())
        for group in text.split(";")
    ]
    names = [name for group in groups for name in group]
    strange = sorted(set(names) - set(classes))
    if strange or not all(groups):
        raise Refused(
            f"--class-order must be natural, a seed, or groups such as "
            f"{','.join(classes[:2])};{','.join(classes[2:4])}, got {text!r}"
            + (f": there is no class {', '.join(strange)}" if strange else "")
            + f". The classes: {', '.join(classes)}."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(f"--class-order names {', '.join(twice)} more than once.")
    if len({len(group) for group in groups}) > 1 and not uneven:
        raise Refused(f"These groups are not of one size. {_each(groups)} Add --uneven to accept.")
    return groups


def _each(groups: Groups) -> str:
    each = "; ".join(f"task {k + 1}: {', '.join(group)}" for k, group in enumerate(groups))
    alone = any(len(group) == 1 for group in groups)
    more = " A task of one class is always answered right." if alone else ""
    return f"Each would get: {each}.{more}"
