"""Dockerfiles: the files that they copy, and a form for the legacy builder."""

from __future__ import annotations

import re

MOUNT = re.compile(r"--mount=(\S+) ")


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
