"""Words and tables of a report: nothing in a text becomes more than text, in any form."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from markdown_it import MarkdownIt

from stages.report.page import latex
from stages.report.page.document import Data, quoted
from stages.report.page.markup import html as inline_html
from stages.report.page.markup import markdown as inline_markdown
from stages.report.page.markup import plain, shown
from stages.report.page.sheet import csv_text
from stages.report.page.walk import of_numbers
from stages.report.page.write import write
from tests.made_document import Seen, made_document, results

TEXTS = some.one_of(
    some.text(max_size=60),
    some.text("\\`*_[]<>|#()&;\"'=!/ ab\n$~^{}%-.1+", max_size=60),
    some.lists(
        some.sampled_from(
            ["**", "*", "`", "[a](#b)", "](", "<b>", "&lt;", "\\", "x", " ", "1. ", "▲", "</p>",
             "[w](https://e.org/?a=1&b)", "[w](javascript:alert(1))", "±", "\u202e", "é", "😀"]
        ),
        max_size=20,
    ).map("".join),
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "deep" / "out"
    write(made_document(), out)
    return out


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**a** *b* `c`", "<strong>a</strong> <em>b</em> <code>c</code>"),
        ("**a *b* `**`**", "<strong>a <em>b</em> <code>**</code></strong>"),
        ("2 * 3 * 4, a ** b", "2 * 3 * 4, a ** b"),
        ("[x](#here) [y](#gone)", '<a href="#here">x</a> y'),
        ("[87.04 ± 0.53]", "[87.04 ± 0.53]"),
        (f"`{quoted('a`b*')}`", "<code>a`b*</code>"),
        (f"**{quoted('**')}**", "<strong>**</strong>"),
        ("[x](https://e.org/?a=1&b)", '<a href="https://e.org/?a=1&amp;b">x</a>'),
        ("[x](javascript:alert)", "[x](javascript:alert)"),
    ],
)
def test_markup_of_ours(text: str, html: str) -> None:
    assert inline_html(text, {"here"}) == html


@given(TEXTS)
def test_no_text_becomes_a_tag_or_an_attribute(text: str) -> None:
    seen = Seen(inline_html(text, {"b"}))
    assert seen.words.replace("\u00a0", " ") == plain(text).replace("\u00a0", " ")
    for tag, attributes in seen.tags:
        assert (tag, set(attributes)) in (
            ("strong", set()), ("em", set()), ("code", set()), ("a", {"href"}),
            ("span", {"role", "aria-label"}),
        )  # fmt: skip
        assert re.fullmatch("#b|https://[^\"'<>]*|", attributes.get("href") or "")


@given(TEXTS)
def test_quoted_means_nothing_but_itself(text: str) -> None:
    assert plain(quoted(text)) == shown(text)
    assert {tag for tag, _ in Seen(inline_html(quoted(text))).tags} <= {"span"}


@given(TEXTS)
def test_quoted_reads_the_same_in_any_other_markdown(text: str) -> None:
    rendered = (
        MarkdownIt("commonmark")
        .enable("table")
        .enable("strikethrough")
        .render(inline_markdown(quoted(text)))
    )
    seen = Seen(rendered)
    assert {tag for tag, _ in seen.tags} <= {"p"}
    assert seen.words.split() == shown(text).split()


@given(TEXTS)
def test_latex_has_only_known_commands(text: str) -> None:
    made = latex.latex(quoted(text))
    assert made.isascii()
    # Read as TeX does: a command or an escaped sign, groups and formulas that are closed.
    depth, formula = 0, False
    for token in re.findall(r"\\[a-zA-Z]+|\\.|[{}$#&~^_%]|.", made, re.DOTALL):
        if token == "$":
            formula = not formula
        elif token in ("^", "#", "&", "_", "%"):
            assert token == "^"
            assert formula
        elif len(token) > 1 and token[1:].isalpha():
            assert token not in (r"\input", r"\write", r"\def", r"\immediate", r"\csname")
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0
    assert not formula


def test_latex_says_what_the_page_says() -> None:
    assert latex.latex("**84.61 ± 3.81** [-1.5] †▲ --lr é α 😀") == (
        r"\textbf{84.61 $\pm$ 3.81} {[}$-$1.5{]} $\dagger$$\uparrow$ -{}-lr \'{e} $\alpha$ "
        r"{[}U+1F600{]}"
    )


def test_csv_is_exact_and_no_formula(written: Path) -> None:
    rows = list(csv.reader(io.StringIO((written / "tables" / "results.csv").read_text())))
    assert rows == [["strategy", "accuracy"], ["none", repr(0.1 + 0.2)], ["'=1+1", ""], ["-1", "3"]]
    assert csv_text(Data(("@x",), ((float("nan"),), ("\ud800",)))) == "'@x\n\n\\ud800\n".replace(
        "\n\n", '\n""\n'
    )


def test_numbers_stand_on_the_right() -> None:
    assert of_numbers(results()) == [False, *[True] * 13, False]


def test_markdown_tables_are_read_by_others_as_they_are(written: Path) -> None:
    text = (written / "report.md").read_text()
    seen = Seen(MarkdownIt("commonmark").enable("table").render(text))
    assert len(seen.all("table")) == 2
    table = results()
    assert len(seen.all("td")) == sum(map(len, table.rows)) + 2
    for row in table.rows:
        for cell in row:
            assert plain(cell) in seen.words
    links = [a["href"] or "" for a in seen.all("a")] + [i["src"] or "" for i in seen.all("img")]
    for to in links:
        assert to.startswith(("#", "https://example.org")) or (written / to).is_file(), to
    assert "#results--more" in links
    assert {tag for tag, _ in seen.tags} <= {
        "h1", "h2", "h3", "p", "strong", "em", "code", "pre", "a", "img", "table", "thead",
        "tbody", "tr", "th", "td", "blockquote", "ul", "li",
    }  # fmt: skip


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(written: Path, tmp_path: Path) -> None:
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
        f"\\input{{{written}/tables/results.tex}}\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_latex_tables_are_whole(written: Path) -> None:
    text = (written / "tables" / "results.tex").read_text()
    body = re.search(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL)
    assert body
    rows = [line for line in body[1].splitlines() if line.strip()]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [14] * 4
    assert all(row.endswith(r" \\") for row in rows)
    assert r"\label{tab:results}" in text
    assert r"\textbf{88.89 $\pm$ 0.60} & {[}87.04" in text
