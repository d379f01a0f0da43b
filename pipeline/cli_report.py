"""The command report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with runs, of any number of studies", show_default="runs"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for table.md, table.csv and curves.csv")
    ] = None,
) -> None:
    """Print the result tables: strategies in rows, mean and spread over seeds.

    Runs that differ in more than the strategy (data, backbone, scenario, training) get tables of
    their own.
    """
    from cache.files import write_text
    from stages.report.flat import curves_csv, table_csv
    from stages.report.runs import find_studies
    from stages.report.table import markdown

    studies = find_studies(runs or [Path("runs")])
    text = markdown(studies)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "table.csv", table_csv(studies))
        write_text(out / "curves.csv", curves_csv(studies))
        write_text(out / "table.md", text)
    typer.echo(text)
