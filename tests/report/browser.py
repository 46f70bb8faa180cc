"""Pages in a real browser: Debian's Chromium, driven by Playwright.

Where there is none, the tests are skipped; with TESTS_NEED_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

# Nothing of the browser itself may use the network, and it needs neither a sandbox of its own nor a display.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """Its path; skips the test where there is none, or fails where there must be one."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        reason = "there is no Chromium (on Debian: apt-get install chromium)"
        if os.environ.get("TESTS_NEED_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    path = chromium()
    with sync_playwright() as playwright:
        # Playwright's own handlers would be those of the test process.
        opened = playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS, handle_sigint=False, handle_sigterm=False, handle_sighup=False
        )
        try:
            yield opened
        finally:
            opened.close()


class Opened:
    """A page that was opened from a file, with everything that went wrong and everything that it asked for."""

    def __init__(self, opened: Browser, file: Path, *, width: int = 1400, dark: bool = False) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page: Page = opened.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-ready=true]", state="attached")
        # The first is the page.
        self.requests = self.requests[1:]
