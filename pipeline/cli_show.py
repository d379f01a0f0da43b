"""The command show."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.console import Json, print_json, writable

if TYPE_CHECKING:
    from stages.report.terminal.letters import Terminal


def show(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of a run, the --out of train; or one with one run in it"
        ),
    ],
    as_json: Json = False,
) -> None:
    """Print one run: figures of each seed, what it forgets, keeps and replays.

    A table of its seeds with mean and sample standard deviation; the R matrix (accuracy on each
    task after learning each) and how accuracy goes over the tasks as a line of blocks, with its
    scale; recall of each class; memory kept by kind; how varied what is replayed is, and whether
    the generator has collapsed; the command that made it.

    Of a run that is not finished: how far it is, its last losses, what failed, and the command
    that goes on with it.

    Several runs side by side: lgr-pipe report FOLDER. Percentages are of rows; --json has the exact
    fractions, seconds and bytes. No colour where NO_COLOR is set or the output is no terminal.

    Exit code 0; 2: there is no such folder, no run in it, several, or a damaged file.
    """
    from stages.report.terminal.show import about, locate
    from stages.report.terminal.show_text import text

    said = about(locate(run))
    if as_json:
        print_json(said)
        return
    typer.echo(writable(text(said, _terminal())), color=True)


def _terminal() -> Terminal:
    from stages.report.terminal.letters import BLOCKS, Terminal

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    colour = colour and os.environ.get("TERM") != "dumb"
    width = max(40, shutil.get_terminal_size().columns)
    return Terminal(width, colour, blocks=writable(BLOCKS) == BLOCKS)
