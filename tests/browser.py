"""A headless Chromium for the tests of pages; it can reach nothing but files of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING = "no chromium, chromium-browser or google-chrome on PATH"

_QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """With an empty profile."""
    from playwright.sync_api import sync_playwright

    assert PROGRAM, MISSING
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=_QUIET)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser,
    file: Path,
    width: int = 1280,
    colours: Literal["light", "dark"] = "light",
) -> Iterator[Page]:
    """A page of this machine at this width, in pixels.

    Fails, at the end, if it asked for anything but itself, wrote to the console, or raised an
    error.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=colours, offline=True
    )
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console: {message.type} {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("request", lambda request: _note(wrong, request.url, file))
    try:
        page.goto(file.as_uri())
        yield page
        assert not wrong, wrong
    finally:
        context.close()


def _note(wrong: list[str], url: str, file: Path) -> None:
    if url.partition("#")[0] != file.as_uri() and not url.startswith("data:"):
        wrong.append(f"request: {url}")
