"""Options that several commands share; help and defaults come from the settings' models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from pipeline import presets
from pipeline.folders import CACHE_ROOT_VARIABLE
from pipeline.params import CropParams, DatasetParams, ExtractParams, Params


def setting(section: type[BaseModel], field: str, *names: str, shown: str | None = None) -> Any:
    """An option for a field of the settings; `shown`: its default in words."""
    info = section.model_fields[field]
    default = "" if info.default is None else str(info.default).lower()
    text = " ".join((info.description or "").split())
    return typer.Option(*names, help=text, show_default=shown or default or False)


LatentCache = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|URL",
        help="Latent cache, from lgr-pipe extract: a folder, or a URL (s3, gs, https) that is read "
        "into memory; or look for it in --cache-root",
    ),
]
CropCache = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|URL", help="Crop cache, which nr, dgr and dgr+d read: a folder, or a URL"
    ),
]
ParamsFile = Annotated[
    Path | None,
    typer.Option("--params", help="Settings file; options given here override it"),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Settings of a published study, which --params and options override: "
        + ", ".join(presets.names()),
    ),
]


def _waive(context: typer.Context, value: bool) -> bool:
    """Nothing is required of a command that only shows its settings."""
    if value:
        for parameter in context.command.params:
            parameter.required = False
    return value


ShowConfig = Annotated[
    bool,
    typer.Option(
        "--show-config",
        is_eager=True,  # before the check of what is required
        callback=_waive,
        help="Only print the settings, as YAML for --params, and where each comes from",
    ),
]
Dataset = Annotated[str | None, setting(DatasetParams, "name", "--dataset")]
RootFolder = Annotated[Path | None, setting(DatasetParams, "root", "--root")]
SplitSeed = Annotated[int | None, setting(DatasetParams, "split_seed", "--split-seed", shown="0")]
Images = Annotated[str | None, setting(DatasetParams, "images", "--images", shown="original")]
MaxPerClass = Annotated[
    int | None, setting(DatasetParams, "max_per_class", "--max-per-class", shown="15000")
]
Limit = Annotated[int | None, setting(DatasetParams, "limit", "--limit")]
Download = Annotated[
    bool,
    typer.Option("--download", help="Fetch the data set into --root (MNIST and CIFAR sets only)"),
]
Margin = Annotated[float | None, setting(CropParams, "margin", "--margin")]
Size = Annotated[
    int | None, setting(CropParams, "size", "--size", shown="100; MNIST and CIFAR sets: 32")
]
Upsample = Annotated[int | None, setting(CropParams, "upsample", "--upsample")]
FaceCrop = Annotated[
    str | None,
    setting(CropParams, "face_crop", "--face-crop", shown="dlib; MNIST and CIFAR sets: off"),
]
OnMissing = Annotated[str | None, setting(CropParams, "on_missing", "--on-missing")]
SmallestFace = Annotated[float | None, setting(CropParams, "smallest_face", "--smallest-face")]
Backbone = Annotated[str | None, setting(ExtractParams, "backbone", "--backbone")]
Layer = Annotated[
    str | None, setting(ExtractParams, "layer", "--layer", shown="the backbone's own")
]
Store = Annotated[str | None, setting(Params, "store", "--store")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that decode and find faces; with --executor dask: workers of the cluster "
        "of this machine",
        show_default="one a core",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1,
        help="Crops that are on a GPU at a time. The arithmetic is always done in groups of 32, on "
        "a processor one a core, so that nothing of this changes a value",
    ),
]
Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        help="process: worker processes of this machine; dask: the workers of a Dask cluster, "
        "which see the same folders (needs lgr-pipe[dask])",
    ),
]
DaskScheduler = Annotated[
    str | None,
    typer.Option(
        "--dask-scheduler",
        metavar="ADDRESS|FILE",
        help="Scheduler of that cluster, such as tcp://host:8786, or the file that dask scheduler "
        "--scheduler-file writes. Dask runs what it is sent: a cluster of your own, in a network "
        "that you trust",
        show_default="a cluster of this machine, for this run",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="i/n",
        help="Do every n-th unit of work from the i-th on, i from 0 to n-1, for arrays of jobs; "
        "then finalize",
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Crop the images again that failed in a finished cache, now that their files are "
        "mended; everything else is kept",
    ),
]
Plan = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Only say what --plan-images would take: shards, bytes, hours, by cropping and "
        "extracting --limit images (256 if it is left out) in a temporary folder",
    ),
]
PLAN_IMAGES, GPU_TFLOPS = "1e5,1e7,1e9", 10.0
"""What --plan takes where nothing is said."""
PlanImages = Annotated[
    str | None,
    typer.Option(
        "--plan-images",
        metavar="N,N,...",
        help="With --plan: numbers of images",
        show_default=PLAN_IMAGES,
    ),
]
GpuTflops = Annotated[
    float | None,
    typer.Option(
        "--gpu-tflops",
        min=0.01,
        help="With --plan, where there is no GPU to measure: 1e12 operations a second that one "
        "would do in practice",
        show_default=f"{GPU_TFLOPS:g}",
    ),
]
PlanJson = Annotated[bool, typer.Option("--json", help="With --plan: the plan as JSON on stdout")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes a GPU where there is one")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of the processor", show_default="chosen for the work"),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier run wrote to --out")
]
CacheRoot = Annotated[
    Path | None,
    typer.Option(
        "--cache-root",
        envvar=CACHE_ROOT_VARIABLE,
        help="Folder of caches that many projects share, keyed by fingerprint: what is there is "
        "used, what is made is put there",
    ),
]
