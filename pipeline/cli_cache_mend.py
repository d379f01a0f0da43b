"""The command that puts damaged caches right, and the options by which verify and it are told
where rows come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.console import Json, print_json

Crops = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Crop cache of which the latents were made"),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", help="Folder of the data set of which the crops were made"
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Weights of the root; needed only where they came from a file"
    ),
]


def repair(
    path: Annotated[Path, typer.Argument(help="A damaged cache, of crops or latents")],
    crops: Crops = None,
    root: Images = None,
    weights: Weights = None,
    other: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="CACHE",
            help="An equal cache, in whatever store: what is missing is taken from it",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a damaged cache right: only what is damaged is done again.

    Latents are made again from --crops, crops from the images in --root, labels and sample table
    from what is left; or all is taken from an equal cache, --from. What the digests of the
    manifest do not confirm is refused, and then nothing is changed. A damaged manifest needs
    --from. Files that do not belong to a cache are dropped.

    The repaired cache is made beside the damaged one, read back and checked, and put in its place
    by a rename. Killed at any moment, the same command again finishes.

    Exit code 0: it is whole, repaired or as it was; 2: refused, nothing was changed.
    """
    from pipeline.caches.recheck import Given
    from pipeline.caches.repair import mend, repair_json, repair_text

    redone = mend(path, Given(crops, root, weights), other)
    if as_json:
        print_json(repair_json(path, redone))
    else:
        typer.echo(repair_text(path, redone))
