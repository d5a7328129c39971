"""Dockerfiles, and the build context of an image: the files that are copied, which its digest covers."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from serving.platforms.base import PlatformError
from serving.repository import read_pointer
from serving.settings import Settings

ROOT = Path(__file__).parents[2]
REPOSITORY = "artifacts/repository"
MOUNT = re.compile(r"--mount=(\S+) ")
NOT_COPIED = {"Dockerfile", "requirements.in", "excludes.txt"}
"""Files in an image's folder that are not part of the image."""


class ImageError(PlatformError):
    """An image could not be built; the message says why and where the whole output is."""


def dockerfile(name: str) -> str:
    """Return the text of an image's Dockerfile."""
    return (ROOT / "docker" / name / "Dockerfile").read_text()


def context_files(settings: Settings, text: str) -> dict[str, Path]:
    """Return the files that a Dockerfile copies, by their path in the build context. Raises `ImageError`."""
    found: dict[str, Path] = {}
    for source in copied(text):
        path = ROOT / source
        if source == REPOSITORY:
            found |= _published(settings)
        elif path.is_dir():
            inner = [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
            found |= {f.relative_to(ROOT).as_posix(): f for f in inner if f.name not in NOT_COPIED}
        elif path.is_file():
            found[source] = path
        else:
            raise ImageError(f"{path} is missing, and a Dockerfile copies it")
    return dict(sorted(found.items()))


def digest(text: str, files: dict[str, Path], base_id: str, machine: str) -> str:
    """Return the digest of an image's sources. For a published version, its manifest stands for its files."""
    whole = hashlib.sha256()
    for part in (plain(text), base_id, machine):
        whole.update(hashlib.sha256(part.encode()).digest())
    for name, path in files.items():
        whole.update(f"{name}\0{path.stat().st_mode & 0o100}\0".encode())
        if not name.startswith(REPOSITORY) or path.suffix == ".json":
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def fill(context: Path, name: str, text: str, files: dict[str, Path]) -> None:
    """Write a build context: the Dockerfile and the files that it copies, readable by all."""
    shutil.rmtree(context, ignore_errors=True)
    (context / "docker" / name).mkdir(parents=True)
    (context / "Dockerfile").write_text(text)
    for relative, path in files.items():
        copy = context / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def published(settings: Settings) -> int:
    """Return the published version of `settings.model`. Raises `ImageError` if there is none."""
    pointer = read_pointer(settings.repository / f"{settings.model}.json")
    if pointer is None:
        raise ImageError(
            f"no version of {settings.model} is published in {settings.repository}: `tandem publish` makes one"
        )
    return pointer.version


def _published(settings: Settings) -> dict[str, Path]:
    """Return the files of the published version, of all targets."""
    root, version = settings.repository, published(settings)
    folders = root.glob(f"*/{settings.model}/{version}")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {f"{REPOSITORY}/{path.relative_to(root).as_posix()}": path for path in files}


def plain(text: str) -> str:
    """Return a Dockerfile for the same image without mounts, comments and continued lines.

    Bound files are copied, and caches removed, so binds belong into stages that others copy from.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    instructions = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()
    return "".join(f"{line}\n" for instruction in instructions for line in _without_mounts(instruction))


def _without_mounts(instruction: str) -> list[str]:
    mounts = [dict(pair.split("=") for pair in found.split(",")) for found in MOUNT.findall(instruction)]
    copies = [f"COPY {mount['source']} {mount['target']}" for mount in mounts if mount["type"] == "bind"]
    cached = "".join(f" {mount['target']}/*" for mount in mounts if mount["type"] == "cache")
    run = MOUNT.sub("", instruction)
    return [*copies, f"{run} && rm -rf{cached}" if cached else run]


def copied(text: str) -> list[str]:
    """Return the paths that a Dockerfile copies, relative to the repository's root."""
    words = [line.split() for line in plain(text).splitlines() if line.startswith("COPY ")]
    return [source for line in words if "--from=" not in line[1] for source in line[1:-1]]


def stages(text: str) -> tuple[str, str]:
    """Return a Dockerfile up to its stage `dependencies`, and the final stage without its first line, if any."""
    head, _, tail = text.partition("\nFROM dependencies\n")
    return head + "\n", tail
