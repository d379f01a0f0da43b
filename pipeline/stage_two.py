"""Wire stage two: settings -> cache in memory -> one run a seed -> metrics.json, run.json."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from cache.errors import CacheExistsError, CacheMismatchError, Refused
from cache.files import write_json
from cache.provenance import versions
from cache.reader import Cache
from pipeline.console import command_line, progress, say
from pipeline.params import Params, parse_seeds
from stages import strategies
from stages.train.loop import figures, run
from stages.train.scenario import Scenario, cut_classes, make_scenario
from stages.train.strategy import Setup, heads_of
from stages.train.view import Data

METRICS, RUN = "metrics.json", "run.json"


def train(
    params: Params,
    strategy: str,
    cache_path: Path,
    out: Path,
    *,
    backbone: str | None,
    given: dict[str, str],
    device: str,
    overwrite: bool,
) -> None:
    """Run `strategy` for each seed over one resident cache and write the results to `out`."""
    method = strategies.module(strategy)
    options = read_options(strategy, {**params.options.get(strategy, {}), **given})
    _refuse_taken(out, overwrite=overwrite)
    with Cache(cache_path) as cache:
        cache.expect("latents")
        info, manifest = cache.manifest.info, cache.manifest
        if backbone is not None and info.backbone != backbone:
            raise CacheMismatchError(
                f"{cache_path} holds latents of {info.backbone}, --backbone asks for {backbone}."
            )
        groups = cut_classes(manifest.classes, params.train.tasks, uneven=params.train.uneven)
        scenario = make_scenario(
            params.train.scenario,
            manifest.classes,
            cache.side("label"),
            cache.split_rows("train"),
            cache.split_rows("test"),
            groups,
        )
        _warn(scenario, params)
        latents = torch.from_numpy(cache.bulk("float32")).to(device)
    data = Data(latents, torch.from_numpy(scenario.targets).to(device))
    seeds = parse_seeds(params.train.seeds)
    out.mkdir(parents=True, exist_ok=True)  # now, not after an hour of training
    runs = []
    with progress(f"train {strategy}", params.train.iters * len(groups) * len(seeds), "it") as tick:
        for seed in seeds:
            setup = Setup(
                dim=latents.shape[1],
                heads=heads_of(scenario),
                scenario=scenario.name,
                iters=params.train.iters,
                batch_size=params.train.batch_size,
                lr=params.train.lr,
                seed=seed,
                device=device,
                unit_range=info.value_range == (0.0, 1.0),
                tick=lambda: tick(1),
            )
            outcome = run(method.Method(setup, options), data, scenario)
            runs.append({"seed": seed, **figures(outcome, scenario)})
    accuracies = [entry["average_accuracy"] for entry in runs]
    metrics = {
        "strategy": strategy,
        "dataset": info.dataset,
        "backbone": info.backbone,
        "weights": info.weights,
        "scenario": scenario.name,
        "tasks": len(scenario.tasks),
        "class_order": list(scenario.class_order),
        "task_classes": [list(task.classes) for task in scenario.tasks],
        "single_class_tasks": scenario.single_class_tasks,
        "cache_fingerprint": manifest.fingerprint,
        "cache_content": manifest.content,
        "iters": params.train.iters,
        "batch_size": params.train.batch_size,
        "lr": params.train.lr,
        "average_accuracy_mean": statistics.fmean(accuracies),
        "average_accuracy_sd": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "runs": runs,
    }
    _write(params, strategy, options, cache_path, out, device, metrics)
    say(_sentence(metrics, out))


def read_options(strategy: str, given: dict[str, Any]) -> Any:
    """The strategy's options dataclass, filled.

    Raises:
        Refused: an option that it does not have, or a value that does not fit.
    """
    kind = strategies.module(strategy).Options
    known = {name: str(getattr(kind(), name)) for name in kind.__dataclass_fields__}
    named = {key.replace("-", "_"): value for key, value in given.items()}
    strange = sorted(named.keys() - known.keys())
    if strange:
        has = ", ".join(f"--{name.replace('_', '-')} (default {v})" for name, v in known.items())
        raise Refused(
            f"{strategy} has no option --{strange[0].replace('_', '-')}. "
            f"{'Its options: ' + has if has else 'It has no options of its own'}; "
            "train's own are in lgr-pipe train --help, all strategies' in lgr-pipe strategies."
        )
    try:
        return TypeAdapter(kind).validate_python(named)
    except ValidationError as error:
        mistake = error.errors()[0]
        where = " ".join(f"--{str(part).replace('_', '-')}" for part in mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        raise Refused(f"{strategy}: {where} {message} (got {mistake['input']!r}).") from None


def _refuse_taken(out: Path, *, overwrite: bool) -> None:
    """A folder with results is kept unless --overwrite; one with other things always."""
    if not out.exists():
        return
    if not out.is_dir():
        raise CacheExistsError(f"{out} exists already and is no folder: choose another --out.")
    strange = sorted(p.name for p in out.iterdir() if p.name not in (METRICS, RUN))
    if strange:
        raise CacheExistsError(
            f"{out} exists already and holds other things ({strange[0]}): choose another --out."
        )
    if (out / METRICS).exists() and not overwrite:
        raise CacheExistsError(
            f"{out} holds the results of a finished run: add --overwrite to replace them, "
            "or choose another --out."
        )


def _warn(scenario: Scenario, params: Params) -> None:
    for index in scenario.single_class_tasks:
        name = scenario.tasks[index].classes[0]
        effect = "it is always answered right" if scenario.name == "task" else "nothing to choose"
        say(f"Warning: task {index + 1} has a single class ({name}): {effect}.")
    for task in scenario.tasks:
        if len(task.train_rows) < params.train.batch_size:
            say(
                f"Note: task {task.index + 1} has {len(task.train_rows)} training rows, fewer than "
                f"a batch of {params.train.batch_size}: rows repeat within a batch."
            )


def _write(
    params: Params,
    strategy: str,
    options: Any,
    cache_path: Path,
    out: Path,
    device: str,
    metrics: dict[str, Any],
) -> None:
    """run.json, then metrics.json: its presence says that the run is finished."""
    (out / METRICS).unlink(missing_ok=True)
    write_json(
        out / RUN,
        {
            "command": command_line(),
            "strategy": strategy,
            "options": asdict(options),
            "train": params.train.model_dump(mode="json"),
            "cache": str(cache_path),
            "cache_fingerprint": metrics["cache_fingerprint"],
            "cache_content": metrics["cache_content"],
            "device": device,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "versions": versions(),
        },
    )
    write_json(out / METRICS, metrics)


def _sentence(metrics: dict[str, Any], out: Path) -> str:
    mean, sd = metrics["average_accuracy_mean"], metrics["average_accuracy_sd"]
    runs = metrics["runs"]
    spread = "" if sd is None else f" ± {100 * sd:.2f}"
    seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
    seconds = sum(entry["train_seconds"] for entry in runs)
    return (
        f"{metrics['strategy']}: accuracy {100 * mean:.2f}{spread} % over {seeds} "
        f"(majority floor {100 * runs[0]['majority_floor']:.2f} %), {seconds:.1f} s of training; "
        f"weights: {metrics['weights']}. Written to {out}"
    )
