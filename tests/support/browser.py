"""A real Chromium without a window, where one is installed (Debian's, driven by playwright); tests that want it skip elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (390, 1440)
"""A phone's and a desk's, in CSS pixels."""


@dataclass
class Seen:
    """What a page did behind the scenes."""

    messages: list[str] = field(default_factory=list)
    """Console lines, uncaught errors and failed requests."""
    requests: list[str] = field(default_factory=list)
    """Addresses that were asked for, without `data:` and `blob:`."""


def require_chromium() -> None:
    """Skips the test where there is no Chromium or no playwright."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt install chromium")
    pytest.importorskip("playwright", reason="playwright is not installed: pip install 'impasto[dev]'")


@contextmanager
def opened(address: str, *, width: int = 1440, **context: Any) -> Iterator[tuple[Any, Seen]]:
    """A page of playwright's, loaded, and what it did. width: of the window, in CSS pixels. context: as `Browser.new_context` takes
    it.
    """
    from playwright.sync_api import sync_playwright

    seen = Seen()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_context(viewport={"width": width, "height": 900}, **context).new_page()
            page.set_default_timeout(120_000)
            page.on("console", lambda message: seen.messages.append(message.text))
            page.on("pageerror", lambda error: seen.messages.append(str(error)))
            page.on("requestfailed", lambda request: seen.messages.append(f"{request.url[:100]}: {request.failure}"))
            page.on("request", lambda request: _note(seen, request.url))
            page.goto(address, timeout=120_000)
            yield page, seen
        finally:
            browser.close()


def _note(seen: Seen, address: str) -> None:
    if not address.startswith(("data:", "blob:")):
        seen.requests.append(address)


def fits(page: Any) -> bool:
    """Whether nothing sticks out at the right."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def address_of(path: Path) -> str:
    return path.resolve().as_uri()
