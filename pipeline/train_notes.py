"""What a person should know of a run before it starts, and may have overlooked."""

from __future__ import annotations

from cache.schema import Manifest
from pipeline.console import say
from pipeline.params import Params
from stages.train.scenario import Scenario


def tell_tasks(scenario: Scenario, params: Params, classes: tuple[str, ...]) -> None:
    """Classes without a task, tasks of a single class, tasks of few rows."""
    left = [name for name in classes if name not in scenario.class_order]
    if left:
        say(f"Note: --class-order leaves out {', '.join(left)}.")
    alone = scenario.single_class_tasks
    if alone and scenario.name != "class":  # class-incrementally other classes compete
        names = "; ".join(f"task {k + 1}: {scenario.tasks[k].classes[0]}" for k in alone)
        effect = "always answered right" if scenario.name == "task" else "nothing to choose"
        say(f"Warning: tasks of a single class ({names}): {effect}.")
    for task in scenario.tasks:
        if len(task.train_rows) < params.train.batch_size:
            say(
                f"Note: task {task.index + 1} has {len(task.train_rows)} training rows, fewer than "
                f"a batch of {params.train.batch_size}: rows repeat within a batch."
            )


def tell_leakage(manifest: Manifest) -> None:
    """A root that knows the classes makes forgetting look smaller than it is."""
    seen = manifest.info.trained_on
    known = [name for name in manifest.classes if seen is not None and name in seen.names]
    if seen is not None and known:
        say(
            f"Note: the root was trained on {seen.data}, which shows {len(known)} of these "
            f"{len(manifest.classes)} classes (in other images)."
        )
