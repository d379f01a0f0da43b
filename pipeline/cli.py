"""The command line: which commands there are; each is imported when it is called.

So the list of commands takes as long as Typer, and a command as long as what it uses.
"""

from __future__ import annotations

from typing import Any

import typer

from pipeline.console import Guarded
from pipeline.later import Later

_OTHERS_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Of a strategy; of train."""
COMMANDS = (
    Later(
        "draw",
        "pipeline.cli_data:draw",
        "Draw the embedded data set: faces with eight expressions, train and test people apart.",
    ),
    Later(
        "crop",
        "pipeline.cli_extract:crop",
        "Find the faces (dlib) and cut them out: images -> crop cache.",
    ),
    Later(
        "extract",
        "pipeline.cli_extract:extract",
        "Run a frozen backbone once over the crops: crop cache -> latent cache.",
    ),
    Later(
        "pretrain",
        "pipeline.cli_extract:pretrain",
        "Train the small root (lenet) on the images that are held out for it.",
    ),
    Later(
        "backbones",
        "pipeline.cli_extract:backbones",
        "List the backbones: length of a latent, parameters, and GMACs for each crop.",
    ),
    Later(
        "train",
        "pipeline.cli_train:train",
        "Learn the tasks one after the other from cached latents, once for each seed.",
        _OTHERS_OPTIONS,
    ),
    Later(
        "sweep",
        "pipeline.cli_sweep:sweep",
        "Search a grid of options by accuracy on validation rows; test rows are not looked at.",
        _OTHERS_OPTIONS,
    ),
    Later(
        "strategies",
        "pipeline.cli_train:strategies",
        "List the strategies: what each reads, keeps and computes, and its own options.",
    ),
    Later(
        "report",
        "pipeline.cli_report:report",
        "Print the result tables: strategies in rows, mean and spread over seeds.",
    ),
    Later(
        "show",
        "pipeline.cli_show:show",
        "Print one run: figures of each seed, what it forgets, keeps and replays.",
    ),
    Later(
        "datasets",
        "pipeline.cli_data:datasets_app",
        "List the data sets: classes, sizes, how they must lie, and where to ask for them.",
    ),
    Later(
        "cache",
        "pipeline.cli_cache:cache_app",
        "Look after caches: what there is, whether it is whole, in what two differ.",
    ),
)


class Commands(Guarded):
    """All of them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {command.name: command for command in COMMANDS}


app = typer.Typer(
    cls=Commands,
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


@app.callback()
def _() -> None:
    """Nothing is done before a command: it makes a group of an app that has none of its own."""


def main() -> None:
    app()
