"""The commands that draw a data set, and show what others there are and whether yours is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import options as o
from pipeline.options import setting
from pipeline.params import DrawParams, resolve


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


datasets_app = typer.Typer(
    help="List the data sets: classes, sizes, how they must lie, and where to ask for them.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)


@datasets_app.callback()
def datasets(context: typer.Context) -> None:
    """List the data sets: classes, sizes, how they must lie, and where to ask for them."""
    if context.invoked_subcommand is not None:
        return
    from stages import datasets as room

    for name in room.NAMES:
        about = room.module(name).ABOUT
        typer.echo(f"{name}: {about.title}")
        facts = {
            "classes": ", ".join(about.classes)
            if len(about.classes) <= 10
            else f"{len(about.classes)}: {', '.join(about.classes[:3])}, ...",
            "images": ", ".join(
                f"{sum(classes.values()):,} {split}" for split, classes in about.published.items()
            ),
            "under --root": about.layout,
            "crops": f"{about.size} x {about.size}, "
            + ("faces found by dlib" if about.faces else "whole images, no face searched for"),
            "options": ", ".join(
                f"--{key.replace('_', '-')}"
                + ("" if isinstance(default, bool) else f" (default {default})")
                for key, default in room.options(name).items()
            ),
            "ask for it": about.access,
        }
        for title, text in facts.items():
            if text:
                first, *rest = text.splitlines()
                typer.echo(f"  {title:12}  {first}")
                for line in rest:
                    typer.echo(f"  {'':12}  {line}")
        typer.echo()


@datasets_app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="Data set; lgr-pipe datasets lists them")],
    root: Annotated[Path, typer.Option(help="Folder that holds it")],
    split_seed: o.SplitSeed = None,
    images: o.Images = None,
    max_per_class: o.MaxPerClass = None,
    download: o.Download = False,
) -> None:
    """Count what lies under --root per class and split, and compare with the published counts.

    Exit code 0: as published; 1: something is missing or unexpected; 2: it cannot be read.
    """
    from stages.datasets import check as room

    settings = resolve(
        None,
        {
            "dataset": {
                "name": name, "root": root, "split_seed": split_seed, "images": images,
                "max_per_class": max_per_class,
            }
        },
    )  # fmt: skip
    given = settings.dataset.options() | ({"download": True} if download else {})
    found = room.check(name, root, **given)
    typer.echo(room.text(found))
    raise typer.Exit(0 if found.ok else 1)
