"""Wheels for an image, fetched on this machine: its pip knows the mirror, the proxy and the certificates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

GLIBC = 36
"""Debian 12 has glibc 2.36."""
LEGACY = {"x86_64": ("manylinux2014", "manylinux2010", "manylinux1"), "aarch64": ("manylinux2014",)}


class WheelError(Exception):
    """pip could not fetch a wheel; what it said is in the log."""


def fetch(pins: Iterable[str], machine: str, folder: Path, log: Path) -> bool:
    """Download the wheel of each pin for Linux on `machine` into `folder`, with pip's output added to `log`.

    False where torch is left out: the general index has its CUDA build, so only a wheel folder of pip's own
    (`find-links`) is asked. Raises `WheelError`.
    """
    wanted = for_machine(pins, machine)
    torch = [pin for pin in wanted if pin.startswith("torch==")]
    if not _download([pin for pin in wanted if pin not in torch], machine, folder, log):
        raise WheelError(f"pip could not fetch the wheels for {machine}")
    return not torch or _download(["--no-index", *torch], machine, folder, log)


def for_machine(pins: Iterable[str], machine: str) -> list[str]:
    """The pins that hold on Linux on `machine`, which need not be this one, without their markers."""
    from packaging.markers import Marker

    environment = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine}
    found = []
    for pin in pins:
        name, _, marker = pin.strip().partition(" ; ")
        if name and not name.startswith("#") and (not marker or Marker(marker).evaluate(environment)):
            found.append(name)
    return found


def platforms(machine: str) -> list[str]:
    """The wheel tags that Debian 12 can run, newest first."""
    tags = [f"manylinux_2_{minor}" for minor in range(GLIBC, 4, -1)]
    return [f"{tag}_{machine}" for tag in (*tags, *LEGACY.get(machine, ()))]


def _download(arguments: list[str], machine: str, folder: Path, log: Path) -> bool:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--progress-bar=off",
    ]
    # uv, which chose the pins, knows no upper bounds of Python's version.
    command += ["--implementation=cp", "--python-version=3.11", "--ignore-requires-python"]
    command += [f"--abi={abi}" for abi in ("cp311", "abi3", "none")]
    command += [f"--platform={tag}" for tag in platforms(machine)]
    with log.open("a") as output:
        done = subprocess.run(
            [*command, f"--dest={folder}", *arguments], stdout=output, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode == 0
