"""The commands train and strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cache.errors import Refused
from pipeline import options as o
from pipeline.options import setting
from pipeline.params import TrainParams, resolve, sections_of_cache, trace
from pipeline.show_config import config_text, with_strategy


def train(
    context: typer.Context,
    strategy: Annotated[str, typer.Option(help="Strategy; lgr-pipe strategies lists them")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and run.json")],
    cache: o.LatentCache = None,
    cache_root: o.CacheRoot = None,
    scenario: Annotated[str | None, setting(TrainParams, "scenario", "--scenario")] = None,
    tasks: Annotated[int | None, setting(TrainParams, "tasks", "--tasks")] = None,
    class_order: Annotated[str | None, setting(TrainParams, "class_order", "--class-order")] = None,
    uneven: Annotated[bool | None, setting(TrainParams, "uneven", "--uneven/--no-uneven")] = None,
    iters: Annotated[int | None, setting(TrainParams, "iters", "--iters")] = None,
    batch_size: Annotated[int | None, setting(TrainParams, "batch_size", "--batch-size")] = None,
    lr: Annotated[float | None, setting(TrainParams, "lr", "--lr")] = None,
    seeds: Annotated[str | None, setting(TrainParams, "seeds", "--seeds")] = None,
    protocol: Annotated[str | None, setting(TrainParams, "protocol", "--protocol")] = None,
    validation: Annotated[float | None, setting(TrainParams, "validation", "--validation")] = None,
    evaluate_on: Annotated[str | None, setting(TrainParams, "evaluate_on", "--evaluate-on")] = None,
    early_stopping: Annotated[
        int | None, setting(TrainParams, "early_stopping", "--early-stopping")
    ] = None,
    precision: Annotated[str | None, setting(TrainParams, "precision", "--precision")] = None,
    period: Annotated[float | None, setting(TrainParams, "period", "--period")] = None,
    resident: Annotated[str | None, setting(TrainParams, "resident", "--resident")] = None,
    resident_memory: Annotated[
        int | None, setting(TrainParams, "resident_memory", "--resident-memory")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Refuse a cache of another backbone; in --cache-root, choose by it"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Refuse a cache of another data set; in --cache-root, choose by it"),
    ] = None,
    crops: o.CropCache = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of the root: a FILE, or a name; refuse a cache of others; in "
            "--cache-root, choose by them. nr, dgr and dgr+d need it where the cache's root came "
            "from a file"
        ),
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's logs")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on after the last task that an interrupted run finished; to a finished one, "
            "add more --seeds",
        ),
    ] = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Seeds at once, each a process on one thread (or --threads) over the same latents "
            "in memory; the seconds of a seed are then those of a shared machine. 1: one after the "
            "other, each measured undisturbed",
        ),
    ] = 1,
    preset: o.Preset = None,
    params: o.ParamsFile = None,
    show_config: o.ShowConfig = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Learn the tasks one after the other from cached latents, once for each seed.

    A strategy's own options are given like the others, for example --strategy lr
    --buffer-size 500; lgr-pipe strategies lists them.
    """
    options = locals()
    own = extra_options(context.args)
    fields = {field: options[field] for field in TrainParams.model_fields}
    resolved = trace(params, {"train": fields, **sections_of_cache(options)}, preset)
    if show_config:
        typer.echo(config_text(with_strategy(resolved, strategy, own) if strategy else resolved))
        return
    if resume and overwrite:
        raise Refused(
            "--resume goes on with what an earlier run left in --out, --overwrite replaces it: "
            "give one of them."
        )
    from cache.remote.fetch import locate
    from pipeline import device as devices
    from pipeline import stage_two
    from pipeline.caches.match import said_by
    from pipeline.caches.root import chosen

    said = said_by(resolved)
    how = stage_two.TrainHow(
        given=own,
        device=devices.choose(device),
        said=said,
        cache_root=cache_root,
        crops=None if crops is None else locate(crops),
        weights=weights,
        tensorboard=tensorboard,
        threads=threads,
        jobs=jobs,
        resume=resume,
        overwrite=overwrite,
    )
    where = chosen(None if cache is None else locate(cache), cache_root, said)
    stage_two.train(resolved.params, strategy, where, out, how)


def extra_options(words: list[str]) -> dict[str, str]:
    """`--name value` or `--name=value`, as left over by the command's own options."""
    given: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise typer.BadParameter(f"unexpected argument {word!r}")
        following = value if equals else next(rest, None)
        if following is None:
            raise typer.BadParameter(f"option --{name} needs a value (or does not exist)")
        given[name] = following
    return given


def strategies(
    backbone: Annotated[str, typer.Option(help="Count costs for latents of this root")] = "vgg16",
    classes: Annotated[int, typer.Option(min=1, help="Classes")] = 8,
    tasks: Annotated[int | None, setting(TrainParams, "tasks", "--tasks")] = None,
    iters: Annotated[int | None, setting(TrainParams, "iters", "--iters")] = None,
    batch_size: Annotated[int | None, setting(TrainParams, "batch_size", "--batch-size")] = None,
) -> None:
    """List the strategies: what each reads, keeps and computes, and its own options."""
    from pipeline.strategy_list import Case, listing

    given = {"tasks": tasks, "iters": iters, "batch_size": batch_size}
    train = resolve(None, {"train": given}).train
    case = Case(backbone, classes, min(train.tasks, classes), train.iters, train.batch_size)
    typer.echo(listing(case))
