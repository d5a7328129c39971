"""The client of tfjs: the page in headless Chromium, driven by Playwright."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.signature import Arrays, Signature, batch_size
from serving.targets.base import TargetError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
READY_MILLISECONDS = 60_000

PREDICT = Path(__file__).with_suffix(".js")


class BrowserClient:
    """Calls `window.tandem.predict` of the page at `address`; the first call starts the browser."""

    def __init__(self, address: str, signature: Signature) -> None:
        self.address, self.signature = address, signature
        self.version: int | None = None
        """The version of the last response."""
        self._opened = ExitStack()
        self._page: Page | None = None
        # Playwright's sync interface belongs to one thread, and refuses one that runs an event loop or
        # another Playwright.
        self._thread = ThreadPoolExecutor(1, "browser")

    def predict(self, inputs: Arrays) -> Arrays:
        """Raises `TargetError` with the page's error, or if there is no browser."""
        return self._thread.submit(self._predict, inputs).result()

    def close(self) -> None:
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _predict(self, inputs: Arrays) -> Arrays:
        error = _playwright_error()
        count = batch_size(inputs)
        encoded = {
            name: (
                array.dtype.name,
                base64.b64encode(array.astype(f"<{array.dtype.str[1:]}").tobytes()).decode(),
            )
            for name, array in inputs.items()
        }
        try:
            page = self._page or self._open()
            outputs, self.version = page.evaluate(PREDICT.read_text(), [encoded, count])
        except error as failure:
            self._close()
            raise TargetError(f"{self.address} in Chromium: {failure}") from failure
        except TargetError:
            self._close()
            raise
        return {
            tensor.name: np.frombuffer(base64.b64decode(outputs[tensor.name]), "<f4")
            .reshape(count, *tensor.row)
            .astype(tensor.dtype)
            for tensor in self.signature.outputs
        }

    def _open(self) -> Page:
        from playwright.sync_api import sync_playwright

        playwright = self._opened.enter_context(sync_playwright())
        self._page = self._opened.enter_context(launch_chromium(playwright)).new_page()
        self._page.goto(self.address)
        # Waiting for a function evaluates a string in the page, which its Content-Security-Policy forbids.
        self._page.wait_for_selector("[data-ready]", state="attached", timeout=READY_MILLISECONDS)
        return self._page

    def _close(self) -> None:
        self._opened.close()
        self._page = None


def launch_chromium(playwright: Playwright) -> Browser:
    """Start a headless Chromium with its own user data folder. Raises `TargetError` if there is none."""
    # Chromium's sandbox does not run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=find_chromium(playwright), args=arguments)


def installed_chromium() -> str:
    """Return the path of a Chromium or Chrome, on the PATH or as a Mac application; empty if there is none."""
    on_path = next((path for name in NAMES if (path := shutil.which(name))), "")
    return on_path or next((path for path in MAC_APPLICATIONS if Path(path).is_file()), "")


def find_chromium(playwright: Playwright) -> str:
    """Return the path of Chromium, installed or Playwright's. Raises `TargetError` with the command to install one."""
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
