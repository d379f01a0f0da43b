"""A small report with whatever a stranger's run folder might smuggle in."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from stages.report.figures.style import ALARM, FAINT, INK, canvas, look, on, words
from stages.report.page.document import (
    Code,
    Data,
    Document,
    Facts,
    Figure,
    Fold,
    Group,
    Paragraph,
    Section,
    Table,
    quoted,
)

EVIL = (
    '</script><img src=x onerror=alert(1)>" onload="alert(2) javascript:alert(3) $x_1$ \u202e\x00'
)
LONG = "w" * 300
ELSEWHERE = "עברית 😀 中文 é"


def lines() -> Any:
    """Curves with labels at their ends and a name that is no formula."""
    figure = canvas()
    axes = figure.subplots()
    for k, strategy in enumerate(("none", "lgr", "lgr+d", "joint")):
        one = look(strategy)
        axes.plot([1, 2, 3], [90, 80 - k, 70 - 4 * k], color=one.colour, marker=one.mark)
        axes.annotate(strategy, (3, 70 - 4 * k), color=one.colour)
    note = axes.annotate(words(f"{EVIL} {ELSEWHERE}"), (1, 72), color=ALARM, fontsize=5)
    note.set_in_layout(False)
    axes.bar([2], [5], bottom=60, color="none", edgecolor=INK, hatch="//")
    axes.set_xlabel("tasks learnt")
    axes.set_ylabel("accuracy, %")
    return figure


def cells() -> Any:
    """A heat map: its colours stay as they are in the dark, and so must the words on them."""
    figure = canvas(2.7, 2.4)
    axes = figure.subplots()
    axes.grid(False)
    image = axes.pcolormesh([[10, 90], [50, 20]], cmap="Blues", vmin=0, vmax=100)
    for x, y, value in ((0.5, 0.5, 10), (1.5, 0.5, 90)):
        colour = on(image.cmap(image.norm(value)))
        axes.text(x, y, str(value), color=colour, ha="center", va="center")
    axes.axhline(1, color=INK)
    axes.axvline(1, color=FAINT)
    return figure


def results() -> Table:
    return Table(
        "results",
        "Results, mean ± sample sd over 3 seeds",
        ("strategy", "n", *(f"accuracy {k} % ▲" for k in range(12)), "remark"),
        (
            ("majority floor", "", "50.00", *[""] * 11, ""),
            ("none", "3", "-4.78 ± 4.57", *["84.61 ± 3.81"] * 11, "a&b_c 100% {x}"),
            (f"{quoted(EVIL)} †", "3", "**88.89 ± 0.60**", *["[87.04 ± 0.53]"] * 11, ""),
            (quoted(LONG), "0", "not run", *["–"] * 11, quoted(r"\input{x} ~^ #1 | *")),
        ),
        Data(("strategy", "accuracy"), (("none", 0.1 + 0.2), ("=1+1", None), ("-1", 3))),
        note="Best in **bold**; † not better than `none`.",
    )


def made_document() -> Document:
    left_out = Table(
        "left-out",
        f"Left out: {quoted(ELSEWHERE)}",
        ("folder", "why"),
        ((quoted("runs/a_b|c"), quoted(f"no number {EVIL} {LONG}")),),
        Data(("folder", "why"), ((EVIL, LONG),)),
        printed=False,
    )
    data = Data(("tasks", "accuracy"), ((1, 0.9), (2, 1 / 3)))
    curves = Figure("curves", "Accuracy *over* tasks", f"90 to 70 % {EVIL}", lines, "n = 3.", data)
    return Document(
        f"A **report** of {quoted(EVIL)}",
        (
            Paragraph("**lgr** keeps 70 %; see [the results](#results), [nothing](#nowhere) and "
                      "[the paper](https://example.org/a_b?c=1&d=2)."),
            Paragraph(f"The generator is collapsed: {quoted(EVIL)}", "alarm"),
            Paragraph("The root is random.", "warning"),
            Paragraph("One run was left out.", "note"),
        ),
        (
            Section("what", "What was run", (
                Facts((("data set", quoted(EVIL)), (ELSEWHERE, quoted(LONG)))),
            )),
            Section("results", "Results & *more*", (results(), curves), (
                Section("inner", quoted(ELSEWHERE), (
                    Group(tuple(Figure(f"cells-{k}", f"R {k}", "10 to 90", cells) for k in "abc")),
                )),
            )),
            Section("how", "How it was measured", (
                Fold("What was left out", (left_out, Figure("folded", "F", "as above", lines))),
                Code(f"lgr-pipe train --strategy lgr+d \\\n  --out 'runs/{LONG}' <&> ``` {EVIL}"),
            )),
        ),
    )  # fmt: skip


class Seen(HTMLParser):
    """What a browser makes of a text: tags with attributes, and the words between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(str(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
