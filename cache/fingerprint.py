"""Which cache is it?  The digest of everything that decides its content.

Paths, times, hosts, devices, batch sizes, worker counts and library versions
are provenance, kept elsewhere: they never enter a fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

Settings = dict[str, Any]
"""Nested dicts, lists, strings, whole numbers, floats, booleans and None."""


def canonical_json(settings: Settings) -> str:
    """One text for equal settings: keys sorted, no spaces, ASCII.

    Raises:
        ValueError: NaN or infinity, which JSON cannot say.
        TypeError: anything that is no plain JSON value.
    """
    return json.dumps(
        settings, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def nested(settings: Settings, key: str) -> Settings:
    """What is nested in a stranger's settings under `key`; empty where there are no settings."""
    found = settings.get(key)
    return found if isinstance(found, dict) else {}


def fingerprint(settings: Settings) -> str:
    """`blake2b:` and 40 hexadecimal digits."""
    digest = hashlib.blake2b(canonical_json(settings).encode(), digest_size=20)
    return f"blake2b:{digest.hexdigest()}"


def short(key: str) -> str:
    """The first 12 digits, for folder names and messages."""
    return key.rpartition(":")[2][:12]


def differences(expected: Settings, found: Settings, prefix: str = "") -> list[str]:
    """One line for each field that differs, named by its dotted path."""
    lines = []
    for key in sorted(expected.keys() | found.keys()):
        name = f"{prefix}{key}"
        wanted, got = expected.get(key, "(absent)"), found.get(key, "(absent)")
        if isinstance(wanted, dict) and isinstance(got, dict):
            lines += differences(wanted, got, f"{name}.")
        elif canonical_json({"": wanted}) != canonical_json({"": got}):
            lines.append(f"{name}: expected {wanted!r}, found {got!r}")
    return lines
