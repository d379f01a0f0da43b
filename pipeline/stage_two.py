"""Wire stage two: settings -> cache in memory -> one run a seed -> metrics.json, run.json."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from cache.errors import CacheMismatchError, Refused
from cache.files import tree_bytes
from cache.reader import Cache
from cache.remote.fetch import Where
from cache.schema import Manifest
from cache.source import Place
from pipeline import results, run_about, seeds_at_once
from pipeline.caches import root as cache_root
from pipeline.caches.match import Said, refuse_other
from pipeline.caches.places import place
from pipeline.checkpoints import Checkpoints
from pipeline.console import progress, say
from pipeline.device import multiply
from pipeline.events import Events, need_tensorboard
from pipeline.params import Params, TrainParams, parse_seeds
from pipeline.resident import Resident, bulk_bytes, choose, latent_bytes, load
from pipeline.seed_runs import Done, SeedRuns
from pipeline.train_notes import tell_leakage, tell_tasks
from stages import strategies
from stages.train.disk import OnDisk, Reader
from stages.train.grouping import group_classes
from stages.train.meter import Meter
from stages.train.scenario import Scenario, make_scenario
from stages.train.strategy import Images, Setup, heads_of
from stages.train.validation import hold_out
from stages.train.view import Source
from stages.train.watch import Watch


@dataclass(frozen=True)
class TrainHow:
    """What is given on the command line and decides no figure."""

    given: dict[str, str]
    """The strategy's own options, as text."""
    device: str
    said: Said = field(default_factory=dict)
    """What the settings say of data set, crops and root: another cache is refused."""
    cache_root: Path | None = None
    """Where the crops are looked for, if `crops` is None."""
    crops: Where | None = None
    """Crop cache, for strategies that work on images."""
    weights: str | None = None
    """Weights of the root for them: a FILE, or a name."""
    tensorboard: Path | None = None
    threads: int | None = None
    """Of the processor; None: as many as pay for themselves."""
    jobs: int = 1
    """Seeds at once."""
    resume: bool = False
    overwrite: bool = False


def train(params: Params, strategy: str, cache: Where, out: Path, how: TrainHow) -> None:
    """Run `strategy` for each seed over one resident cache and write the results to `out`."""
    options = read_options(strategy, {**params.options.get(strategy, {}), **how.given})
    module = strategies.module(strategy)
    results.refuse_taken(out, overwrite=how.overwrite, resume=how.resume)
    _refuse_board(how.tensorboard, out)
    at_once = min(how.jobs, len(parse_seeds(params.train.seeds)))
    seeds_at_once.refuse(at_once, how.device, params.train.resident)
    seeds_at_once.alone(at_once)
    multiply(params.train.precision, how.device)
    with Meter(params.train.period, how.device) as meter, meter.phase("load"):
        loaded = _load(cache, params.train, how, module)
    say(loaded.resident.sentence())
    seeds_at_once.refuse(at_once, how.device, loaded.resident.form)
    tell_tasks(loaded.scenario, params, loaded.manifest.classes)
    tell_leakage(loaded.manifest)
    found = results.study(strategy, loaded.manifest, loaded.scenario, params.train)
    settled = params.train.model_copy(update={"resident": loaded.resident.form})
    deciding = results.deciding(found, options, settled)
    if isinstance(loaded.data, OnDisk):  # a copy of the cache may be cut in another way
        deciding["chunk_rows"] = loaded.data.reader.chunk_rows
    checkpoints = Checkpoints(out / results.CHECKPOINTS, deciding)
    taking = results.folder(out, overwrite=how.overwrite, resume=how.resume)
    with loaded.files, taking, _interruptible(checkpoints):
        if how.resume:
            checkpoints.refuse_other()
        else:
            if how.overwrite:  # what would refuse to begin must not cost the results that are there
                module.Method(_setup(loaded, params.train, how, 0, Watch()), options)
            results.clear(out, checkpoints)
        most = max(at_once, results.at_once_before(out))
        begun = datetime.now(UTC).isoformat(timespec="seconds")

        def about() -> dict[str, Any]:
            of_cache = cache, loaded.bytes
            said = run_about.about(options, params.train, of_cache, how.device)
            return {"started": begun, **said, "seeds_at_once": most, **loaded.about}

        with Events(out / results.LOG, resume=how.resume, tensorboard=how.tensorboard) as events:
            begin = functools.cache(lambda: results.begin(out, found, about()))
            done = _run_seeds(
                module, options, params.train, loaded, checkpoints, events, how, begin
            )
        found |= results.summary([seed.entry for seed in done], meter.report()["total"])
        results.write(out, found, done, about())
    say(results.sentence(found, out))


def _refuse_board(board: Path | None, out: Path) -> None:
    """Before anything that is there is touched."""
    if board is None:
        return
    need_tensorboard()
    if board.resolve().is_relative_to(out.resolve()):
        raise Refused(
            f"--tensorboard {board} lies in --out {out}, which holds one run's files and nothing "
            "else: choose a folder beside it."
        )


@contextmanager
def _interruptible(checkpoints: Checkpoints) -> Iterator[None]:
    """Ctrl-C says how to go on, where there is something to go on with."""
    try:
        yield
    except KeyboardInterrupt:
        if not checkpoints.folder.is_dir():
            raise
        say(
            f"Interrupted. The tasks that were finished are kept in {checkpoints.folder}: the same "
            "command with --resume goes on from there."
        )
        raise typer.Exit(130) from None


