"""The command line.  Bodies are a few lines; heavy imports happen inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import cli_data, cli_extract
from pipeline import options as o
from pipeline.console import Guarded
from pipeline.options import setting
from pipeline.params import DrawParams, TrainParams, resolve

app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Replay-based continual learning of facial expressions from cached features.\n\n"
        "Stage one (draw, crop, extract) runs once: images -> face crops -> latents of a frozen "
        "backbone. Stage two (train, report) runs many times on the cached latents.\n\n"
        "Try it: lgr-pipe draw --out data/drawn, then lgr-pipe extract --dataset drawn "
        "--root data/drawn --weights random --out data/latents, then lgr-pipe train "
        "--strategy lgr+d --cache data/latents --out runs/lgr+d, then lgr-pipe report runs."
    ),
)


@app.command()
def draw(
    out: Annotated[Path, typer.Option(help="Folder to make")],
    per_class: Annotated[int | None, setting(DrawParams, "per_class", "--per-class")] = None,
    seed: Annotated[int | None, setting(DrawParams, "seed", "--seed")] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Also write a PNG with some of the faces, to look at")
    ] = None,
    params: o.ParamsFile = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Draw the embedded data set: faces with eight expressions, train and test people apart."""
    from pipeline.console import progress, say
    from stages.draw import dataset as drawing
    from stages.draw.expressions import EXPRESSIONS

    settings = resolve(params, {"draw": {"per_class": per_class, "seed": seed}}).draw
    total = settings.per_class * len(EXPRESSIONS)
    with progress("draw", total, "faces") as tick:
        made = drawing.draw(out, settings.per_class, settings.seed, overwrite=overwrite, tick=tick)
    say(f"{made} faces drawn into {out}." if made else f"{out} is drawn already: nothing to do.")
    if contact_sheet is not None:
        drawing.contact_sheet(settings.per_class, settings.seed).save(contact_sheet, format="PNG")


app.command()(cli_extract.crop)
app.command()(cli_extract.extract)
app.command()(cli_extract.pretrain)
app.command()(cli_extract.backbones)
app.add_typer(cli_data.datasets_app, name="datasets")
app.add_typer(cli_data.cache_app, name="cache")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    strategy: Annotated[str, typer.Option(help="Strategy; lgr-pipe strategies lists them")],
    cache: Annotated[Path, typer.Option(help="Latent cache, from lgr-pipe extract")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and run.json")],
    scenario: Annotated[str | None, setting(TrainParams, "scenario", "--scenario")] = None,
    tasks: Annotated[int | None, setting(TrainParams, "tasks", "--tasks")] = None,
    class_order: Annotated[str | None, setting(TrainParams, "class_order", "--class-order")] = None,
    uneven: Annotated[bool | None, setting(TrainParams, "uneven", "--uneven")] = None,
    iters: Annotated[int | None, setting(TrainParams, "iters", "--iters")] = None,
    batch_size: Annotated[int | None, setting(TrainParams, "batch_size", "--batch-size")] = None,
    lr: Annotated[float | None, setting(TrainParams, "lr", "--lr")] = None,
    seeds: Annotated[str | None, setting(TrainParams, "seeds", "--seeds")] = None,
    backbone: Annotated[str | None, typer.Option(help="Refuse a cache of another backbone")] = None,
    device: o.Device = "auto",
    params: o.ParamsFile = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Learn the tasks one after the other from cached latents, once for each seed.

    A strategy's own options are given like the others, for example --strategy lr
    --buffer-size 500; lgr-pipe strategies lists them.
    """
    from pipeline import device as devices
    from pipeline import stage_two

    settings = resolve(
        params,
        {
            "train": {
                "scenario": scenario,
                "tasks": tasks,
                "class_order": class_order,
                "uneven": uneven or None,
                "iters": iters,
                "batch_size": batch_size,
                "lr": lr,
                "seeds": seeds,
            }
        },
    )
    stage_two.train(
        settings,
        strategy,
        cache,
        out,
        backbone=backbone,
        given=_extra_options(context.args),
        device=devices.choose(device),
        overwrite=overwrite,
    )


def _extra_options(words: list[str]) -> dict[str, str]:
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


@app.command()
def strategies() -> None:
    """List the strategies, with a line on each and its own options."""
    from stages import strategies as room

    for name in room.names():
        module = room.module(name)
        typer.echo(f"{name:8} {(module.__doc__ or '').splitlines()[0]}")
        defaults = module.Options()
        for field in module.Options.__dataclass_fields__:
            typer.echo(f"{'':10}--{field.replace('_', '-')} (default {getattr(defaults, field)})")


@app.command()
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with runs of one study", show_default="runs"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for table.md and table.csv")] = None,
) -> None:
    """Print the result table of a study: strategies in rows, mean and spread over seeds."""
    from cache.files import write_text
    from stages.report.runs import find_runs
    from stages.report.table import csv_text, markdown

    found = find_runs(runs or [Path("runs")])
    text = markdown(found)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "table.md", text)
        write_text(out / "table.csv", csv_text(found))
    typer.echo(text)


def main() -> None:
    app()
