"""`docker build`, by BuildKit where it is: what goes on is told step by step, and a failure is explained."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.platforms import dockerfiles
from serving.platforms.contexts import ImageError
from serving.platforms.engine import explained, has_buildkit
from serving.platforms.engine import find as find_engine

Report = Callable[[str], object]

BUILD_LABEL = "tandem.build"
"""Of a builder stage: which build it belongs to."""
LINES = 15
"""Of a build's output, in an error."""
STEP = re.compile(r"^(?:Step \d+/\d+ : |#\d+ \[(?:\S+ +)?\d+/\d+\] )((?:FROM|RUN|COPY) .*)")
"""A step in the words of the legacy builder and of BuildKit."""


def for_builder(text: str, build_id: str) -> str:
    """The Dockerfile as the builder that is here takes it. The legacy one is told to mark the stage that it leaves
    behind."""
    if has_buildkit():
        return text
    mark = f'LABEL {BUILD_LABEL}="{build_id}"\n'
    return re.sub(r"( AS builder\n(?:(?!FROM ).*\n)+)", rf"\g<1>{mark}", dockerfiles.plain(text))


def docker_build(
    context: Path, log: Path, tag: str, arguments: dict[str, str], report: Report, *options: str
) -> None:
    """Run `docker build`, and report each step. Raises `ImageError` where it fails."""
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
                    shown = " ".join(dockerfiles.MOUNT.sub("", step[1]).split())
                    report(f"building its {what}: {shown[:60]}")
        if process.wait():
            raise ImageError(f"`docker build` of {tag} failed")
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def told(log: Path) -> Iterator[None]:
    """Adds to an error what the log says about it."""
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
    """For the command line: the engine that we speak to, and the builder that is part of it."""
    return os.environ | {
        "DOCKER_HOST": find_engine()[0],
        "DOCKER_BUILDKIT": str(int(has_buildkit())),
        "BUILDX_BUILDER": "default",
        "BUILDKIT_PROGRESS": "plain",
    }
