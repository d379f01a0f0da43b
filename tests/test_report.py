"""The table: what it shows, what it refuses to mix."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import Refused
from stages.report.runs import find_runs
from stages.report.table import csv_text, markdown


def write(folder: Path, strategy: str, accuracies: list[float], **changes: Any) -> None:
    runs = [
        {
            "seed": seed,
            "accuracy_matrix": [[0.9, 0.5], [0.8, 0.9]],
            "average_accuracy": accuracy,
            "forgetting": None if strategy == "joint" else 0.1,
            "bwt": None if strategy == "joint" else -0.1,
            "fwt": None,
            "majority_floor": 0.5,
            "train_seconds": 2.0,
            "memory_bytes": {"buffer": 1_500_000},
        }
        for seed, accuracy in enumerate(accuracies)
    ]
    metrics = {
        "strategy": strategy,
        "dataset": "drawn",
        "backbone": "vgg16",
        "weights": "random (seed 0, calibrated)",
        "scenario": "task",
        "tasks": 2,
        "class_order": ["a", "b", "c"],
        "single_class_tasks": [1],
        "cache_fingerprint": "f",
        "cache_content": "c",
        "iters": 10,
        "batch_size": 4,
        "lr": 1e-4,
        "runs": runs,
    }
    (folder / strategy).mkdir(parents=True)
    (folder / strategy / "metrics.json").write_text(json.dumps({**metrics, **changes}))


def _cells(text: str, strategy: str) -> list[str]:
    line = next(x for x in text.splitlines() if x.startswith(f"| {strategy} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.8, 0.9])
    write(tmp_path, "lr", [0.7])
    write(tmp_path, "joint", [0.95, 0.97])
    text = markdown(find_runs([tmp_path]))
    none = ["none", "2", "**85.00 ± 7.07**", "10.00 ± 0.00", "-10.00 ± 0.00", "–", "2.0 ± 0.0"]
    assert _cells(text, "none")[:7] == none
    assert _cells(text, "lr")[:3] == ["lr", "1", "[70.00]"]
    assert _cells(text, "joint")[:4] == ["joint", "2", "96.00 ± 1.41", "–"]
    assert _cells(text, "majority floor")[2] == "50.00"
    order = [x.split("|")[1].strip() for x in text.splitlines() if x.startswith("| ")]
    assert order == ["strategy", "majority floor", "none", "lr", "joint"]
    assert "root is random" in text
    assert "task 2 has a single class" in text


def test_no_minus_zero(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.8])
    path = tmp_path / "none" / "metrics.json"
    path.write_text(path.read_text().replace('"bwt": -0.1', '"bwt": -1e-9'))
    assert _cells(markdown(find_runs([tmp_path])), "none")[4] == "0.00"


def test_none_and_joint_are_always_there(tmp_path: Path) -> None:
    write(tmp_path, "lgr", [0.7], weights="ImageNet (IMAGENET1K_V1)", single_class_tasks=[])
    text = markdown(find_runs([tmp_path]))
    assert _cells(text, "none")[2] == _cells(text, "joint")[2] == "not run"
    assert "random" not in text
    assert "single class" not in text


def test_csv(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.8, 0.9])
    rows = list(csv.DictReader(io.StringIO(csv_text(find_runs([tmp_path])))))
    assert [row["strategy"] for row in rows] == ["majority floor", "none", "joint"]
    assert float(rows[1]["average_accuracy_mean"]) == pytest.approx(0.85)
    assert rows[1]["fwt_mean"] == ""
    assert float(rows[0]["average_accuracy_mean"]) == 0.5


@pytest.mark.parametrize(
    ("field", "value"),
    [("tasks", 4), ("cache_content", "other"), ("scenario", "class"), ("iters", 20)],
)
def test_different_studies_are_not_mixed(tmp_path: Path, field: str, value: object) -> None:
    write(tmp_path, "none", [0.8])
    write(tmp_path, "lr", [0.8], **{field: value})
    with pytest.raises(Refused, match=f"(?s)not comparable.*{field}"):
        find_runs([tmp_path])


def test_two_runs_of_one_strategy_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "first", "none", [0.8])
    write(tmp_path / "second", "none", [0.9])
    with pytest.raises(Refused, match="both runs of none"):
        find_runs([tmp_path])


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no finished runs"):
        find_runs([tmp_path])
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(Refused, match="not what lgr-pipe train writes"):
        find_runs([tmp_path])
