"""The requirements of tests by marker: why the machine lacks one, and what mends that; "" if it has it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from serving.platforms import engine
from serving.platforms.base import PlatformError
from serving.targets.base import TargetError
from serving.targets.browser import find_chromium
from tests.k8s import podman
from tests.k8s.podman import PodmanError

IN_CI = os.environ.get("CI") == "true"


@functools.cache
def chromium() -> str:
    from playwright.sync_api import sync_playwright

    def find() -> None:
        with sync_playwright() as playwright:
            find_chromium(playwright)

    try:
        # Playwright's sync interface refuses a thread that has run an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(find).result()
    except TargetError as missing:
        return str(missing)
    return ""


@functools.cache
def containers() -> str:
    try:
        engine.find()
        engine.compose()
    except PlatformError as missing:
        return f"{missing}; Debian: sudo apt-get install docker.io docker-compose"
    return ""


@functools.cache
def pods() -> str:
    try:
        podman.require()
    except PodmanError as missing:
        return str(missing)
    return containers()


BY_MARKER: dict[str, Callable[[], str]] = {
    "browser": chromium,
    "docker": containers,
    "tfx": containers,
    "podman": pods,
}
