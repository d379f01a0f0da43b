"""A document as files: closed to strangers, equal for equal input, and nothing else touched."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cache import files as files_module
from cache.errors import Refused
from stages.report.page import vector
from stages.report.page.document import Data, Document, Figure, Section, Table
from stages.report.page.html import page
from stages.report.page.markdown import markdown
from stages.report.page.walk import figures, tables
from stages.report.page.write import file_names, steps, write
from tests.made_document import EVIL, Seen, made_document


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "deep" / "out"
    write(made_document(), out)
    return out


def test_all_files_and_nothing_else(written: Path) -> None:
    document = made_document()
    there = sorted(str(p.relative_to(written)) for p in written.rglob("*") if p.is_file())
    assert there == sorted([*file_names(document), ".report-files.json"])
    assert "tables/results.tex" in there
    assert "tables/left-out.tex" not in there
    assert steps(document) == len(figures(document)) + len(tables(document)) + 1


def test_equal_documents_give_equal_bytes(written: Path, tmp_path: Path) -> None:
    done: list[str] = []
    write(made_document(), tmp_path / "again", done.append)
    for path in written.rglob("*"):
        if path.is_file():
            assert (
                path.read_bytes() == (tmp_path / "again" / path.relative_to(written)).read_bytes()
            )
    assert len(done) == steps(made_document())


def small(*names: str) -> Document:
    data = Data(("a",), ((1,),))
    return Document("t", (), tuple(
        Section(name, name, (Table(name, name, ("a",), (("1",),), data),)) for name in names
    ))  # fmt: skip


def test_an_earlier_report_goes_and_nothing_else(tmp_path: Path) -> None:
    write(small("old", "kept"), tmp_path)
    (tmp_path / "tables" / "mine.csv").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    write(small("kept"), tmp_path)
    there = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert there == [
        ".report-files.json", "notes.txt", "report.html", "report.md", "tables/kept.csv",
        "tables/kept.tex", "tables/mine.csv",
    ]  # fmt: skip


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(Refused, match=r"report\.md would be replaced"):
        write(small("a"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "mine"


@pytest.mark.parametrize("names", [["../outside"], ["notes.txt"], 3, None, ["tables/../x.csv"]])
def test_a_list_that_lies_deletes_nothing(tmp_path: Path, names: object) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for path in (tmp_path / "outside", out / "notes.txt", out / "x.csv"):
        path.write_text("mine")
    (out / ".report-files.json").write_text(
        json.dumps({"format": "lgr-pipe report files", "files": names})
    )
    write(small("a"), out)
    assert (tmp_path / "outside").exists()
    assert (out / "notes.txt").exists()
    assert (out / "x.csv").exists()


def test_an_interrupted_report_is_known_as_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, write: Any) -> None:
        if path.name == "report.md":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, write)

    real = files_module.write_atomically
    monkeypatch.setattr("stages.report.page.folder.write_atomically", full)
    with pytest.raises(Refused, match=r"cannot be written .* No space left on device"):
        write(small("a"), tmp_path)
    monkeypatch.undo()
    write(small("b"), tmp_path)
    assert not (tmp_path / "tables" / "a.csv").exists()


def test_what_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot be written"):
        write(small("a"), tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "tables").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="is a link"):
        write(small("a"), tmp_path / "out")


def test_names_must_be_names() -> None:
    with pytest.raises(ValueError, match="not unique"):
        write(small("a", "a"), Path("never"))
    with pytest.raises(ValueError, match="no names"):
        write(small("../a"), Path("never"))


def test_page_is_closed_to_everything(written: Path) -> None:
    text = (written / "report.html").read_text()
    seen = Seen(text)
    allowed = dict(line.split(" ", 1) for line in str(
        next(m["content"] for m in seen.all("meta") if m.get("http-equiv"))
    ).split("; "))  # fmt: skip
    styles = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert styles
    digest = base64.b64encode(hashlib.sha256(styles[1].encode()).digest()).decode()
    assert allowed == {
        "default-src": "'none'", "style-src": f"'sha256-{digest}'", "img-src": "data:",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert not seen.all("script")
    assert not re.search(r"@import|url\((?!#)", styles[1])
    for tag, attributes in seen.tags:
        assert not any(name == "style" or name.startswith("on") for name in attributes), tag
        source = (
            attributes.get("src") or (attributes.get("href") if tag != "a" else None) or "data:"
        )
        assert source.startswith(("data:", "#")), (tag, source)


def test_page_has_names_for_everything(written: Path) -> None:
    seen = Seen((written / "report.html").read_text())
    ids = [str(a["id"]) for _, a in seen.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in seen.tags:
        if (to := attributes.get("href") or "").startswith("#"):
            assert to[1:] in ids
        if label := attributes.get("aria-labelledby"):
            assert label in ids
    for a in seen.all("a"):
        to = a["href"] or ""
        assert to.startswith(("#", "https://example.org/")) or (written / to).is_file()
    assert len(seen.all("svg")) == len(figures(made_document()))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in seen.all("svg"))
    assert seen.all("html")[0]["lang"] == "en"
    assert EVIL.replace("\u202e", "\\u202e").replace("\x00", "\\x00") in seen.words


def test_figures_take_the_colours_of_the_page(written: Path) -> None:
    text = (written / "report.html").read_text()
    for colour in ("#1c1c21", "#6b6b73", "#e2e2e7", "#fefefe", "#c0392b", "#0072b2"):
        assert f'="{colour}"' not in text
    assert 'fill="#1b1b1e"' in text  # words on a cell stay as they are
    assert 'fill="#fdfdfd"' in text
    assert all(f"var(--{name})" in text for name in ("ink", "faint", "grid", "alarm", "blue"))


def test_only_what_is_drawn_is_taken_from_an_svg() -> None:
    made = vector.inline(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'width="10pt" height="20pt" viewBox="0 0 10 20" onload="a()"><script>b()</script>'
        '<foreignObject><p>c</p></foreignObject><image xlink:href="https://e.org/d.png"/>'
        '<a xlink:href="javascript:e()"><path d="M 0 0"/></a><g id="f"><path id="g" '
        'style="fill: #1c1c21; background: url(https://e.org)" d="M 1.23456 2 &#10; L 3 4"/></g>'
        '<use xlink:href="#g" clip-path="url(#g)"/><text>a &lt;b&gt;</text></svg>',
        7, 'x" onload="y',
    )  # fmt: skip
    assert made == (
        '<svg width="13" height="27" viewBox="0 0 10 20" role="img" '
        'aria-label="x&quot; onload=&quot;y" stroke-linejoin="round" stroke-linecap="butt">'
        '<image /><path id="F7-0" d="M1.23 2L3 4" fill="var(--ink)" />'
        '<use clip-path="url(#F7-0)" href="#F7-0" /><text>a &lt;b&gt;</text></svg>'
    )


def test_a_page_that_would_be_too_large_gets_smaller_pictures(tmp_path: Path) -> None:
    def crowd() -> Any:
        from stages.report.figures.style import canvas

        figure = canvas()
        figure.subplots().scatter(range(3000), [k * k % 977 for k in range(3000)], s=4)
        return figure

    two = [Figure(f"crowd-{k}", "Crowd", "a crowd", crowd) for k in range(2)]
    document = Document("t", tuple(two), ())
    whole = tmp_path / "whole"
    write(document, whole)
    drawn = (whole / "report.html").stat().st_size
    write(document, tmp_path / "small", largest_page=drawn - 1000)
    text = (tmp_path / "small" / "report.html").read_text()
    assert (text.count("<svg"), text.count("<img")) == (1, 1)
    assert 'alt="Crowd. a crowd"' in text
    write(document, tmp_path / "tiny", largest_page=25_000)
    text = (tmp_path / "tiny" / "report.html").read_text()
    assert (text.count("<svg"), text.count("<img")) == (0, 0)
    assert len(text) < 25_000
    assert 'href="figures/crowd-0.svg"' in text


@pytest.mark.parametrize("paper", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(paper: int) -> None:
    """WCAG: 4.5 for words, 3 for marks."""
    styles = (Path(vector.__file__).parent / "page.css").read_text()
    pairs = dict(re.findall(r"--([a-z-]+): light-dark\(([^)]*)\)", styles))
    colours = {name: both.split(", ")[paper] for name, both in pairs.items()}
    plain_ones = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", styles))
    assert {name: both.split(", ")[0] for name, both in pairs.items()} == plain_ones

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(a: str, b: str) -> float:
        low, high = sorted(luminance(colours[name]) + 0.05 for name in (a, b))
        return high / low

    for words, behind in [
        ("ink", "paper"), ("faint", "paper"), ("link", "paper"), ("alarm", "paper"),
        ("alarm", "alarm-wash"), ("ink", "warning-wash"), ("ink", "wash"), ("faint", "wash"),
        ("link", "wash"), ("link", "warning-wash"),
    ]:  # fmt: skip
        assert contrast(words, behind) >= 4.5, (words, behind)
    for mark in ("blue", "vermilion", "green", "warning"):
        assert contrast(mark, "paper") >= 3, mark


def test_page_and_markdown_need_no_disk() -> None:
    document = made_document()
    assert "<h1>" in page(document, {figure.name: "" for figure in figures(document)})
    assert markdown(document).startswith("# A **report** of ")
