"""The commands of stage one: crop, extract, pretrain, backbones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from cache.errors import Refused
from pipeline import options as o
from pipeline.console import print_json
from pipeline.how import How, cores, parse_executor, parse_shard
from pipeline.params import (
    CropParams,
    DatasetParams,
    ExtractParams,
    Params,
    PretrainParams,
    Resolved,
    trace,
)
from pipeline.show_config import config_text

Action = Annotated[
    str | None,
    typer.Argument(
        metavar="finalize", help="finalize: put the units that --shard runs have made together"
    ),
]


_SECTIONS: dict[str, type[BaseModel]] = {
    "dataset": DatasetParams,
    "crop": CropParams,
    "extract": ExtractParams,
}


def _finalizing(action: str | None) -> bool:
    if action not in (None, "finalize"):
        raise typer.BadParameter(f"unexpected argument {action!r}; there is only finalize")
    return action == "finalize"


def _settings(given: dict[str, Any], sections: dict[str, type[BaseModel]] = _SECTIONS) -> Resolved:
    """Of a command's options, which are named like the fields of the settings."""
    fields: dict[str, Any] = {
        name: {field: given.get(field) for field in model.model_fields}
        for name, model in sections.items()
    }
    fields["dataset"]["name"] = given["dataset"]
    return trace(given["params"], {**fields, "store": given["store"]}, given["preset"])


def _named(out: Path | None) -> Path:
    """What is to be finalized."""
    if out is None:
        raise Refused("finalize puts one cache together: name it with --out, as --shard has said.")
    return out


def _print_plan(
    settings: Params, images: str | None, how: How, gpu_tflops: float | None, *, as_json: bool
) -> None:
    """What extract would take, as a table or as JSON."""
    from pipeline import extraction_plan, plan_text

    numbers = extraction_plan.parse_images(o.PLAN_IMAGES if images is None else images)
    found = extraction_plan.make_plan(settings, numbers, how, gpu_tflops or o.GPU_TFLOPS)
    if as_json:
        print_json(asdict(found))
    else:
        typer.echo(plan_text.text(found))


def _refuse_without_plan(**given: object) -> None:
    """`given`: options that say how to plan; None or False: not given."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise Refused(f"--{name.replace('_', '-')} goes with --plan: add --plan, or drop it.")


def _print_path(made: Path, cache_root: Path | None, shard: str | None) -> None:
    """The one line on stdout, for --cache "$(lgr-pipe extract ...)"."""
    if cache_root is not None and shard is None:
        typer.echo(str(made))


def crop(
    action: Action = None,
    out: Annotated[Path | None, typer.Option(help="Crop cache to make")] = None,
    cache_root: o.CacheRoot = None,
    dataset: o.Dataset = None,
    root: o.RootFolder = None,
    split_seed: o.SplitSeed = None,
    images: o.Images = None,
    max_per_class: o.MaxPerClass = None,
    limit: o.Limit = None,
    download: o.Download = False,
    margin: o.Margin = None,
    size: o.Size = None,
    upsample: o.Upsample = None,
    face_crop: o.FaceCrop = None,
    on_missing: o.OnMissing = None,
    smallest_face: o.SmallestFace = None,
    store: o.Store = None,
    workers: o.Workers = None,
    executor: o.Executor = "process",
    dask_scheduler: o.DaskScheduler = None,
    shard: o.Shard = None,
    retry_failed: o.RetryFailed = False,
    preset: o.Preset = None,
    params: o.ParamsFile = None,
    show_config: o.ShowConfig = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Find the faces (dlib) and cut them out: images -> crop cache.

    lgr-pipe datasets shows how each data set must lie under --root. Interrupted? The same command
    goes on where it stopped.

    For an array of jobs: --shard 0/4, 1/4, 2/4, 3/4 (wherever they run, with the same --out), then
    lgr-pipe crop finalize --out CACHE.
    """
    resolved = _settings(locals())
    if show_config:
        typer.echo(config_text(resolved))
        return
    from cache.root import Root
    from pipeline import crops

    settings = resolved.params
    shared = None if cache_root is None else Root(cache_root)
    if _finalizing(action):
        crops.finalize(settings, _named(out), store, shared, overwrite=overwrite)
        return
    dask = parse_executor(executor, dask_scheduler, workers, shard=shard)
    how = How(
        workers or cores(),
        overwrite=overwrite,
        shard=parse_shard(shard),
        retry_failed=retry_failed,
        download=download,
        dask=dask,
    )
    made = crops.crop(settings, out, how, shared)
    _print_path(made, cache_root, shard)