@dataclass(frozen=True)
class _Loaded:
    manifest: Manifest
    scenario: Scenario
    data: Source
    resident: Resident
    images: Images | None
    crop_rows: NDArray[np.int64] | None
    """With images: of each latent, its crop's row."""
    bytes: int
    """Of the cache's files."""
    about: dict[str, Any]
    """For run.json."""
    files: ExitStack
    """Open as long as latents are read."""


def _load(where: Where, settings: TrainParams, how: TrainHow, module: ModuleType) -> _Loaded:
    """The cache's tasks and its latents where they are to be, every row checked; the crops and
    the root as well where the strategy works on images."""
    path = place(where, copies=1 if settings.resident == "disk" else 2)
    with ExitStack() as files:
        cache = files.enter_context(Cache(path))
        cache.expect("latents")
        manifest = cache.manifest
        near = how.crops if isinstance(how.crops, Path) else None
        asked = dict(how.said)
        if how.weights is not None and "crops" in module.Method.columns:
            asked.pop("extract.weights", None)  # they are read, and compared in more detail
        refuse_other(asked, manifest, path, near, note=say)
        if len(manifest.columns[manifest.bulk].shape) != 2:
            raise CacheMismatchError(f"{path} holds latents that are no vectors.")
        scenario = scenario_of(cache, settings)
        on_images = "crops" in module.Method.columns
        pictures = _crops_of(manifest, how) if on_images else None
        beside = 0 if pictures is None else bulk_bytes(pictures)
        resident = choose(settings, how.device, latent_bytes(manifest), beside)
        images = crops = None
        if on_images:
            from pipeline.image_root import load_images  # torchvision: 1 s that others do not need

            images, crops = load_images(cache, Reader(cache), pictures, how.weights, how.device)
        targets = torch.from_numpy(scenario.targets).to(how.device)
        data = load(cache, resident, targets, crops)
        crop_rows = cache.side("row").astype(np.int64) if on_images else None
        about = _about(cache, path, scenario, how) | {"resident": resident.record()}
        if resident.form != "disk":
            files.close()
        return _Loaded(
            manifest=manifest,
            scenario=scenario,
            data=data,
            resident=resident,
            images=images,
            crop_rows=crop_rows,
            bytes=tree_bytes(path),
            about=about,
            files=files.pop_all(),
        )


def _crops_of(latents: Manifest, how: TrainHow) -> Place | None:
    """The crops that they were made of, if somebody says where those are."""
    made_of = how.crops or cache_root.crops_of(latents, how.cache_root)
    return None if made_of is None else place(made_of, copies=2)


def _about(cache: Cache, path: Place, scenario: Scenario, how: TrainHow) -> dict[str, Any]:
    """What run.json says of the caches."""
    crops = run_about.crops_of(path, cache.manifest, how.crops, how.cache_root)
    return {
        "crops": None if crops is None else str(crops),
        "data": run_about.data_about(cache, scenario),
        "stage_one": run_about.stage_one(path, cache.manifest, crops),
    }


def scenario_of(cache: Cache, settings: TrainParams) -> Scenario:
    """With `--validation`, some training rows are put aside; with `--evaluate-on validation`
    they are what accuracies are of, and no test row is in any task."""
    manifest, labels = cache.manifest, cache.side("label")
    train, test = cache.split_rows("train"), cache.split_rows("test")
    aside = None
    if settings.validation:
        train, aside = hold_out(train, labels, cache.side("subject"), settings.validation)
        if settings.evaluate_on == "validation":
            test = aside
    groups = group_classes(
        manifest.classes, settings.tasks, settings.class_order, uneven=settings.uneven
    )
    if settings.scenario == "domain" and len({len(group) for group in groups}) > 1:
        sizes = ", ".join(str(len(group)) for group in groups)
        raise Refused(
            "--scenario domain needs tasks of one size, for every task has the same outputs, but "
            f"these have {sizes} classes: choose another --tasks, or groups with --class-order, "
            "which may leave classes out."
        )
    return make_scenario(settings.scenario, manifest.classes, labels, train, test, groups, aside)


def _setup(loaded: _Loaded, settings: TrainParams, how: TrainHow, seed: int, watch: Watch) -> Setup:
    return Setup(
        dim=loaded.data.dim,
        heads=heads_of(loaded.scenario),
        scenario=loaded.scenario.name,
        iters=settings.iters,
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=seed,
        device=how.device,
        unit_range=loaded.manifest.info.value_range == (0.0, 1.0),
        protocol=settings.protocol,
        early_stopping=settings.early_stopping,
        images=loaded.images,
        watch=watch,
    )


def _run_seeds(
    module: ModuleType,
    options: Any,
    settings: TrainParams,
    loaded: _Loaded,
    checkpoints: Checkpoints,
    events: Events,
    how: TrainHow,
    begin: Callable[[], None],
) -> list[Done]:
    """Of each seed."""
    scenario = loaded.scenario
    seeds = parse_seeds(settings.seeds)
    total = settings.iters * len(scenario.tasks) * len(seeds)
    name = module.__name__.rpartition(".")[2].replace("_", "+")
    bar = partial(progress, f"train {name}", total, "it")
    runs = SeedRuns(
        module=module,
        options=options,
        setup=partial(_setup, loaded, settings, how),
        data=loaded.data,
        scenario=scenario,
        checkpoints=checkpoints,
        events=events,
        iters=settings.iters,
        period=settings.period,
        device=how.device,
        threads=how.threads,
        crop_rows=loaded.crop_rows,
        begin=begin,
    )
    if how.jobs > 1 and len(seeds) > 1:
        return seeds_at_once.learn(runs, seeds, how.jobs, bar)
    with bar() as tick:
        each = replace(runs, tick=tick)
        return [each.run(seed) for seed in seeds]


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
