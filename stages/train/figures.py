"""One seed's outcome as figures: an entry of `runs` in metrics.json, and its predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.train import confusion, metrics
from stages.train.evaluation import ALSO, Asked, asked_rows
from stages.train.loop import Outcome
from stages.train.scenario import Scenario, average_floor, majority_floor


def figures(outcome: Outcome, scenario: Scenario) -> dict[str, Any]:
    """Fractions, seconds, bytes; None where undefined.  Ready for JSON."""
    r = outcome.accuracy_matrix
    floors = [majority_floor(scenario, task) for task in scenario.tasks]
    return {
        "accuracy_matrix": _table(r),
        "untrained_accuracy": [_number(v) for v in outcome.untrained],
        "average_accuracy": metrics.average_accuracy(r),
        "average_incremental_accuracy": _number(metrics.average_incremental_accuracy(r)),
        "learning_accuracy": _number(metrics.learning_accuracy(r)),
        "forgetting": _number(metrics.forgetting(r)),
        "bwt": _number(metrics.backward_transfer(r)),
        "fwt": _number(metrics.forward_transfer(r, outcome.untrained)),
        **_by_class(outcome, scenario),
        "also": _also(outcome, scenario),
        "majority_floor": average_floor(scenario),
        "majority_floor_by_task": floors,
        "train_seconds": round(outcome.train_seconds, 3),
        "memory_bytes": outcome.memory,
        "macs_per_iteration": outcome.macs,
        "replay": outcome.replay,
    }


def _by_class(outcome: Outcome, scenario: Scenario) -> dict[str, Any]:
    """What is read off the confusion matrix of the last answers (rows: true, columns:
    answered), over `class_order`; domain-incrementally over the shared outputs."""
    counts = confusion.confusion_matrix(
        asked_rows(scenario).targets, outcome.last.answers, scenario.outputs
    )
    return {
        "confusion": counts.tolist(),
        "recall": [_number(v) for v in confusion.recall(counts)],
        "macro_f1": _number(confusion.macro_f1(counts)),
        "balanced_accuracy": _number(confusion.balanced_accuracy(counts)),
    }


def _also(outcome: Outcome, scenario: Scenario) -> dict[str, Any] | None:
    """The same logits in the related scenario."""
    if outcome.also_matrix is None:
        return None
    return {
        "scenario": ALSO[scenario.name],
        "accuracy_matrix": _table(outcome.also_matrix),
        "average_accuracy": metrics.average_accuracy(outcome.also_matrix),
        "average_incremental_accuracy": _number(
            metrics.average_incremental_accuracy(outcome.also_matrix)
        ),
        "forgetting": _number(metrics.forgetting(outcome.also_matrix)),
    }


def predictions(outcome: Outcome, scenario: Scenario) -> dict[str, NDArray[np.int64]]:
    """The answers at the end, each (M,) int64: rows (in the cache), tasks (0-based), targets and
    answers, and also (in the related scenario, where there is one), as places in `class_order`.
    """
    asked = asked_rows(scenario)
    found = {
        "rows": asked.rows,
        "tasks": asked.tasks,
        "targets": _classes(asked.targets, asked, scenario),
        "answers": _classes(outcome.last.answers, asked, scenario),
    }
    if outcome.last.also is not None:
        found["also"] = _classes(outcome.last.also, asked, scenario)
    return found


def _classes(outputs: NDArray[np.int64], asked: Asked, scenario: Scenario) -> NDArray[np.int64]:
    """Domain-incrementally an output stands for another class in each task."""
    if scenario.name != "domain":
        return outputs
    shifted: NDArray[np.int64] = outputs + np.array(scenario.starts)[asked.tasks]
    return shifted


def _table(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    return [[_number(v) for v in row] for row in matrix]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