def extract(
    action: Action = None,
    out: Annotated[Path | None, typer.Option(help="Latent cache to make")] = None,
    cache_root: o.CacheRoot = None,
    backbone: o.Backbone = None,
    layer: o.Layer = None,
    weights: Annotated[str | None, o.setting(ExtractParams, "weights", "--weights")] = None,
    weights_seed: Annotated[
        int | None, o.setting(ExtractParams, "weights_seed", "--weights-seed")
    ] = None,
    activation: Annotated[
        str | None, o.setting(ExtractParams, "activation", "--activation")
    ] = None,
    normalize: Annotated[str | None, o.setting(ExtractParams, "normalize", "--normalize")] = None,
    dtype: Annotated[str | None, o.setting(ExtractParams, "dtype", "--dtype")] = None,
    crops: Annotated[
        Path | None,
        typer.Option(
            help="Crop cache; made beside the latents if missing",
            show_default="crops, beside --out; or in --cache-root",
        ),
    ] = None,
    dataset: o.Dataset = None,
    root: o.RootFolder = None,
    split_seed: o.SplitSeed = None,
    images: o.Images = None,
    max_per_class: o.MaxPerClass = None,
    limit: o.Limit = None,
    download: o.Download = False,
    margin: o.Margin = None,
    size: o.Size = None,
    upsample: o.Upsample = None,
    face_crop: o.FaceCrop = None,
    on_missing: o.OnMissing = None,
    smallest_face: o.SmallestFace = None,
    store: o.Store = None,
    workers: o.Workers = None,
    batch_size: o.BatchSize = 256,
    executor: o.Executor = "process",
    dask_scheduler: o.DaskScheduler = None,
    shard: o.Shard = None,
    retry_failed: o.RetryFailed = False,
    device: o.Device = "auto",
    preset: o.Preset = None,
    params: o.ParamsFile = None,
    show_config: o.ShowConfig = False,
    overwrite: o.Overwrite = False,
    plan: o.Plan = False,
    plan_images: o.PlanImages = None,
    gpu_tflops: o.GpuTflops = None,
    as_json: o.PlanJson = False,
) -> None:
    """Run a frozen backbone once over the crops: crop cache -> latent cache.

    Crops that are missing are made beside it (that needs --root). Interrupted? The same command
    goes on where it stopped.

    For an array of jobs: --shard 0/4, 1/4, 2/4, 3/4 (wherever they run, with the same --out), then
    lgr-pipe extract finalize --out CACHE.
    """
    resolved = _settings(locals())
    if show_config:
        typer.echo(config_text(resolved))
        return
    from cache.root import Root
    from pipeline import device as devices
    from pipeline import extraction

    if root is not None and not root.is_dir() and not download:
        raise Refused(f"There is no folder {root}.")
    settings = resolved.params
    if plan:
        how = How(
            workers or cores(),
            device=devices.choose(device),
            shard=parse_shard(shard),
            download=download,
        )
        _print_plan(settings, plan_images, how, gpu_tflops, as_json=as_json)
        return
    _refuse_without_plan(plan_images=plan_images, gpu_tflops=gpu_tflops, json=as_json)
    shared = None if cache_root is None else Root(cache_root)
    if _finalizing(action):
        extraction.finalize(settings, crops, _named(out), store, shared, overwrite=overwrite)
        return
    dask = parse_executor(executor, dask_scheduler, workers, shard=shard)
    how = How(
        workers or cores(),
        device=devices.choose(device) if dask is None else device,
        batch_size=batch_size,
        overwrite=overwrite,
        shard=parse_shard(shard),
        retry_failed=retry_failed,
        download=download,
        dask=dask,
    )
    made = extraction.extract(settings, crops, out, how, shared)
    _print_path(made, cache_root, shard)


def pretrain(
    out: Annotated[Path, typer.Option(help="Weight file to make (safetensors)")],
    backbone: Annotated[str, typer.Option(help="Only lenet is trained here")] = "lenet",
    crops: Annotated[
        Path | None,
        typer.Option(help="Crop cache; made first if missing", show_default="crops, beside --out"),
    ] = None,
    iters: Annotated[int | None, o.setting(PretrainParams, "iters", "--iters")] = None,
    batch_size: Annotated[
        int | None, o.setting(PretrainParams, "batch_size", "--batch-size")
    ] = None,
    lr: Annotated[float | None, o.setting(PretrainParams, "lr", "--lr")] = None,
    seed: Annotated[int | None, o.setting(PretrainParams, "seed", "--seed")] = None,
    dataset: o.Dataset = None,
    root: o.RootFolder = None,
    split_seed: o.SplitSeed = None,
    download: o.Download = False,
    store: o.Store = None,
    workers: o.Workers = None,
    device: o.Device = "auto",
    preset: o.Preset = None,
    params: o.ParamsFile = None,
    show_config: o.ShowConfig = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Train the small root (lenet) on the images that are held out for it.

    The MNIST and CIFAR sets hold 10,000 training images out (split "pretrain"), as the paper does.
    Then: lgr-pipe extract --backbone lenet --weights FILE.
    """
    resolved = _settings(locals(), {"dataset": DatasetParams, "pretrain": PretrainParams})
    if show_config:
        typer.echo(config_text(resolved))
        return
    from pipeline import device as devices
    from pipeline import pretraining

    settings = resolved.params
    if backbone != "lenet":
        raise Refused(
            f"--backbone {backbone}: only lenet is trained here; the others come trained."
        )
    pretraining.pretrain(
        settings,
        crops or out.parent / "crops",
        out,
        How(workers or cores(), device=devices.choose(device), download=download),
        given=settings.pretrain.model_dump(),
        overwrite=overwrite,
    )


def backbones(
    size: Annotated[int, typer.Option(min=8, max=1024, help="Side of the crops in pixels")] = 100,
    backbone: Annotated[
        str | None, typer.Option(help="Any classifier of torchvision instead; then --layer too")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Where the latent is taken")] = None,
) -> None:
    """List the backbones: length of a latent, parameters, and GMACs for each crop.

    Any other image classifier of torchvision is a backbone too: --backbone convnext_tiny
    --layer avgpool.
    """
    from stages.extract.backbones import choose, cost, listing

    if backbone is not None:
        tap = choose(backbone, layer)
        found = cost(tap, size)
        lines = [(tap.name, found.dim, found.parameters, found.macs / 1e9, size, tap.layer, "")]
    else:
        lines = [
            (row.name, row.dim, row.parameters, row.gmacs, row.size, row.layer, row.note)
            for row in listing(size)
        ]
    typer.echo(
        f"{'backbone':14} {'latent':>7} {'parameters':>12} {'GMAC/crop':>10} {'crop':>5}  layer"
    )
    for name, dim, parameters, gmacs, side, where, note in lines:
        typer.echo(
            f"{name:14} {dim:7} {parameters:12,} {gmacs:10.4f} {side:5}  {where:14} {note}".rstrip()
        )
