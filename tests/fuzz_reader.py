"""The victim of the fuzzer, a process of its own: reads what it is told to, with little memory.

One line in (`read PATH` or `finish PATH`), one line of JSON out.  A crash, a hang, or memory
without end is then seen by who has sent the line, and harms nobody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from blake3 import blake3

from cache.care.verify import steps, verify
from cache.errors import Refused
from cache.find import find
from cache.parts import unfinished
from cache.progress import works
from cache.reader import Cache
from cache.store import store_reader
from pipeline.caches.info import about, text
from stages.extract.crop import publish_crops

MEMORY = 1 << 30
"""Bytes that may be taken beside what is there after the imports."""


def values(path: Path) -> str:
    """Digest of all that a run takes from a cache."""
    digest = blake3()
    with Cache(path) as cache:
        for name in ("label", "split", "subject", "digest"):
            digest.update(cache.side(name).astype("<i8").tobytes())
        digest.update(cache.bulk().tobytes())
        list(cache.samples())
    return digest.hexdigest()


def read(path: Path) -> list[str]:
    """What each way of looking at a cache comes to: a digest, or how it was refused."""
    outcomes = []
    for way in (values, _verified, _about, _found):
        try:
            outcomes.append(way(path))
        except Refused as error:
            outcomes.append(f"refused: {_sentence(error)}")
    return outcomes


def _sentence(error: Refused) -> str:
    said = str(error)
    assert said, "refused without a word"
    assert len(said) < 3000, "refused with too many words"
    return said


def _verified(path: Path) -> str:
    steps(path)
    report = verify(path, lambda _: None)
    return "whole" if not report.faults else f"refused: {report.faults[0].what}"


def _about(path: Path) -> str:
    said = about(path)
    json.dumps(said)
    return "" if "\x1b" not in text(said) else "a terminal would be commanded"


def _found(path: Path) -> str:
    return str(len(list(find(path.parent))))


def finish(out: Path) -> list[str]:
    """Publish the unfinished crops of `out`."""
    try:
        works(out)
        list(find(out.parent))
        parts = unfinished(out, "crops")
        parts.todo(parts.plan.units)
        publish_crops(parts, store="hdf5", overwrite=False, started=0.0)
        with Cache(out) as cache:
            return [blake3(cache.bulk().tobytes()).hexdigest(), _verified(out)]
    except Refused as error:
        return [f"refused: {_sentence(error)}"]


def main() -> None:
    for store in ("zarr", "hdf5"):  # imported before the memory is limited
        with contextlib.suppress(Refused):
            store_reader(store, Path("nowhere"))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        word, _, name = line.rstrip("\n").partition(" ")
        answer: dict[str, Any]
        try:
            answer = {"outcomes": {"read": read, "finish": finish}[word](Path(name))}
        except BaseException:
            answer = {"error": traceback.format_exc()[-3000:]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
