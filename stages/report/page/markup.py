r"""The small Markdown of a report's words, and what HTML, Markdown and plain text make of it.

**bold**, *emphasis*, `code`, [words](#section) and [words](https://...); a backslash takes the
meaning from the character after it, in code too (document.quoted).  Everything else is text: no
text can become a tag, an attribute or a command.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from cache.printable import printable

_ESCAPED = r"\\[\\`*_\[\]<>|#]"
_CODE_INSIDE = rf"`(?:{_ESCAPED}|(?!{_ESCAPED})[^`])+`"
_CODE = rf"`(?P<code>(?:{_ESCAPED}|(?!{_ESCAPED})[^`])+)`"
# At each place one of these at most, so that nothing is tried twice: `++` would say so shorter, but
# Python 3.11 before 3.11.5 gets it wrong.
_INSIDE = rf"{_ESCAPED}|{_CODE_INSIDE}|(?!{_ESCAPED}|{_CODE_INSIDE})[^*]"
_STRONG = rf"\*\*(?=\S)(?P<strong>(?:{_INSIDE}|\*(?!\*))+)(?<=\S)\*\*"
_EMPHASIS = rf"\*(?=[^\s*])(?P<emphasis>(?:{_INSIDE})+)(?<=\S)\*"
_LINK = (
    rf"\[(?P<words>(?:{_ESCAPED}|(?!{_ESCAPED})[^\[\]])+)\]"
    r"\((?P<to>#[a-z0-9-]+|https://[\w./:?=&%~+,;@-]+)\)"
)
_SPAN = re.compile(rf"{_ESCAPED}|{_CODE}|{_STRONG}|{_EMPHASIS}|{_LINK}", re.DOTALL | re.ASCII)

_JOINERS = "\u200c\u200d"
"""Not printable by themselves, and part of words and emoji."""

SIGNS = {"▲": "higher is better", "▼": "lower is better"}
"""Said aloud instead of the name of the character."""


@dataclass(frozen=True)
class Span:
    kind: Literal["text", "code", "strong", "emphasis", "link"]
    text: str = ""
    """Of text and code: what is shown."""
    inside: tuple[Span, ...] = ()
    to: str = ""
    """Of a link: #key or https://..."""


def parsed(text: str) -> tuple[Span, ...]:
    """Never fails: what is not closed is text."""
    spans: list[Span] = []
    words, end = "", 0
    for match in _SPAN.finditer(text):
        words += text[end : match.start()]
        end = match.end()
        if match.lastgroup is None:
            words += match[0][1:]
            continue
        if words:
            spans.append(Span("text", shown(words)))
            words = ""
        spans.append(_span(match))
    words += text[end:]
    return (*spans, Span("text", shown(words))) if words else tuple(spans)


def _span(match: re.Match[str]) -> Span:
    if match["code"] is not None:
        return Span("code", shown(re.sub(_ESCAPED, lambda m: m[0][1:], match["code"])))
    if match["to"] is not None:
        return Span("link", inside=parsed(match["words"]), to=match["to"])
    if match["strong"] is not None:
        return Span("strong", inside=parsed(match["strong"]))
    return Span("emphasis", inside=parsed(match["emphasis"]))


def shown(text: str) -> str:
    r"""Text with a plain space for each line end or tab, and no character that cannot be seen.

    >>> shown("a\tb\u202e")
    'a b\\u202e'
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(c: str) -> str:
    if c in "\n\r\t\u2028\u2029":
        return " "
    return c if c in _JOINERS or unicodedata.category(c) == "Zs" else printable(c)


def plain(text: str) -> str:
    """The words alone."""
    return _joined(parsed(text), lambda span, inside: inside if span.inside else span.text)


def html(text: str, targets: Collection[str] = ()) -> Markup:
    """A link within the page whose target is none of `targets` is only its words."""

    def made(span: Span, inside: str) -> str:
        words = Markup(inside)
        match span.kind:
            case "text":
                return _signs(escape(span.text))
            case "code":
                return Markup("<code>{}</code>").format(span.text)
            case "strong":
                return Markup("<strong>{}</strong>").format(words)
            case "emphasis":
                return Markup("<em>{}</em>").format(words)
            case "link" if span.to.startswith("#") and span.to[1:] not in targets:
                return words
            case "link":
                return Markup('<a href="{}">{}</a>').format(span.to, words)

    return Markup(_joined(parsed(text), made))


def _signs(text: Markup) -> Markup:
    for sign, meaning in SIGNS.items():
        text = text.replace(f" {sign}", f"\u00a0{sign}")
        aloud = Markup('<span role="img" aria-label="{}">{}</span>').format(meaning, sign)
        text = text.replace(sign, aloud)
    return text


def markdown(text: str, *, slugs: Callable[[str], str] | None = None, cell: bool = False) -> str:
    """For GitHub and CommonMark.  `slugs` gives the address of a section by its key; in a cell
    of a table | is escaped."""

    def made(span: Span, inside: str) -> str:
        match span.kind:
            case "text":
                return _escaped(span.text, cell)
            case "code":
                return _code(span.text, cell)
            case "strong":
                return f"**{inside}**"
            case "emphasis":
                return f"*{inside}*"
            case "link":
                to = span.to
                if to.startswith("#"):
                    to = f"#{slug}" if slugs and (slug := slugs(to[1:])) else ""
                return f"[{inside}]({to})" if to else inside

    return _joined(parsed(text), made)


def _escaped(text: str, cell: bool) -> str:
    # At the start of a line lists, headings, quotes and rules begin.
    text = re.sub(r"[\\`*_\[\]<>~$]|&(?=[#\w])" + (r"|\|" if cell else ""), r"\\\g<0>", text)
    if cell:
        return text
    return re.sub(r"^(\s*)([-+#=|:])|^(\s*\d{1,9})([.)])", r"\1\3\\\2\4", text)


def _code(text: str, cell: bool) -> str:
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return fence + room + (text.replace("|", r"\|") if cell else text) + room + fence


def _joined(spans: tuple[Span, ...], made: Callable[[Span, str], str]) -> str:
    """`made` gets a span and what became of the spans inside it."""
    return "".join(made(span, _joined(span.inside, made)) for span in spans)
