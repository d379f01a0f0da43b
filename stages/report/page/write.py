"""A document -> the files of a report: page, Markdown, tables, figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from stages.report.figures.style import png, style, svg
from stages.report.page import latex, raster, vector
from stages.report.page.document import Document, Figure
from stages.report.page.folder import ReportFolder
from stages.report.page.html import page
from stages.report.page.markdown import markdown
from stages.report.page.markup import plain, shown
from stages.report.page.sheet import csv_text
from stages.report.page.walk import check, figures, tables

LARGEST_PAGE = 4_800_000
"""Bytes.  Above, figures become pictures, the largest first, and at last only names of files."""


def steps(document: Document) -> int:
    """How often `write` ticks."""
    return len(figures(document)) + len(tables(document)) + 1


def write(
    document: Document,
    out: Path,
    tick: Callable[[str], object] = lambda _: None,
    largest_page: int = LARGEST_PAGE,
) -> list[str]:
    """Write all files of a report to the folder `out` and return their names, sorted.

    Equal documents give equal bytes.  What an earlier report wrote there is replaced or goes;
    nothing else is touched.  `tick` is called with the name of what was written.

    Raises:
        Refused: `out` cannot be written, or holds a file of one of these names from elsewhere.
        ValueError: names in the document are not unique.
    """
    check(document)
    names = file_names(document)
    folder = ReportFolder(out, names)
    with folder.writing():
        _write_tables(document, folder, tick)
        pictures = _write_figures(document, folder, tick)
        folder.write("report.md", markdown(document))
        folder.write("report.html", _page(document, pictures, out, largest_page))
        tick("report.html")
    return names


def file_names(document: Document) -> list[str]:
    names = ["report.html", "report.md"]
    for table in tables(document):
        names += [f"tables/{table.name}.csv"]
        names += [f"tables/{table.name}.tex"] * table.printed
    for figure in figures(document):
        names += [f"figures/{figure.name}.{kind}" for kind in ("png", "svg")]
        names += [f"figures/{figure.name}.csv"] * (figure.data is not None)
    return sorted(names)


def _write_tables(document: Document, folder: ReportFolder, tick: Callable[[str], object]) -> None:
    for table in tables(document):
        folder.write(f"tables/{table.name}.csv", csv_text(table.data))
        if table.printed:
            folder.write(f"tables/{table.name}.tex", latex.table(table))
        tick(table.name)


def _write_figures(
    document: Document, folder: ReportFolder, tick: Callable[[str], object]
) -> dict[str, str]:
    """One after the other, so that only one is in memory; what the page shows, by name."""
    pictures = {}
    for number, figure in enumerate(figures(document), 1):
        drawn, dots = _drawn(figure)
        name = figure.name
        folder.write(
            f"figures/{name}.svg", vector.described(drawn, plain(figure.title), figure.alt)
        )
        folder.write(f"figures/{name}.png", dots)
        if figure.data is not None:
            folder.write(f"figures/{name}.csv", csv_text(figure.data))
        pictures[name] = vector.inline(drawn, number, _label(figure))
        tick(name)
    return pictures


def _drawn(figure: Figure) -> tuple[str, bytes]:
    with style(), warnings.catch_warnings():
        # Letters that the PNG's font lacks; the SVG keeps them as text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        picture = figure.draw()
        try:
            drawn = svg(picture)
            picture.set_layout_engine("none")  # laid out once, the same in both
            return drawn, png(picture)
        finally:
            picture.clear()


def _label(figure: Figure) -> str:
    return f"{plain(figure.title)}. {shown(figure.alt)}"


def _page(document: Document, pictures: dict[str, str], out: Path, largest: int) -> str:
    labels = {figure.name: _label(figure) for figure in figures(document)}
    coarse: set[str] = set()

    def smaller(name: str, picture: str) -> str:
        if name in coarse:
            return raster.elsewhere(name)
        if not picture.startswith("<svg"):
            coarse.add(name)
        dots = (out / f"figures/{name}.png").read_bytes()
        return min(raster.inline(dots, labels[name], coarse=name in coarse), picture, key=len)

    words = len(page(document, dict.fromkeys(pictures, "")).encode())
    raster.fit(pictures, largest - words, smaller)
    return page(document, pictures)
