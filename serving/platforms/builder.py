"""`docker build`, with or without BuildKit: reports its steps and explains failures."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.platforms import command, engine
from serving.platforms.contexts import MOUNT, ImageError

Report = Callable[[str], object]

LINES = 15
"""Lines of a build's output in an error."""
STEP = re.compile(r"^(?:Step \d+/\d+ : |#\d+ \[(?:\S+ +)?\d+/\d+\] )((?:FROM|RUN|COPY) .*)")
"""A step in the output of the legacy builder or of BuildKit."""


def docker_build(
    context: Path, log: Path, tag: str, arguments: dict[str, str], report: Report, *options: str
) -> None:
    """Run `docker build` and report each step. Raises `ImageError`."""
    if shutil.which("docker") is None:
        raise ImageError("no `docker` command is on the PATH, and it builds the images")
    what = "dependencies" if "--target=dependencies" in options else "image"
    reported = set[str]()

    def read(line: str) -> None:
        if (step := STEP.match(line)) and step[0] not in reported:
            reported.add(step[0])
            report(f"building its {what}: {' '.join(MOUNT.sub('', step[1]).split())[:60]}")

    report(f"building its {what}")
    given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    build = ["docker", "build", f"--tag={tag}", *options, *given, str(context)]
    if command.run(build, log, read, environment()):
        raise ImageError(f"`docker build` of {tag} failed")


@contextlib.contextmanager
def told(log: Path) -> Iterator[None]:
    """Begin a log; add its end to an error."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
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
        raise ImageError(f"{error}; the end of {log}:\n  {engine.explained(said, LINES)}") from None


def environment() -> dict[str, str]:
    """Return the environment of the command line: the engine that we use, and its builder."""
    return os.environ | {
        "DOCKER_HOST": engine.find()[0],
        "DOCKER_BUILDKIT": str(int(engine.has_buildkit())),
        "BUILDX_BUILDER": "default",
        "BUILDKIT_PROGRESS": "plain",
    }
