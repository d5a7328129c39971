"""The page of a deployment in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from serving.settings import Settings
from serving.targets.browser import launch_chromium


@contextmanager
def opened(settings: Settings, width: int) -> Iterator[Page]:
    """The page, with every target's answer for its first sample. It must have logged no error."""
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        page = browser.new_page(viewport={"width": width, "height": 800})
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://{settings.host}:{settings.tfjs_port}/")
        page.wait_for_selector("#summary:has-text('endpoints')")
        yield page
        assert errors == []
        browser.close()


def load_runtime(page: Page, name: str) -> None:
    """Load what runs `name` on WebAssembly, which must answer."""
    row = page.locator("#in-browser tr", has_text=name).filter(has_text="WebAssembly")
    row.get_by_role("button").click()
    row.locator("td.figure:last-child:has-text('ms')").wait_for()
