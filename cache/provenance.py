"""When, where and with what a cache was made: kept beside it, never compared."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = (
    "lgr-pipe",
    "numpy",
    "pillow",
    "dlib-bin",
    "dlib",
    "torch",
    "torchvision",
    "zarr",
    "h5py",
)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def provenance(started: float) -> dict[str, Any]:
    """`started` in seconds since the epoch, of the run that finished the cache."""
    return {
        "made": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 3),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "versions": versions(),
    }
