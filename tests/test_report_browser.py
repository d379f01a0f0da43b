"""The page of a report as a reader has it: phone, desk, dark, paper, keyboard."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from stages.report.page.walk import figures, tables
from stages.report.page.write import write
from tests.browser import MISSING, PROGRAM, chromium, opened
from tests.made_document import made_document

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

ROLES: tuple[Literal["banner", "navigation", "main", "contentinfo"], ...] = (
    "banner", "navigation", "main", "contentinfo",
)  # fmt: skip
OPEN = "document.querySelectorAll('main details').forEach(d => d.open = true)"
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const found = rgb(getComputedStyle(node).backgroundColor);
      if (found[3] === 255) return found;
    }
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node), svg = node.closest('svg');
    const colour = rgb(svg ? style.fill : style.color);
    if (svg && ['rgb(27, 27, 30)', 'rgb(253, 253, 253)'].includes(style.fill)) continue;
    const [low, high] = [light(colour), light(behind(node))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    seen++;
    if (ratio < 4.5) poor.push([walker.currentNode.data.slice(0, 40), ratio]);
  }
  return {seen, poor};
}"""
"""Words on a cell of a heat map are left out: the cell is behind them, not the page."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report page é")
    write(made_document(), out)
    return out / "report.html"


def test_this_browser_tells_what_a_page_should_not_do(browser: Browser, tmp_path: Path) -> None:
    for told, text in (
        ("request: http://127.0.0.1:9/x.png", '<img src="http://127.0.0.1:9/x.png">'),
        ("console: warning x", "<script>console.warn('x')</script>"),
        ("error: x", "<script>throw 'x'</script>"),
    ):
        (tmp_path / "page.html").write_text(text)
        with (
            pytest.raises(AssertionError, match=told),
            opened(browser, tmp_path / "page.html") as found,
        ):
            found.wait_for_timeout(100)


def beyond(found: Page) -> list[Any]:
    """Elements that stick out of the window, but for what scrolls in a region of its own."""
    sticking: list[Any] = found.evaluate(
        """() => [...document.querySelectorAll('body *')]
        .filter(e => !e.closest('.scroll *, svg *, .skip') && e.getClientRects().length
            && e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    return sticking


@pytest.mark.parametrize("width", [320, 400, 760, 1280, 1920])
def test_nothing_is_wider_than_the_window(browser: Browser, page: Path, width: int) -> None:
    with opened(browser, page, width) as found:
        found.evaluate(OPEN)
        assert found.evaluate("document.scrollingElement.scrollWidth") <= width
        assert beyond(found) == []


def test_wide_tables_scroll_in_their_own_region_and_say_so(browser: Browser, page: Path) -> None:
    with opened(browser, page, 400) as found:
        region = found.locator("#table-results .scroll")
        inner, outer = region.evaluate("e => [e.scrollWidth, e.clientWidth]")
        assert inner > outer
        assert found.locator("#table-results .hint").bounding_box()["width"] > 50  # type: ignore[index]
        region.focus()
        found.keyboard.press("ArrowRight")
        for _ in range(100):  # it scrolls smoothly
            if region.evaluate("e => e.scrollLeft") > 0:
                break
            found.wait_for_timeout(50)
        assert region.evaluate("e => e.scrollLeft") > 0
        heading = found.locator("#table-results tbody th").nth(1)
        assert heading.bounding_box()["x"] >= 0  # type: ignore[index]
    with opened(browser, page, 1900) as found:
        found.evaluate(OPEN)
        box = found.locator("#table-left-out .hint").bounding_box()
        assert box is None or box["width"] < 1


def test_every_figure_is_drawn_and_named(browser: Browser, page: Path) -> None:
    with opened(browser, page, 400) as found:
        found.evaluate(OPEN)
        boxes = found.evaluate(
            """() => [...document.querySelectorAll('figure svg')].map(svg => {
                const box = svg.getBBox(), shown = svg.getBoundingClientRect();
                return [box.width, box.height, shown.width, shown.height, svg.ariaLabel.length];
            })"""
        )
        assert len(boxes) == len(figures(made_document()))
        assert all(min(box) > 10 for box in boxes), boxes
        drawn = found.evaluate(
            """() => [...document.querySelectorAll('svg path, svg use, svg text')]
                .filter(e => !e.closest('defs, clipPath'))
                .filter(e => { const b = e.getBBox(); return b.width + b.height === 0; }).length"""
        )
        assert drawn == 0
        wanted, missing = found.evaluate(
            """() => {
                const wanted = [...document.querySelectorAll('svg *')].flatMap(e =>
                    [...e.attributes].flatMap(a => a.name === 'href' ? [a.value.slice(1)]
                        : [...a.value.matchAll(/url\\(#?(.*?)\\)/g)].map(m => m[1])));
                return [wanted.length, wanted.filter(id => !document.getElementById(id))];
            }"""
        )
        assert wanted > 20
        assert missing == []


def test_words_for_a_screen_reader(browser: Browser, page: Path) -> None:
    with opened(browser, page) as found:
        found.evaluate(OPEN)
        levels = found.evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1])"
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
        for role in ROLES:
            assert found.get_by_role(role).count() == 1, role
        for table in tables(made_document()):
            shown = found.locator(f"#table-{table.name} table")
            assert shown.locator("caption").inner_text().strip()
            assert shown.locator("thead th[scope=col]").count() == len(table.head)
            assert shown.locator("tbody th[scope=row]").count() == len(table.rows)
        for figure in figures(made_document()):
            words = found.locator(f"#figure-{figure.name} svg").get_attribute("aria-label") or ""
            assert figure.alt.split("<")[0] in words


