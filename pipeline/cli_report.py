"""The command report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cache.printable import printable
from pipeline.console import print_json, say, writable

if TYPE_CHECKING:
    from stages.report.page.document import Document
    from stages.report.reading.find import Found, LeftOut

_FLAT = ("table.csv", "curves.csv", "table.md")
"""Beside the page: what the terminal shows, and what `dvc plots` draws."""


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with runs, of any number of studies", show_default="runs"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html and the same as Markdown, tables and figures"),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two sets of runs: report --compare A B")
    ] = False,
    show_faces: Annotated[
        bool,
        typer.Option(
            "--show-faces",
            help="Show faces of real people, and what was generated from them, in the report",
        ),
    ] = False,
    crops: Annotated[
        Path | None,
        typer.Option(help="The crop cache, if it is not where the runs have read it"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON instead of tables")
    ] = False,
) -> None:
    """Print the result tables: strategies in rows, mean and spread over seeds.

    Runs that differ in more than the strategy (data, backbone, scenario, training, version) get
    tables of their own. Runs of one strategy with other options are shown beside each other, and
    seeds that were run apart are put together. What is not finished is listed and left out.

    With --out, everything goes into one page as well, report.html: what was run, results, the
    published numbers beside them, forgetting, cost, what is replayed, how it was measured. It
    needs no network. Beside it lie report.md, tables/ (CSV, LaTeX) and figures/ (SVG, PNG).

    One run in the terminal: lgr-pipe show RUN.
    """
    from cache.errors import Refused

    folders = runs or [Path("runs")]
    if (show_faces or crops is not None) and (compare or out is None):
        raise Refused("--show-faces and --crops are for the page of a report: name it with --out")
    if crops is not None:
        _refuse_no_crops(crops)
    if out is not None:
        _refuse_taken(out, () if compare else _FLAT)
    if compare:
        if len(folders) != 2 or runs is None:
            raise Refused("--compare takes two folders: lgr-pipe report --compare A B")
        _compare(folders[0], folders[1], out, as_json=as_json)
        return
    from stages.report.reading.find import find

    found = find(folders)
    _print(found, as_json=as_json)
    if out is not None:
        from stages.report.whole import Faces, report

        _write(report(found, Faces(show_faces, crops)), out)
        _write_flat(found, out)


def _refuse_no_crops(crops: Path) -> None:
    """Before anything is done for a report that would lack them."""
    from cache.reader import Cache

    with Cache(crops) as cache:
        cache.expect("crops")


def _refuse_taken(out: Path, names: Sequence[str]) -> None:
    """Before anything is written there: what no report has written stays."""
    from cache.errors import Refused
    from cache.files import refuse_url
    from stages.report.page.folder import LIST

    refuse_url(out)
    if out.exists() and not out.is_dir():
        raise Refused(f"{out} is no folder: name one for the report, which need not be there yet.")
    taken = [name for name in names if (out / name).exists()]
    if taken and not (out / LIST).is_file() and not _is_ours(out / _FLAT[0]):
        raise Refused(
            f"{out / taken[0]} would be replaced, and no report is known to have written it. Name "
            "another folder, or remove the file."
        )


def _is_ours(table: Path) -> bool:
    """Earlier versions wrote nothing else beside."""
    if not table.is_file():
        return False
    with table.open("rb") as file:
        return file.read(17) == b"study,strategy,n,"


def _print(found: Found, *, as_json: bool) -> None:
    if as_json:
        from stages.report.terminal.machine import as_json as plain

        print_json(plain(found))
        return
    from stages.report.terminal.table import markdown

    typer.echo(writable(markdown(found.studies)))
    _tell(found.left_out)


def _tell(left_out: Sequence[LeftOut]) -> None:
    for left in left_out:
        again = f" Go on with: {left.again}" if left.again else ""
        say(f"Left out: {printable(left.folder)}: {left.why.removesuffix('.')}.{again}")


def _write_flat(found: Found, out: Path) -> None:
    from cache.files import write_text
    from stages.report.terminal.flat import curves_csv, table_csv
    from stages.report.terminal.table import markdown

    table, curves, text = _FLAT
    write_text(out / table, table_csv(found.studies))
    write_text(out / curves, curves_csv(found.studies))
    write_text(out / text, markdown(found.studies))


def _compare(a: Path, b: Path, out: Path | None, *, as_json: bool) -> None:
    from stages.report.compare import compare, comparison_json
    from stages.report.page.markdown import markdown
    from stages.report.reading.find import find

    first, second = find([a]), find([b])
    sides: Sequence[str] = (str(a), str(b))
    document = compare(first.studies, second.studies, (sides[0], sides[1]))
    if as_json:
        print_json(comparison_json(document))
    else:
        typer.echo(writable(markdown(document, files=False)))
    _tell([*first.left_out, *second.left_out])
    if out is not None:
        _write(document, out)


def _write(document: Document, out: Path) -> None:
    """The page and all that belongs to it."""
    from pipeline.console import progress
    from stages.report.page.write import steps, write

    with progress("report", steps(document), "files") as tick:
        write(document, out, lambda _: tick(1))
    say(f"The report: {printable(out / 'report.html')}")
