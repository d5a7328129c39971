"""`docker build`, with or without BuildKit: reports its steps and explains failures."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.platforms.contexts import MOUNT, ImageError, plain
from serving.platforms.engine import explained, has_buildkit
from serving.platforms.engine import find as find_engine

Report = Callable[[str], object]

LINES = 15
"""Lines of a build's output in an error."""
STEP = re.compile(r"^(?:Step \d+/\d+ : |#\d+ \[(?:\S+ +)?\d+/\d+\] )((?:FROM|RUN|COPY) .*)")
"""A step in the output of the legacy builder or of BuildKit."""


def for_builder(text: str) -> str:
    """Return a Dockerfile for the installed builder."""
    return text if has_buildkit() else plain(text)


def docker_build(
    context: Path, log: Path, tag: str, arguments: dict[str, str], report: Report, *options: str
) -> None:
    """Run `docker build` and report each step. Raises `ImageError`."""
    what = "dependencies" if "--target=dependencies" in options else "image"
    command = ["docker", "build", f"--tag={tag}", *options]
    command += [f"--build-arg={name}={value}" for name, value in arguments.items()]
    report(f"building its {what}")
    try:
        process = subprocess.Popen(
            [*command, str(context)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(),
        )
    except FileNotFoundError:
        raise ImageError("no `docker` command is on the PATH, and it builds the images") from None
    reported = set[str]()
    try:
        with log.open("a") as output:
            for line in process.stdout or ():
                output.write(line)
                if (step := STEP.match(line)) and step[0] not in reported:
                    reported.add(step[0])
                    shown = " ".join(MOUNT.sub("", step[1]).split())
                    report(f"building its {what}: {shown[:60]}")
        if process.wait():
            raise ImageError(f"`docker build` of {tag} failed")
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def told(log: Path) -> Iterator[None]:
    """Add the end of the log to an error."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ImageError(f"the disk is full: {error}") from error
    except ImageError as error:
        said = log.read_text(errors="replace")
        if not said:
            raise
        raise ImageError(f"{error}; the end of {log}:\n  {explained(said, LINES)}") from None


def environment() -> dict[str, str]:
    """Return the environment of the command line: the engine that we use, and its builder."""
    return os.environ | {
        "DOCKER_HOST": find_engine()[0],
        "DOCKER_BUILDKIT": str(int(has_buildkit())),
        "BUILDX_BUILDER": "default",
        "BUILDKIT_PROGRESS": "plain",
    }
