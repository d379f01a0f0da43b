"""A cache into memory, every check on, against `np.load` of the same bytes, the page cache warm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cache.reader import Cache
from cache.store import STORES
from tests.bench.children import apart
from tests.bench.measuring import Bench, seconds_in_turn
from tests.making import make_cache

pytestmark = pytest.mark.bench

PROCESSES, REPEATS = 6, 5
"""Quick or not: a shared machine's cores slow each other for up to a second at a time."""


def _latents(rows: int) -> np.ndarray:
    """As a root's sigmoid gives them: float32 (rows, 4096), which zstd hardly makes smaller."""
    drawn = np.random.default_rng(0).standard_normal((rows, 4096), dtype=np.float32)
    return 1 / (1 + np.exp(-drawn))


def _crops(rows: int) -> np.ndarray:
    """Smooth shades and a little noise, as of a camera: uint8 (rows, 100, 100, 3)."""
    stream = np.random.default_rng(0)
    slope = stream.random((rows, 1, 1, 3), dtype=np.float32) * np.arange(-50, 50)[:, None]
    noise = 3 * stream.standard_normal((rows, 100, 100, 3), dtype=np.float32)
    return np.clip(128 + slope + noise, 0, 255).astype(np.uint8)


def _in_turn(
    ours: Callable[[], object], other: Callable[[], object]
) -> tuple[list[float], list[float]]:
    """Seconds of each, in one process after the other."""
    parts = [apart(partial(seconds_in_turn, ours, other, REPEATS)) for _ in range(PROCESSES)]
    return [s for mine, _ in parts for s in mine], [s for _, its in parts for s in its]


def _load(path: Path) -> np.ndarray:
    with Cache(path) as cache:
        return cache.bulk()


def _mapped(path: Path, starts: list[int], step: int) -> None:
    plain = np.load(path, mmap_mode="r")
    for start in starts:
        np.array(plain[start : start + step])


def _chunks(path: Path, starts: list[int], step: int) -> None:
    with Cache(path) as cache:
        for start in starts:
            cache.bulk_rows(start, start + step)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("what", ["latents", "crops"])
def test_load(bench: Bench, store: str, what: str, tmp_path: Path) -> None:
    rows = _latents(4096) if what == "latents" else _crops(2048)
    cache, plain = tmp_path / "c", tmp_path / "plain.npy"
    make_cache(cache, store, rows, shard_rows=256)
    np.save(plain, rows)
    assert np.array_equal(_load(cache), np.load(plain))
    on_disk = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file())
    bench.add(
        f"load {what} from {store}",
        *_in_turn(partial(_load, cache), partial(np.load, plain)),
        against="np.load",
        equal=f"{rows.nbytes / 1e6:.0f} MB, {rows.dtype}, page cache warm, equal arrays",
        aim=">= 0.7" if what == "latents" else "none",
        note=f"{on_disk / rows.nbytes:.2f} of its bytes on disk",
    )


@pytest.mark.parametrize("store", STORES)
def test_chunks_at_random_places(bench: Bench, store: str, tmp_path: Path) -> None:
    """As training that keeps latents on the disk reads them, each chunk once."""
    rows = _latents(4096)
    path, plain = tmp_path / "c", tmp_path / "plain.npy"
    make_cache(path, store, rows, shard_rows=512)
    np.save(plain, rows)
    with Cache(path) as cache:
        step = cache.chunk_rows
        assert np.array_equal(cache.bulk_rows(step, 2 * step), rows[step : 2 * step])
    starts = (np.random.default_rng(0).permutation(len(rows) // step) * step).tolist()
    ours, other = partial(_chunks, path, starts, step), partial(_mapped, plain, starts, step)
    bench.add(
        f"{len(starts)} chunks at random from {store}",
        *apart(partial(seconds_in_turn, ours, other, 3 if bench.quick else 15)),
        against="np.load memory-mapped, copied",
        equal=f"{rows.nbytes / 1e6:.0f} MB, {step} rows of 4096 float32 at a time",
        aim="none",
    )
