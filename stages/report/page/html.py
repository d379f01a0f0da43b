"""The report as one page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from stages.report.page.document import Document, Table
from stages.report.page.markdown import SAID
from stages.report.page.markup import html as inline
from stages.report.page.markup import plain, shown
from stages.report.page.walk import figures, of_numbers, sections, tables

_HERE = Path(__file__).parent


def page(document: Document, pictures: Mapping[str, str]) -> str:
    """`pictures`: an <svg> or <img> for each figure, by name (vector.inline, raster.inline)."""
    targets = {section.key for section in sections(document)}
    targets |= {f"table-{table.name}" for table in tables(document)}
    targets |= {f"figure-{figure.name}" for figure in figures(document)}
    styles = _css()
    return (
        _environment()
        .get_template("page.html")
        .render(
            document=document,
            pictures={name: Markup(picture) for name, picture in pictures.items()},
            styles=Markup(styles),
            policy=policy(styles),
            inline=lambda text: inline(text, targets),
            said=SAID,
        )
    )


def policy(styles: str) -> str:
    """Nothing is loaded and nothing runs, whatever a text of a run might smuggle in."""
    digest = base64.b64encode(hashlib.sha256(styles.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _css() -> str:
    return (_HERE / "page.css").read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "kind": lambda block: type(block).__name__,
        "plain": plain,
        "code": _code,
        "numbers": of_numbers,
        "width": _width,
    }
    return environment


def _width(table: Table) -> str:
    """How narrow its letters must be on paper."""
    letters = 0
    for k, numbers in enumerate(of_numbers(table)):
        longest = max((len(plain(row[k])) for row in table.rows), default=0)
        word = max(map(len, re.split("[ -]", plain(table.head[k]))))
        letters += 2 + max(longest if numbers else min(longest, 24), word)
    return "" if letters <= 112 else "wide" if letters <= 138 else "wider"


def _code(text: str) -> Markup:
    """A long line goes on further in, and not within a word: an option begins with hyphens."""
    made = Markup("")
    for line in text.strip("\n").split("\n"):
        words = [
            Markup("<span>{}</span>").format(word) if "-" in word else escape(word)
            for word in re.split("( +)", shown(line))
        ]
        made += Markup("<span class=line>{}</span>").format(Markup("").join(words))
    return made
