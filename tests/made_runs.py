"""Run folders of any shape, made without training: figures are made up, but fit each other."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

FACES = ("anger", "happiness", "sadness", "surprise", "disgust", "fear", "contempt", "neutral")
GENERATIVE = ("dgr", "lgr", "dgr+d", "lgr+d")
_LEVEL = {"none": 0.8, "lgr": 0.65, "lgr+d": 0.87, "lr": 0.88, "nr": 0.88, "joint": 0.9}
_KEPT = {
    "lr": {"buffer": 1_640_000},
    "nr": {"buffer": 3_000_000},
    "lgr": {"generator": 7_133_584, "snapshots": 9_235_376},
    "lgr+d": {"generator": 7_133_584, "snapshots": 9_235_376},
    "dgr": {"generator": 390_000_000, "snapshots": 460_000_000},
    "dgr+d": {"generator": 390_000_000, "snapshots": 460_000_000},
    "cumulative": {"buffer": 11_000_000},
}


@dataclass(frozen=True)
class Made:
    """What a made-up run is like; `changes` are of the top level of metrics.json, `about` of
    run.json, where None leaves the file out."""

    strategy: str
    seeds: tuple[int, ...] = (0, 1, 2)
    classes: tuple[str, ...] = FACES
    tasks: int = 4
    scenario: str = "task"
    level: float | None = None
    """Accuracy to be about; None: by strategy."""
    options: dict[str, Any] = field(default_factory=dict)
    variance_ratio: float = 0.04
    recorded: bool = True
    """False: as runs were before replays and resources were recorded."""
    faces: bool = False
    """With generated images."""
    changes: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] | None = field(default_factory=dict)

    def groups(self) -> list[list[str]]:
        return [list(part) for part in np.array_split(np.array(self.classes), self.tasks)]


def write_study(folder: Path, *strategies: str, **same: Any) -> list[Path]:
    """Run folders below `folder`, named after their strategies."""
    return [write_run(folder / name, Made(name, **same)) for name in strategies]


def write_run(folder: Path, made: Made) -> Path:
    """All files of a finished run but log.jsonl and checkpoints; returns the folder."""
    folder.mkdir(parents=True)
    runs = [_seed_run(made, seed) for seed in made.seeds]
    groups = made.groups()
    metrics = {
        "strategy": made.strategy,
        "dataset": "drawn",
        "backbone": "vgg16",
        "weights": "random (seed 0, calibrated)",
        "scenario": made.scenario,
        "protocol": "corrected",
        "evaluated_on": "test",
        "validation": 0.0,
        "tasks": made.tasks,
        "class_order": list(made.classes),
        "task_classes": groups,
        "task_train_rows": [84 * len(group) for group in groups],
        "task_test_rows": [36 * len(group) for group in groups],
        "single_class_tasks": [k for k, group in enumerate(groups) if len(group) == 1],
        "cache_fingerprint": "blake2b:00",
        "cache_content": "blake3:00",
        "cache_rows": 120 * len(made.classes),
        "latent_dim": 4096,
        "root_macs": 3_067_390_976,
        "iters": 500,
        "batch_size": 32,
        "lr": 1e-4,
        "runs": runs,
    }
    (folder / "metrics.json").write_text(json.dumps({**metrics, **made.changes}))
    if made.about is not None:
        (folder / "run.json").write_text(json.dumps(_about(made, folder) | made.about))
    if made.recorded:
        _write_resources(folder / "resources.csv", made)
        if made.strategy in (*GENERATIVE, "lr", "nr") and made.tasks > 1:
            _write_replay(folder / "replay.safetensors", made)
    return folder


def _seed_run(made: Made, seed: int) -> dict[str, Any]:
    random = np.random.default_rng([seed, *made.strategy.encode()])
    level = _LEVEL.get(made.strategy, 0.75) if made.level is None else made.level
    joint, tasks = made.strategy == "joint", made.tasks
    matrix = np.clip(level + random.normal(0, 0.04, (tasks, tasks)), 0, 1)
    matrix += np.triu(np.full((tasks, tasks), 0.5) - matrix, 1)  # chance, before it is learnt
    table: list[list[float | None]] = matrix.round(4).tolist()
    if joint:
        table = [*[[None] * tasks for _ in range(tasks - 1)], table[-1]]
    if made.scenario == "class":
        table = [[v if j <= i else None for j, v in enumerate(row)] for i, row in enumerate(table)]
    last = np.array([value for value in table[-1] if value is not None])
    diagonal = np.diag(matrix)
    lost = matrix[:-1].max(0)[:-1] - matrix[-1][:-1] if tasks > 1 else np.zeros(0)
    counts = _confusion(made, level, random)
    recall = np.diag(counts) / counts.sum(1)
    seconds = 2.0 + 10 * (made.strategy in GENERATIVE) + random.random()
    return {
        "seed": seed,
        "accuracy_matrix": table,
        "untrained_accuracy": [0.5] * tasks,
        "average_accuracy": float(last.mean()),
        "average_incremental_accuracy": None
        if joint
        else float(np.mean([matrix[k, : k + 1].mean() for k in range(tasks)])),
        "learning_accuracy": None if joint else float(diagonal.mean()),
        "forgetting": None if joint or tasks < 2 else float(lost.mean()),
        "bwt": None if joint or tasks < 2 else float((matrix[-1] - diagonal)[:-1].mean()),
        "fwt": None if joint or tasks < 2 else 0.0,
        "confusion": counts.tolist(),
        "recall": recall.tolist(),
        "macro_f1": float(recall.mean()),
        "balanced_accuracy": float(recall.mean()),
        "also": None,
        "majority_floor": 1 / len(made.groups()[0]),
        "majority_floor_by_task": [1 / len(group) for group in made.groups()],
        "train_seconds": round(seconds, 3),
        "memory_bytes": _KEPT.get(made.strategy, {}),
        "macs_per_iteration": {"top": 50_400_000},
        "resources": {"period_seconds": 0.1, **_resources(seconds, made.recorded)},
        **({"replay": _replays(made, random)} if made.recorded else {}),
    }


def _confusion(made: Made, level: float, random: np.random.Generator) -> NDArray[np.int64]:
    """36 rows of each class, confused within its task."""
    counts = np.zeros((len(made.classes), len(made.classes)), np.int64)
    start = 0
    for group in made.groups():
        for k in range(len(group)):
            right = int(np.clip(round(36 * (level + random.normal(0, 0.08))), 0, 36))
            others = [j for j in range(len(group)) if j != k] or [k]
            counts[start + k, start + k] += right
            for n in range(36 - right):
                counts[start + k, start + others[n % len(others)]] += 1
        start += len(group)
    return counts


def _resources(seconds: float, recorded: bool) -> dict[str, Any]:
    def cost(share: float) -> dict[str, Any]:
        return {
            "wall_seconds": round(seconds * share, 6),
            "cpu_seconds": round(2 * seconds * share, 6),
            "rss_peak_bytes": 650_000_000,
            "rss_growth_bytes": 20_000_000,
            "gpu_utilisation_percent": None,
            "gpu_memory_peak_bytes": None,
            "samples": 10,
        }

    shares = {"load": 0.1, "solver": 0.3, "generator": 0.4, "replay": 0.1, "other": 0.1}
    phases = {name: cost(share) for name, share in shares.items()} if recorded else {}
    return {"total": cost(1.0), "phases": phases}


def _replays(made: Made, random: np.random.Generator) -> list[dict[str, Any]]:
    generated = made.strategy in GENERATIVE
    if not generated and made.strategy not in ("lr", "nr"):
        return []
    found = []
    for learnt in range(1, made.tasks):
        seen = made.groups()[:learnt]
        labels: dict[str, int] = {}
        for group in seen:
            most = 0.97 if generated and made.variance_ratio < 0.1 else 1 / len(group)
            rest = [int(200 * (1 - most) / max(len(group) - 1, 1))] * (len(group) - 1)
            labels |= dict(zip(group, [200 - sum(rest), *rest], strict=True))
        ratio = made.variance_ratio if generated else 0.98
        found.append(
            {
                "learnt": learnt,
                "kind": "generated" if generated else "stored",
                "drawn": 200,
                "variance_ratio": float(ratio * (1 + random.normal(0, 0.02))),
                "labels": labels,
                "ncm_agreement": 0.6 if generated else 0.9,
                "ncm_agreement_real": 0.9,
            }
        )
    return found


def _about(made: Made, folder: Path) -> dict[str, Any]:
    rows = {"train": 84, "test": 36, "validation": 0}
    count = len(made.classes)
    return {
        "command": f"lgr-pipe train --strategy {made.strategy} --cache c --out {folder.name}",
        "options": ({"generator_units": 200} if made.strategy in GENERATIVE else {}) | made.options,
        "train": {"seeds": ",".join(map(str, made.seeds)), "early_stopping": 0, "period": 0.1},
        "seeds": list(made.seeds),
        "started": "2026-01-02T03:04:05+00:00",
        "cache": "data/latents/vgg16",
        "crops": None,
        "cache_bytes": 15_947_264,
        "device": "cpu",
        "gpu": None,
        "threads": 2,
        "cores": 2,
        "processor": "A Processor",
        "memory_bytes": 16_000_000_000,
        "platform": "Linux",
        "versions": {"python": "3.11.7", "lgr-pipe": "0.1.0", "torch": "2.15.0"},
        "data": {
            "classes": dict.fromkeys(made.classes, rows),
            "subjects": {"train": 21, "test": 9},
            "images": {"found": 119 * count, "whole": count, "center": 0, "failed": 0},
            "face_crop": "dlib",
            "pretrained": False,
            "trained_on": None,
            "side": 100,
            "activation": "sigmoid",
        },
        "stage_one": {
            "crop_seconds": 30.0,
            "extract_seconds": 24.0,
            "rows": 120 * count,
            "crop_rows": 120 * count,
        },
    }


def _write_resources(path: Path, made: Made) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["seed", "seconds", "phase", "rss_bytes", "cpu_seconds", "gpu_utilisation_percent",
             "gpu_memory_bytes"]
        )  # fmt: skip
        for seed in made.seeds:
            for k in range(50):
                phase = "solver" if k % 5 else "evaluation"
                rss = 600_000_000 + 1_000_000 * k
                table.writerow([seed, round(0.1 * k, 3), phase, rss, round(0.19 * k, 3), "", ""])


def _write_replay(path: Path, made: Made) -> None:
    """Real latents around their class's place, replayed ones around the mean of all."""
    random = np.random.default_rng(0)
    generated = made.strategy in GENERATIVE
    seen = sum(len(group) for group in made.groups()[:-1])
    labels = np.arange(300) % seen
    places = random.normal(0, 3, (seen, 20))
    real = places[labels] + random.normal(0, 1, (300, 20))
    spread = made.variance_ratio**0.5 if generated else 1.0
    replayed = real.mean(0) + (real - real.mean(0)) * spread
    variance = np.sort(real.var(0))[::-1]
    arrays: dict[str, NDArray[Any]] = {
        "points": np.vstack([real, replayed]).astype(np.float32),
        "generated": np.repeat(np.array([0, 1], np.uint8), 300),
        "label": np.concatenate([labels, labels]).astype(np.int16),
        "explained": (variance / variance.sum()).astype(np.float32),
    }
    if made.faces:
        arrays["images"] = random.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
        arrays["image_labels"] = (np.arange(8) % seen).astype(np.int16)
        arrays["real_rows"] = np.arange(8, dtype=np.int64)
    about = {
        "format": "lgr-pipe replay",
        "seed": str(made.seeds[0]),
        "learnt": str(made.tasks - 1),
        "kind": "generated" if generated else "stored",
    }
    save_file(arrays, path, metadata=about)
