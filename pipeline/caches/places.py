"""Caches by their places: a folder is read where it is, what lies at a URL is fetched first."""

from __future__ import annotations

import time

from cache.memory import available_memory
from cache.remote.fetch import Where, fetch
from cache.remote.url import Url
from cache.source import Place
from pipeline.console import byte_progress, bytes_text, say


def place(where: Where, *, copies: int = 1, checked: bool = True) -> Place:
    """The folder itself, or the files at a URL, in memory; gone as soon as nobody holds them.

    `copies`: how often what is there will be in memory, the files included.  `checked`: a file
    that is not what was written is refused.

    Raises:
        Refused: as `cache.remote.fetch`.
    """
    if not isinstance(where, Url):
        return where
    if where.exposed:
        say(
            f"Note: {where} comes without encryption. Digests find what was damaged on the way, "
            "not what someone there has changed on purpose: prefer https://."
        )
    started = time.monotonic()
    with byte_progress(f"read {where.name}") as tell:
        found = fetch(where, available_memory() // copies, tell, checked=checked)
    cuts = f" The connection was cut {found.cuts} times." if found.cuts else ""
    held = f"Read {where} into memory: {bytes_text(found.bytes)}"
    say(f"{held} in {time.monotonic() - started:.1f} s.{cuts}")
    return found.place
