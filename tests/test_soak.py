"""Kill -9 at random moments: ten times here, as often as one likes by `make soak`."""

from __future__ import annotations

import os

import pytest

from tests.soak import Soak

KILLS = int(os.environ.get("SOAK_KILLS", "100"))


TEN = ("crop zarr", "crop photos hdf5", "extract hdf5", "extract with crops zarr",
       "finalize zarr", "finalize hdf5", "convert to zarr", "convert to hdf5",
       "train on zarr", "train on hdf5")  # fmt: skip


@pytest.mark.parametrize("name", TEN)
def test_a_killed_command_ends_as_if_nothing_had_been(soak: Soak, name: str) -> None:
    soak.kill(name)


@pytest.mark.soak
def test_soak(soak: Soak) -> None:
    """All commands in turn, on both stores, some killed twice before they may end."""
    names = sorted(soak.cases)
    while soak.kills.total() < KILLS:
        for k, name in enumerate(names):
            if soak.kills.total() < KILLS:
                soak.kill(name, 1 + k % 2)
                print(f"{soak.kills.total():4} kills; last: {name}", flush=True)
    for what in (soak.kills, soak.moments):
        print("\n".join(f"  {count:4} {name}" for name, count in sorted(what.items())), flush=True)
