"""Wire stage two: settings -> cache in memory -> one run a seed -> metrics.json, run.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from cache.errors import CacheMismatchError, Refused
from cache.reader import Cache
from cache.schema import Manifest
from pipeline import results
from pipeline.console import progress, say
from pipeline.params import Params, TrainParams, parse_seeds
from stages import strategies
from stages.train.grouping import group_classes
from stages.train.loop import figures, run
from stages.train.scenario import Scenario, make_scenario
from stages.train.strategy import Setup, heads_of
from stages.train.view import Data


def train(
    params: Params,
    strategy: str,
    cache: Path,
    out: Path,
    *,
    backbone: str | None,
    given: dict[str, str],
    device: str,
    overwrite: bool,
) -> None:
    """Run `strategy` for each seed over one resident cache and write the results to `out`."""
    options = read_options(strategy, {**params.options.get(strategy, {}), **given})
    results.refuse_taken(out, overwrite=overwrite)
    manifest, scenario, data = _load(cache, params.train, backbone, device)
    _warn(scenario, params, manifest.classes)
    _warn_of_leakage(manifest)
    with results.folder(out):
        runs = _run_seeds(strategy, options, params.train, manifest, scenario, data, device)
        found = results.metrics(strategy, manifest, scenario, params.train, runs)
        results.write(
            out, found, options=asdict(options), train=params.train, cache=cache, device=device
        )
    say(results.sentence(found, out))


def _load(
    path: Path, settings: TrainParams, backbone: str | None, device: str
) -> tuple[Manifest, Scenario, Data]:
    """The cache's tasks and all its latents, on the device, every row checked."""
    with Cache(path) as cache:
        cache.expect("latents")
        manifest = cache.manifest
        if backbone is not None and manifest.info.backbone != backbone:
            raise CacheMismatchError(
                f"{path} holds latents of {manifest.info.backbone}, --backbone asks for {backbone}."
            )
        scenario = make_scenario(
            settings.scenario,
            manifest.classes,
            cache.side("label"),
            cache.split_rows("train"),
            cache.split_rows("test"),
            group_classes(
                manifest.classes, settings.tasks, settings.class_order, uneven=settings.uneven
            ),
        )
        latents = torch.from_numpy(cache.bulk("float32")).to(device)
    return manifest, scenario, Data(latents, torch.from_numpy(scenario.targets).to(device))


def _run_seeds(
    strategy: str,
    options: Any,
    settings: TrainParams,
    manifest: Manifest,
    scenario: Scenario,
    data: Data,
    device: str,
) -> list[dict[str, Any]]:
    """One entry of `runs` for each seed."""
    method = strategies.module(strategy).Method
    seeds = parse_seeds(settings.seeds)
    total = settings.iters * len(scenario.tasks) * len(seeds)
    runs = []
    with progress(f"train {strategy}", total, "it") as tick:
        for seed in seeds:
            setup = Setup(
                dim=data.latents.shape[1],
                heads=heads_of(scenario),
                scenario=scenario.name,
                iters=settings.iters,
                batch_size=settings.batch_size,
                lr=settings.lr,
                seed=seed,
                device=device,
                unit_range=manifest.info.value_range == (0.0, 1.0),
                tick=lambda: tick(1),
            )
            outcome = run(method(setup, options), data, scenario)
            runs.append({"seed": seed, **figures(outcome, scenario)})
    return runs


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


def _warn(scenario: Scenario, params: Params, classes: tuple[str, ...]) -> None:
    left = [name for name in classes if name not in scenario.class_order]
    if left:
        say(f"Note: --class-order leaves out {', '.join(left)}.")
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


def _warn_of_leakage(manifest: Manifest) -> None:
    """A root that knows the classes makes forgetting look smaller than it is."""
    seen = manifest.info.trained_on
    known = [name for name in manifest.classes if seen is not None and name in seen.names]
    if seen is not None and known:
        say(
            f"Note: the root was trained on {seen.data}, which shows {len(known)} of these "
            f"{len(manifest.classes)} classes (in other images)."
        )
