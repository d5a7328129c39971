"""Environments of servers: made by uv from pins, kept until the pins or the interpreter change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving.errors import TandemError

UV = Path(sys.executable).with_name("uv")


class InstallError(TandemError):
    """A server cannot be installed here; the message says why."""


def install(pins: Path, folder: Path, base: Path) -> Path:
    """Make an environment of these pins with the Python `base` in `folder` unless it is there; returns its Python.

    Raises `InstallError`.
    """
    python = folder / "bin" / "python"
    wanted = f"# {base}\n{pins.read_text()}"
    installed = folder / "installed.txt"
    if python.exists() and installed.exists() and installed.read_text() == wanted:
        return python
    uv("venv", "--clear", "--seed", "--python", str(base), str(folder))
    uv("pip", "install", "--python", str(python), "--only-binary", ":all:", "--requirement", str(pins))
    installed.write_text(wanted)
    return python


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
