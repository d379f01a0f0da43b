"""A cache into memory, every check on, against `np.load` of the same bytes, the page cache warm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache.reader import Cache
from cache.store import STORES
from tests.bench.measuring import Bench
from tests.making import make_cache

pytestmark = pytest.mark.bench


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


def _load(path: Path) -> np.ndarray:
    with Cache(path) as cache:
        return cache.bulk()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("what", ["latents", "crops"])
def test_load(bench: Bench, store: str, what: str, tmp_path: Path) -> None:
    rows = _latents(4096) if what == "latents" else _crops(2048)
    make_cache(tmp_path / "c", store, rows, shard_rows=256)
    np.save(tmp_path / "plain.npy", rows)
    assert np.array_equal(_load(tmp_path / "c"), np.load(tmp_path / "plain.npy"))
    on_disk = sum(f.stat().st_size for f in (tmp_path / "c").rglob("*") if f.is_file())
    bench.compare(
        f"load {what} from {store}",
        lambda: _load(tmp_path / "c"),
        lambda: np.load(tmp_path / "plain.npy"),
        against="np.load",
        equal=f"{rows.nbytes / 1e6:.0f} MB, {rows.dtype}, page cache warm, equal arrays",
        aim=">= 0.7" if what == "latents" else "none",
        repeats=15,
        note=f"{on_disk / rows.nbytes:.2f} of its bytes on disk",
    )


@pytest.mark.parametrize("store", STORES)
def test_chunks_at_random_places(bench: Bench, store: str, tmp_path: Path) -> None:
    """As training that keeps latents on the disk reads them, each chunk once."""
    rows = _latents(4096)
    make_cache(tmp_path / "c", store, rows, shard_rows=512)
    np.save(tmp_path / "plain.npy", rows)
    with Cache(tmp_path / "c") as cache:
        step = cache.chunk_rows
        starts = np.random.default_rng(0).permutation(len(rows) // step) * step

        def ours() -> None:
            for start in starts.tolist():
                cache.bulk_rows(start, start + step)

        def mapped() -> None:
            plain = np.load(tmp_path / "plain.npy", mmap_mode="r")
            for start in starts.tolist():
                np.array(plain[start : start + step])

        bench.compare(
            f"{len(starts)} chunks at random from {store}",
            ours,
            mapped,
            against="np.load memory-mapped, copied",
            equal=f"{rows.nbytes / 1e6:.0f} MB, {step} rows of 4096 float32 at a time",
            aim="none",
            repeats=15,
        )