def test_by_keyboard(browser: Browser, page: Path) -> None:
    with opened(browser, page, 400) as found:
        found.keyboard.press("Tab")
        assert found.evaluate("document.activeElement.className") == "skip"
        assert found.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
        assert found.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
        found.keyboard.press("Enter")
        assert found.evaluate("document.activeElement.id") == "page-content"
        found.locator("#page-auto").focus()
        found.keyboard.press("ArrowRight")
        found.keyboard.press("ArrowRight")
        assert found.evaluate("document.activeElement.id") == "page-dark"
        assert found.evaluate(
            "getComputedStyle(document.documentElement).backgroundColor"
        ) == "rgb(23, 24, 27)"  # fmt: skip


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_words_can_be_read_on_either_paper(
    browser: Browser, page: Path, colours: Literal["light", "dark"]
) -> None:
    with opened(browser, page, colours=colours) as found:
        found.evaluate(OPEN)
        read = found.evaluate(CONTRAST)
        assert read["seen"] > 150
        assert read["poor"] == []
        back = found.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert back == {"light": "rgb(254, 254, 254)", "dark": "rgb(23, 24, 27)"}[colours]


def test_on_paper_everything_is_there(browser: Browser, page: Path) -> None:
    with opened(browser, page, colours="dark") as found:
        raw = found.pdf(format="A4")
        assert raw.startswith(b"%PDF")
        assert raw.count(b"/Type /Page\n") >= 2
        found.emulate_media(media="print")
        found.set_viewport_size({"width": 690, "height": 1000})  # A4 without its margins
        assert found.evaluate("document.scrollingElement.scrollWidth") <= 690
        assert found.locator("nav, header, .files").first.bounding_box() is None
        assert found.locator("#table-left-out").bounding_box()["height"] > 10  # type: ignore[index]
        back = found.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert back == "rgb(255, 255, 255)"


def test_commands_are_copied_as_they_are(browser: Browser, page: Path) -> None:
    with opened(browser, page, 400) as found:
        text = found.locator("pre").inner_text()
        assert text.startswith("lgr-pipe train --strategy lgr+d \\\n  --out 'runs/www")
