"""Environments of servers: made by uv from pins, kept until the pins or the interpreter change."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from serving import progress
from serving.errors import TandemError

UV = Path(sys.executable).with_name("uv")
INSTALLED = "installed.txt"
"""The file with the pins of an environment; it is written last."""


class InstallError(TandemError):
    """A server cannot be installed here; the message says why."""


def install(pins: Path, folder: Path, base: Path) -> Path:
    """Make an environment of these pins with the Python `base` in `folder` unless it is there; returns its Python.

    Raises `InstallError`.
    """
    python = folder / "bin" / "python"

    def make() -> None:
        uv("venv", "--clear", "--seed", "--python", str(base), str(folder))
        uv("pip", "install", "--python", str(python), "--only-binary", ":all:", "--requirement", str(pins))

    once(folder, f"# {base}\n{pins.read_text()}", make)
    return python


def extend(pins: Path, folder: Path) -> None:
    """Let this process import the packages of these pins from `folder`, where they are installed if they are missing or
    others. What they need is this environment's. Raises `InstallError`."""

    def make() -> None:
        progress.note(f"installing {folder.name}, once")
        options = ["--target", str(folder), "--python", sys.executable, "--no-deps", "--only-binary", ":all:"]
        uv("pip", "install", *options, "--requirement", str(pins))

    once(folder, f"# {sys.version}\n{pins.read_text()}", make)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def once(folder: Path, wanted: str, make: Callable[[], None]) -> None:
    """Call `make`, which fills an empty `folder`, unless that is there as `wanted`; of several processes one does, and
    the others wait."""
    installed = folder / INSTALLED

    def is_there() -> bool:
        return installed.exists() and installed.read_text() == wanted

    if is_there():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_there():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                make()
                installed.write_text(wanted)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise


def uv(*arguments: str) -> str:
    """Run uv; returns what it printed. Raises `InstallError` with its errors."""
    done = subprocess.run(
        [str(UV), "--quiet", *arguments], env=_settings(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InstallError(done.stderr.strip() or f"uv {arguments[0]} failed")
    return done.stdout


def _settings() -> dict[str, str]:
    """Return the environment of uv, with pip's settings as in requirements/install."""
    settings = {"UV_SYSTEM_CERTS": "1", "UV_LINK_MODE": "copy", "UV_COMPILE_BYTECODE": "1"}
    for name, option in (("UV_FIND_LINKS", "find-links"), ("UV_DEFAULT_INDEX", "index-url")):
        asked = [sys.executable, "-m", "pip", "config", "get", f"global.{option}"]
        pip = "PIP_" + option.replace("-", "_").upper()
        value = (
            os.environ.get(pip) or subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        )
        if value.strip():
            # pip separates by white space, uv by commas.
            settings[name] = ",".join(value.split())
    return settings | os.environ
