"""Checks of this machine, with the commands that fix failures."""

from __future__ import annotations

import importlib.metadata
import os
import platform as machine
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from serving import platforms, targets
from serving.platforms import engine, process
from serving.platforms.base import MONITORING, PlatformError
from serving.platforms.ports import require_ports
from serving.settings import PREFIX, Settings
from serving.targets.base import TargetError

ROOT = Path(__file__).parents[2]
DISK = 2 << 30
"""Bytes for data, trainings and some versions, without the environment."""
MEMORY = 4_000_000_000
"""Bytes of memory that trainings, exports and five servers need."""


@dataclass(frozen=True)
class Check:
    """A check and its finding; `mend` says how to fix it, "" if it passed."""

    name: str
    found: str
    mend: str = ""
    needed: bool = True
    """True if `tandem deploy` fails without it, on the platform of the settings."""

    @property
    def failed(self) -> bool:
        return bool(self.mend) and self.needed


def quick(settings: Settings) -> Iterator[Check]:
    """Run the checks that take less than a second, before minutes of training."""
    yield _folder(settings.artifacts)
    yield _disk(settings.artifacts)
    yield _memory()
    yield from _ports(settings)


def everything(settings: Settings) -> Iterator[Check]:
    """Run all checks."""
    yield _packages()
    yield from quick(settings)
    yield _found("java", lambda: _version(_java()), "make clean-env setup")
    yield _found("node", lambda: _version(_node()), "make clean-env setup")
    yield _engine(settings)
    yield _chromium()


def _folder(artifacts: Path) -> Check:
    folder = _existing(artifacts)
    if folder.is_dir() and os.access(folder, os.W_OK):
        return Check("artifacts", str(artifacts))
    return Check(
        "artifacts", f"{folder} is no folder that can be written to", f"{PREFIX}ARTIFACTS=<another folder>"
    )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _disk(artifacts: Path) -> Check:
    free = shutil.disk_usage(_existing(artifacts)).free
    mend = f"free some space, or {PREFIX}ARTIFACTS=<folder on another disk>" if free < DISK else ""
    return Check("disk", f"{free / 2**30:.1f} GiB free, {DISK / 2**30:.0f} needed", mend)


def _memory() -> Check:
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):
        # The limit of a container.
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    mend = "give this machine more, or close what takes it" if total < MEMORY else ""
    return Check("memory", f"{total / 1e9:.1f} GB, {MEMORY / 1e9:.0f} usual", mend, needed=False)


def _ports(settings: Settings) -> Iterator[Check]:
    """Yield a line for each port that others have taken, or one line if there is none."""
    try:
        platform, _ = platforms.choose(settings)
        running = platform.states(settings)
    except PlatformError:
        # The check of the engine reports it.
        return
    if platform.name == "process" and not running and process.orphans(settings):
        # `deploy` ends them.
        return
    wanted = [(name, *port) for name in targets.NAMES for port in targets.load(name).ports(settings).items()]
    wanted += [(MONITORING, "HTTP", settings.prometheus_port)] if settings.monitoring else []
    taken = False
    for name, purpose, port in wanted:
        try:
            if name not in running:
                require_ports(settings, name, {purpose: port})
        except PlatformError as error:
            taken = True
            found, _, mend = str(error).partition(". ")
            found = found.removeprefix(f"port {port} is ")
            yield Check(f"port {port}", found, mend or "see `tandem settings`")
    if not taken:
        yield Check("ports", "free, or our own targets listen on them")


def _packages() -> Check:
    """Compare the environment with its pins."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    installed: dict[str, str] = {
        canonicalize_name(d.name): d.version for d in importlib.metadata.distributions()
    }
    lines = (ROOT / "requirements" / "main.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    wrong = [pin.name for pin in pins if installed.get(pin.name, "") not in pin.specifier]
    found = f"Python {machine.python_version()}"
    if wrong:
        return Check("environment", f"{found}, not as pinned: {', '.join(wrong[:4])}", "make clean-env setup")
    return Check("environment", f"{found}, packages as pinned")


def _java() -> Path:
    from serving.torchserve.launch import java

    return java()


def _node() -> Path:
    from serving.web.install import node

    return node()


def _version(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.splitlines()[0]


def _engine(settings: Settings) -> Check:
    def find() -> str:
        version = engine.find()[1]
        return f"Docker {version}, {' '.join(engine.compose())}"

    mend = "Debian: sudo apt-get install docker.io docker-compose; elsewhere: Docker Engine with its compose plugin"
    return _found("engine", find, mend, needed=settings.platform == "docker")


def _chromium() -> Check:
    from serving.targets.browser import installed_chromium

    found = installed_chromium()
    if found:
        return Check("chromium", found)
    debian = "sudo apt-get install chromium"
    mend = debian if shutil.which("apt-get") else ".venv/bin/python -m playwright install chromium"
    return Check("chromium", "none, which `make compare` and its tests use", mend, needed=False)


def _found(name: str, find: Callable[[], str], mend: str, needed: bool = True) -> Check:
    try:
        return Check(name, find(), needed=needed)
    except (PlatformError, TargetError, OSError, ImportError, subprocess.SubprocessError) as error:
        return Check(name, str(error), mend, needed)
