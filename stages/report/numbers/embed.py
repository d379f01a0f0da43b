"""Which latents are neighbours, on a plane: t-SNE (van der Maaten & Hinton 2008)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.report.reading.replay_file import Replayed

MOST = 1000
"""Points that are embedded, half of them replayed: 2.4 s on one core, 6 s for twice as many."""
_PERPLEXITY = 30.0
_FEWEST = 10


def available() -> bool:
    """Whether scikit-learn is there, and whole."""
    try:
        import sklearn.manifold  # noqa: F401
    except ImportError:
        return False
    return True


def thinned(replayed: Replayed, most: int = MOST) -> NDArray[np.int64]:
    """Positions of at most `most` points, spread evenly over the real and over the replayed."""
    parts = [np.flatnonzero(~replayed.generated), np.flatnonzero(replayed.generated)]
    if sum(map(len, parts)) <= most:
        return np.sort(np.concatenate(parts))
    fewer = min(len(part) for part in parts)
    room = [min(len(part), most - min(fewer, most // 2)) for part in parts]
    kept = [
        part[np.linspace(0, len(part) - 1, count).round().astype(np.int64)]
        for part, count in zip(parts, room, strict=True)
    ]
    return np.sort(np.concatenate(kept))


def perplexity(count: int) -> float:
    """Neighbours that count for each of so many points."""
    return min(_PERPLEXITY, (count - 1) / 3)


def embedded(points: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """(n, k) scores to (n, 2), the same for the same scores, on one core; None: there are too
    few of them, or they do not differ.

    Raises:
        ImportError: no scikit-learn; see `available`.
    """
    if len(points) < _FEWEST or points.shape[1] < 2 or np.ptp(points, axis=0).max() == 0:
        return None
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    scaled = points.astype(np.float64)
    scaled /= np.abs(scaled).max()  # distances must not overflow; only their ratios count
    with threadpool_limits(1):  # sums in another order would end in another picture
        tsne = TSNE(perplexity=perplexity(len(points)), init="pca", random_state=0, n_jobs=1)
        found = tsne.fit_transform(scaled)
    return np.asarray(found, np.float64) if np.isfinite(found).all() else None
