"""TensorFlow.js as it is used: the page in headless Chromium, driven by Playwright."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.targets.base import Images, Outputs, TargetError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
READY_MILLISECONDS = 60_000

# Base64 carries an exact float32 array an order of magnitude faster than a JSON list.
PREDICT = """async ([pictures, count]) => {
  const bytes = Uint8Array.from(atob(pictures), (c) => c.charCodeAt(0));
  const text = (values) => {
    const raw = new Uint8Array(Float32Array.from(values).buffer);
    let binary = "";
    for (let i = 0; i < raw.length; i += 8192) binary += String.fromCharCode(...raw.subarray(i, i + 8192));
    return btoa(binary);
  };
  const answer = await window.tandem.predict(new Float32Array(bytes.buffer), count);
  return [text(answer.logits.flat()), text(answer.probabilities.flat()), answer.version];
}"""


class BrowserClient:
    """Predicts with `window.tandem.predict` of the page at `address`; the browser starts with the first call."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.version: int | None = None
        """The version that the last answer came from."""
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._page: Page | None = None
        # Playwright's sync interface belongs to one thread, and refuses one that runs an event loop or
        # another Playwright.
        self._thread = ThreadPoolExecutor(1, "browser")

    def predict(self, images: Images) -> Outputs:
        """Raises `TargetError` with what the page said, or where there is no browser."""
        return self._thread.submit(self._predict, images).result()

    def close(self) -> None:
        """End the browser."""
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _predict(self, images: Images) -> Outputs:
        error = _playwright_error()
        pictures = base64.b64encode(np.ascontiguousarray(images, "<f4").tobytes()).decode()
        try:
            page = self._page or self._open()
            logits, probabilities, self.version = page.evaluate(PREDICT, [pictures, len(images)])
        except error as failure:
            self._close()
            raise TargetError(f"{self.address} in Chromium: {failure}") from failure
        except TargetError:
            self._close()
            raise
        return Outputs(_decode(logits, len(images)), _decode(probabilities, len(images)))

    def _open(self) -> Page:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = launch_chromium(self._playwright)
        self._page = self._browser.new_page()
        self._page.goto(self.address)
        # Waiting for a function evaluates a string in the page, which its Content-Security-Policy forbids.
        self._page.wait_for_selector("[data-ready]", state="attached", timeout=READY_MILLISECONDS)
        return self._page

    def _close(self) -> None:
        if self._browser is not None:
            self._browser.close()
        if self._playwright is not None:
            self._playwright.stop()
        self._playwright = self._browser = self._page = None


def launch_chromium(playwright: Playwright) -> Browser:
    """Start a headless Chromium with a user data folder of its own. Raises `TargetError` where there is none."""
    # Chromium's sandbox refuses to run as root, which is what a container's user often is.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=find_chromium(playwright), args=arguments)


def installed_chromium() -> str:
    """The path of a Chromium or Chrome on the PATH or among the Mac's applications; empty where there is none."""
    on_path = next((path for name in NAMES if (path := shutil.which(name))), "")
    return on_path or next((path for path in MAC_APPLICATIONS if Path(path).is_file()), "")


def find_chromium(playwright: Playwright) -> str:
    """The path of a Chromium: on the PATH, as a Mac application, or Playwright's own.

    Raises `TargetError` naming the command that installs one.
    """
    own = playwright.chromium.executable_path
    if found := installed_chromium() or (own if Path(own).is_file() else ""):
        return found
    command = "sudo apt-get install chromium" if shutil.which("apt-get") else ""
    other = f"{sys.executable} -m playwright install chromium"
    raise TargetError(
        f"no Chromium was found; install one with: {' or '.join(filter(None, (command, other)))}"
    )


def _playwright_error() -> type[Exception]:
    try:
        from playwright.sync_api import Error
    except ImportError:
        raise TargetError(
            "the browser client needs playwright, which is among the development requirements: "
            "`make compare` installs it"
        ) from None
    return Error


def _decode(text: Any, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:  # noqa: ANN401
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(count, -1)
