"""Real latents and replayed ones on a plane."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused
from stages.report.figures import points
from stages.report.figures.replay_bars import short
from stages.report.figures.style import look
from stages.report.numbers import embed
from stages.report.numbers.replays import Found, file_names
from stages.report.page.document import Block, Data, Figure, Group, Paragraph, Value, quoted
from stages.report.reading.replay_file import REPLAY, Replayed, read_replay
from stages.report.reading.runs import Run

_LETTERS = 25
"""Of a class name in a legend."""


def latents(found: Found, prefix: str) -> list[Block]:
    """Figures of each run, or why there are none."""
    files = file_names([run for run, _ in found])
    blocks: list[Block] = []
    missing = []
    generated = False
    for run, _ in found:
        try:
            replayed = read_replay(run)
        except Refused as error:
            text = f"The latents of {quoted(run.label)} are not shown: {quoted(str(error))}"
            blocks.append(Paragraph(text, "warning"))
            continue
        if replayed is None:
            missing.append(quoted(run.label))
        elif replayed.points.shape[1] > 1:
            generated |= replayed.kind == "generated"
            blocks += _of_run(run, replayed, f"{prefix}replayed-{files[run.label]}")
    if missing:
        names = ", ".join(missing)
        text = f"The latents of {names} are not there: the run's folder has none in {REPLAY}."
        blocks.append(Paragraph(text, "note"))
    if generated and not embed.available():
        text = "There are no t-SNE figures: scikit-learn cannot be imported. Install it for them."
        blocks.append(Paragraph(text, "note"))
    return blocks


def _of_run(run: Run, replayed: Replayed, name: str) -> list[Block]:
    pca = _pca(run, replayed, name)
    if replayed.kind == "stored" or not embed.available():
        return [pca]
    tsne = _tsne(run, replayed, name)
    return [Group((pca, tsne))] if tsne else [pca]


def _pca(run: Run, replayed: Replayed, name: str) -> Figure:
    first, second = (100 * replayed.explained[:2]).tolist()
    xy, every = replayed.points[:, :2], np.arange(len(replayed.points))
    axes = (f"component 1: {first:.1f} % of the real variance", f"component 2: {second:.1f} %")
    return Figure(
        name=f"{name}-pca",
        title=f"Real latents and those of {quoted(run.label)}, principal components",
        alt=f"Real latents by class, and those that {run.label} replays, on the first two "
        f"principal components of the real ones, which hold {first:.0f} and {second:.0f} % of "
        f"their variance. {_told(replayed)}",
        draw=partial(points.draw, _cloud(run, replayed, xy, every, axes=axes)),
        caption=f"{_counts(replayed, every)} after task {replayed.learnt}, seed "
        f"{replayed.seed}; components of the real latents.",
        data=_data(run, replayed, xy, every, ("pc1", "pc2")),
    )


def _tsne(run: Run, replayed: Replayed, name: str) -> Figure | None:
    kept = embed.thinned(replayed)
    scores = replayed.points[kept]
    xy = embed.embedded(scores)
    if xy is None:
        return None
    return Figure(
        name=f"{name}-tsne",
        title=f"Real latents and those of {quoted(run.label)}, t-SNE",
        alt=f"The same latents of {run.label} laid out so that neighbours stay neighbours. Where "
        "replayed latents form islands of their own, they are unlike the real ones.",
        draw=partial(
            points.draw, _cloud(run, replayed, xy, kept, axes=("t-SNE 1, no unit", "t-SNE 2"))
        ),
        caption=f"{_counts(replayed, kept)}, t-SNE of {scores.shape[1]} principal components, "
        f"perplexity {embed.perplexity(len(kept)):g}, fixed seed. Only who is near whom counts: "
        "t-SNE evens out densities, so that how wide a cloud is says nothing.",
        data=_data(run, replayed, xy, kept, ("tsne1", "tsne2")),
    )


def _counts(replayed: Replayed, kept: NDArray[np.int64]) -> str:
    drawn = int(replayed.generated[kept].sum())
    return f"{len(kept) - drawn} real and {drawn} replayed latents"


def _told(replayed: Replayed) -> str:
    """How the two clouds lie on the first two components, in numbers."""
    plane = replayed.points[:, :2].astype(np.float64)
    real, drawn = plane[~replayed.generated], plane[replayed.generated]
    spread = real.std(axis=0)
    known = spread > 0
    if not known.any():
        return "On the first two components the real latents do not differ."
    share = (drawn.std(axis=0)[known] / spread[known]).mean()
    return (
        f"On these two components the replayed ones spread {100 * share:.0f} % as wide as the real "
        "ones, by standard deviation."
    )


def _cloud(
    run: Run,
    replayed: Replayed,
    xy: NDArray[np.floating],
    kept: NDArray[np.int64],
    *,
    axes: tuple[str, str],
) -> points.Cloud:
    names, of_class = _groups(run, replayed)
    mine = replayed.generated[kept]
    verb = "drawn" if replayed.kind == "generated" else "kept"
    return points.Cloud(
        xy=xy,
        group=of_class[replayed.label[kept]],
        replayed=mine,
        groups=names,
        words=f"{verb} by {short(run.label, 40)} (n = {int(mine.sum())})",
        look=look(run.strategy, run.variant),
        axes=axes,
        scaled=axes[0].startswith("component"),
    )


def _groups(run: Run, replayed: Replayed) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the groups of real latents, and which each class belongs to: classes, or tasks
    where classes are many, or runs of tasks where those are many too."""
    present = sorted(set(replayed.label[~replayed.generated].tolist()))
    of_class = np.zeros(len(run.class_order), np.int64)
    if len(present) <= points.MOST_GROUPS:
        of_class[present] = np.arange(len(present))
        return tuple(short(run.class_order[k], _LETTERS) for k in present), of_class
    tasks = run.task_classes or [[name] for name in run.class_order]
    task_of = {name: k for k, task in enumerate(tasks) for name in task}
    met = sorted({task_of.get(run.class_order[k], 0) for k in present})
    parts = np.array_split(np.array(met), min(len(met), points.MOST_GROUPS))
    group_of = {task: k for k, part in enumerate(parts) for task in part.tolist()}
    for k in present:
        of_class[k] = group_of[task_of.get(run.class_order[k], 0)]
    return tuple(_tasks(part.tolist()) for part in parts), of_class


def _tasks(numbers: list[int]) -> str:
    first, last = numbers[0] + 1, numbers[-1] + 1
    return f"task {first}" if first == last else f"tasks {first}–{last}"


def _data(
    run: Run,
    replayed: Replayed,
    xy: NDArray[np.floating],
    kept: NDArray[np.int64],
    names: tuple[str, str],
) -> Data:
    kinds = ("real", replayed.kind)
    rows: list[tuple[Value, ...]] = [
        (kinds[int(replayed.generated[k])], run.class_order[replayed.label[k]], float(x), float(y))
        for k, (x, y) in zip(kept.tolist(), xy.tolist(), strict=True)
    ]
    return Data(("kind", "class", *names), tuple(rows))
