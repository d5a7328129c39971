"""Wheels for an image, fetched with the mirror, proxy and certificates of this machine's pip."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from serving.platforms import command
from serving.platforms.contexts import ImageError


@dataclass(frozen=True)
class Base:
    """The base of an image: a release of Debian, with its Python and the minor version of its glibc."""

    image: str
    digest: str
    python: str
    glibc: int

    @property
    def pinned(self) -> str:
        return f"{self.image}@{self.digest}"


BOOKWORM = Base(
    "debian:bookworm-slim",
    "sha256:4724b8cc51e33e398f0e2e15e18d5ec2851ff0c2280647e1310bc1642182655d",
    python="3.11",
    glibc=36,
)
TRIXIE = Base(
    "debian:trixie-slim",
    "sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f",
    python="3.13",
    glibc=41,
)


def fetch(
    pins: Iterable[str],
    machine: str,
    folder: Path,
    log: Path,
    base: Base = BOOKWORM,
    sdists: Iterable[str] = (),
) -> bool:
    """Download the wheel of each pin for `base` on `machine` into `folder`, with pip's output added to `log`.

    Distributions in `sdists` have no wheels: their sources are fetched. Returns False without torch, which is taken
    from a folder of pip's settings (`find-links`) only, as the general index has its CUDA build. Raises `ImageError`.
    """
    wanted = for_machine(pins, machine)
    torch = [pin for pin in wanted if pin.startswith("torch==")]
    general = [f"--no-binary={name}" for name in sdists] + [pin for pin in wanted if pin not in torch]
    if not _download(general, machine, folder, log, base):
        raise ImageError(f"pip could not fetch the wheels for {machine}")
    return not torch or _download(["--no-index", *torch], machine, folder, log, base)


def for_machine(pins: Iterable[str], machine: str) -> list[str]:
    """Return the pins for Linux on `machine`, without their markers."""
    from packaging.requirements import Requirement

    environment = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine}
    wanted = [Requirement(line) for line in pins if line and not line.startswith("#")]
    return [
        f"{pin.name}{pin.specifier}"
        for pin in wanted
        if pin.marker is None or pin.marker.evaluate(environment)
    ]


def platforms(machine: str, base: Base = BOOKWORM) -> list[str]:
    """Return the wheel tags for `base`, newest first; pip adds those that are older than manylinux2014."""
    tags = [f"manylinux_2_{minor}" for minor in range(base.glibc, 4, -1)]
    return [f"{tag}_{machine}" for tag in (*tags, "manylinux2014")]


def _download(arguments: list[str], machine: str, folder: Path, log: Path, base: Base) -> bool:
    pip = [sys.executable, "-m", "pip", "download", f"--dest={folder}", "--no-deps", "--progress-bar=off"]
    # uv, which chose the pins, ignores upper bounds of Python's version.
    pip += ["--only-binary=:all:", "--implementation=cp", "--ignore-requires-python"]
    pip += [f"--python-version={base.python}"]
    pip += [f"--abi={abi}" for abi in (f"cp{base.python.replace('.', '')}", "abi3", "none")]
    pip += [f"--platform={tag}" for tag in platforms(machine, base)]
    return command.run([*pip, *arguments], log) == 0
