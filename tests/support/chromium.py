# SPDX-License-Identifier: Apache-2.0
"""Installed Chromium under Playwright, without a display, sound or traffic of its own."""

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Page, sync_playwright

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--mute-audio",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)


def find() -> str | None:
    """The path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextlib.contextmanager
def opened(executable: str, url: str) -> Iterator[tuple[Page, list[str]]]:
    """A tab with the loaded page, and a list that grows by whatever goes wrong in it.

    That is: uncaught exceptions, errors and warnings of the console, and requests that fail.
    """
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        try:
            page = browser.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    complaints.append(message.text)
                    if message.type in ("error", "warning")
                    else None
                ),
            )
            page.on(
                "requestfailed",
                lambda request: (
                    None
                    if request.failure == "net::ERR_ABORTED"  # the player stopped reading
                    else complaints.append(f"{request.url}: {request.failure}")
                ),
            )
            page.goto(url, wait_until="load")
            yield page, complaints
        finally:
            browser.close()
