"""The grid search on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cache.errors import Refused
from pipeline import options as o
from pipeline.how import parse_executor
from pipeline.options import setting
from pipeline.params import TrainParams

_ENTRY = (
    "from pipeline.jobs import end_with_parent; end_with_parent(); "
    "from pipeline.start import main; main()"
)


def _here(named: str) -> Path:
    """Raises Refused: a URL, which each of the runs would read again."""
    from cache.remote.fetch import locate

    where = locate(named)
    if isinstance(where, Path):
        return where
    raise Refused(
        f"A sweep would read {where} once for each of its runs: make a copy of it here, lgr-pipe "
        f"cache convert URL data/{where.name} --store zarr, and sweep with that."
    )


def sweep(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for all runs, the table and the figures")],
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=A,B,...",
            help="An option of train or of the strategy, or strategy itself, and its values; "
            "given several times: all combinations",
        ),
    ],
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Latent cache, from lgr-pipe extract; or look for it in --cache-root",
        ),
    ] = None,
    cache_root: o.CacheRoot = None,
    strategy: Annotated[
        str | None, typer.Option(help="Strategy; or --grid strategy=A,B for several")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at once, as far as memory allows",
            show_default="one a core, fewer if --threads is above 1; 1 on a GPU",
        ),
    ] = None,
    executor: o.Executor = "process",
    dask_scheduler: o.DaskScheduler = None,
    validation: Annotated[
        float | None, setting(TrainParams, "validation", "--validation", shown="0.1")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of each run; small networks are fastest on one")
    ] = 1,
    preset: o.Preset = None,
    params: o.ParamsFile = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Search a grid of options by accuracy on validation rows; test rows are not looked at.

    Each point is a run of train, several at once. Any option of train may be added and goes to
    all of them. The same command goes on after an interruption, and the grid may grow.
    """
    from cache.reader import Cache
    from pipeline import device as devices
    from pipeline import sweep as work
    from pipeline.caches.match import refuse_other
    from pipeline.caches.root import chosen
    from pipeline.console import say
    from pipeline.grid import TrainReader, parse_grids, path_of, plan
    from pipeline.resident import settled
    from stages.report.sweep.points import markdown

    dask = parse_executor(executor, dask_scheduler, jobs, size="--jobs")
    grids = parse_grids(grid)
    if (strategy is None) is ("strategy" not in grids):
        raise Refused("Name one strategy by --strategy, or several by --grid strategy=A,B.")
    shared = {
        "cache-root": cache_root, "strategy": strategy, "preset": preset, "params": params
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in shared.items() if value is not None]
    words += [f"--threads={threads}", *context.args]
    reader = TrainReader(context)
    any_strategy = [f"--strategy={value}" for value in grids.get("strategy", [])[:1]]
    words += reader.evaluation([*words, *any_strategy], validation)
    said = reader.said([*words, *any_strategy])
    folder = chosen(None if cache is None else _here(cache), cache_root, said)
    words.append(f"--cache={folder}")
    given, _ = reader.options([*words, *any_strategy])
    if given["crops"] is not None:
        _here(given["crops"])
    device = given["device"] if dask_scheduler is not None else devices.choose(given["device"])
    with Cache(folder) as opened:
        opened.expect("latents")
        manifest = opened.manifest
        refuse_other(said, manifest, folder, path_of(given, "crops"), note=say)
        settings = reader.params([*words, *any_strategy]).train
        form, latents = settled(settings, device, manifest, path_of(given, "crops"))
        words.append(f"--resident={form}")
        points = plan(grids, words, reader.settings)
        if dask_scheduler is None:
            devices.refuse_precisions((p.settings.flat()["precision"] for p in points), device)
        reader.check_tasks(points, opened)
    jobs = jobs or work.default_jobs(device, threads)
    how = work.SweepHow(
        jobs=jobs,
        estimate=work.estimate(latents, path_of(given, "crops")),
        command=(sys.executable, "-c", _ENTRY, "train"),
        tensorboard=path_of(given, "tensorboard"),
        overwrite=overwrite,
        dask=dask,
        device=device,
    )
    found = work.sweep(points, manifest, out, how)
    typer.echo(markdown(found))
    raise typer.Exit(1 if len(found.done) < len(found.points) else 0)
