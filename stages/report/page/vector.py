"""A figure's SVG as a part of the page: only what is drawn, in the page's colours.

What matplotlib writes is taken apart and put together again from known elements and attributes,
so that nothing in it can run or load.  Style attributes become plain ones, as the page's security
policy allows no others; ids become short ones that no other figure has.  What is the same in
many neighbours is said once, in a group around them.
"""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from stages.report.figures.style import ALARM, FAINT, GRID, INK, ON_DARK, ON_LIGHT, PAPER

_COLOURS = {
    INK: "var(--ink)", FAINT: "var(--faint)", GRID: "var(--grid)", PAPER: "var(--paper)",
    ALARM: "var(--alarm)",
}  # fmt: skip
_STRATEGIES = {"#0072b2": "var(--blue)", "#d55e00": "var(--vermilion)", "#009e73": "var(--green)"}
"""Colours of strategies that want to be lighter on dark paper."""
_AS_THEY_ARE = (ON_LIGHT, ON_DARK)
_ELEMENTS = frozenset({
    "svg", "g", "defs", "path", "use", "clipPath", "pattern", "rect", "text", "tspan", "image",
    "linearGradient", "stop",
})  # fmt: skip
_ATTRIBUTES = frozenset({
    "id", "d", "x", "y", "x1", "x2", "y1", "y2", "offset", "transform", "width", "height",
    "viewBox", "clip-path", "fill", "stroke", "opacity", "fill-opacity", "stroke-opacity",
    "fill-rule", "clip-rule", "stroke-width", "stroke-linecap", "stroke-linejoin",
    "stroke-dasharray", "stroke-dashoffset", "stroke-miterlimit", "stop-color", "stop-opacity",
    "font-size", "font-weight", "font-style", "text-anchor", "patternUnits", "gradientUnits",
})  # fmt: skip
_LONG = frozenset({
    "d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "stroke-dasharray",
    "stroke-dashoffset",
})  # fmt: skip
_INHERITED = (
    "fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-linecap",
    "stroke-linejoin", "stroke-dasharray", "stroke-dashoffset", "font-size", "font-weight",
    "font-style", "text-anchor",
)  # fmt: skip
"""By what is inside a group."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_HEX = re.compile(r"#[0-9a-f]{6}")


def described(svg: str, title: str, alt: str) -> str:
    """The file on its own, with words for who cannot see it."""
    tail = svg.index(">", svg.index("<svg")) + 1
    words = f"\n <title>{_text(title)}</title>\n <desc>{_text(alt)}</desc>"
    return _NOT_XML.sub("\ufffd", svg[:tail] + words + svg[tail:])


def inline(svg: str, number: int, label: str) -> str:
    """The figure with this number in the page; `label` is what a screen reader says."""
    tree = ET.fromstring(_NOT_XML.sub("\ufffd", svg))
    wanted = dict.fromkeys(reference for node in tree.iter() for reference in _references(node))
    # No name in a document has a capital letter.
    root = _copied(tree, {old: f"F{number}-{new}" for new, old in enumerate(wanted)})
    assert root is not None
    width = float(tree.get("width", "0").removesuffix("pt")) * 96 / 72
    height = float(tree.get("height", "0").removesuffix("pt")) * 96 / 72
    root.attrib |= {
        "width": f"{width:.0f}", "height": f"{height:.0f}", "role": "img", "aria-label": label,
        "stroke-linejoin": "round", "stroke-linecap": "butt",
    }  # fmt: skip
    return ET.tostring(root, encoding="unicode")


def _references(node: ET.Element) -> Iterator[str]:
    if (to := node.get(_XLINK, "")).startswith("#"):
        yield to[1:]
    for value in (node.get("clip-path", ""), node.get("style", "")):
        yield from re.findall(r"url\(#([^)]*)\)", value)


def _copied(node: ET.Element, ids: dict[str, str]) -> ET.Element | None:
    tag = node.tag.rpartition("}")[2]
    if tag not in _ELEMENTS:
        return None
    new = ET.Element(tag, _attributes(node, tag, ids))
    made: list[ET.Element] = []
    if tag in ("text", "tspan"):
        new.text = node.text if (node.text or "").strip() or not len(node) else None
    for child in node:
        one = _copied(child, ids)
        if one is None:
            continue
        if one.tag in ("g", "defs") and not one.attrib and (one.tag == "g" or not len(one)):
            made.extend(one)  # a group that says nothing
        else:
            made.append(one)
    for _, alike in itertools.groupby(made, _look):
        new.extend(_grouped(list(alike)))
    return new


def _look(node: ET.Element) -> tuple[str, tuple[tuple[str, str], ...]]:
    return node.tag, tuple((k, node.attrib[k]) for k in _INHERITED if k in node.attrib)


def _grouped(alike: list[ET.Element]) -> list[ET.Element]:
    """As they are, or as one group with what they share."""
    shared = dict(_look(alike[0])[1])
    if len(alike) < 3 or not shared or alike[0].tag in ("tspan", "g", "defs"):
        return alike
    group = ET.Element("g", shared)
    for node in alike:
        for name in shared:
            del node.attrib[name]
    group.extend(alike)
    return [group]


def _attributes(node: ET.Element, tag: str, ids: dict[str, str]) -> dict[str, str]:
    found = {name: value for name, value in node.attrib.items() if name != "style"}
    for part in node.get("style", "").split(";"):
        name, _, value = part.partition(":")
        found[name.strip()] = value.strip()
    href = found.pop(_XLINK, "")
    kept = {}
    for name, value in found.items():
        if name not in _ATTRIBUTES or (name == "id" and value not in ids):
            continue
        value = re.sub(r"url\(#([^)]*)\)", lambda m: f"url(#{ids.get(m[1], '')})", value)
        if name == "id":
            value = ids[value]
        elif name in ("fill", "stroke", "stop-color"):
            value = _colour(value, words=tag in ("text", "tspan"))
        elif name == "transform":
            value = re.sub(r"rotate\(-?0 [^)]*\)", "", value).strip()
        elif name in _LONG:
            value = _NUMBER.sub(_rounded, " ".join(value.split()))
            value = re.sub(r" ?([MLHVCSQTAZmlhvcsqtaz]) ?", r"\1", value)
        if value:
            kept[name] = value
    if tag == "use" and href.startswith("#"):
        kept["href"] = f"#{ids[href[1:]]}"
    elif tag == "image" and href.startswith("data:image/png;base64,"):
        kept["href"] = "".join(href.split())
    return kept


def _rounded(match: re.Match[str]) -> str:
    """A hundredth of a point is less than any screen shows."""
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".") or "0"


def _colour(value: str, *, words: bool) -> str:
    if value in _COLOURS:
        return _COLOURS[value]
    shown = _STRATEGIES.get(value, value)
    if words and _HEX.fullmatch(value) and value not in _AS_THEY_ARE:
        return f"color-mix(in srgb, {shown} 55%, var(--ink))"  # legible on either paper
    return shown


def _text(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
