"""Runs the tests, cheapest first, and says at the end what ran, what was left out, and what took long.

python -m tests.run              what a user waits for: `make test`
python -m tests.run ci           the same, then containers, pods and TFX: `.ci/run`
python -m tests.run all          every test there is: `make test-all`
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from pipelines.cli.verbs import say, write
from serving import targets
from serving.platforms import engine, images
from serving.settings import Settings
from tests import needs, newest
from tests.e2e.conftest import REUSE, ROOT, TANDEM
from tests.pipelines.tfx import passed

SLOWEST = 30
SERVED = (*dict.fromkeys(targets.load(name).container.image for name in targets.NAMES), "prometheus")
"""The images that the journey runs."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of the tests, by pytest's expression of markers; of `two` files at a time, each on a core."""

    name: str
    markers: str
    two: bool = False
    newest: bool = False
    """True if they run on the newest Python, in an environment of its own without torch."""
    paths: tuple[str, ...] = ()

    def command(self, report: Path) -> list[str]:
        command = newest.command() if self.newest else [sys.executable, "-m", "pytest", "-q"]
        command += [*self.paths, f"--junitxml={report}"]
        command += ["-m", self.markers] if self.markers else []
        # In the files' order, as those with few tests train, and would be the last ones, alone.
        return [*command, "-n2", "--dist=loadfile", "--no-loadscope-reorder"] if self.two else command


UNITS = Part("units", "", two=True)
TORCH = Part("units that need torch", "", two=True, paths=newest.NEEDING_TORCH)
SLOW = Part("slow tests", "slow and not thorough", two=True)
BROWSER = Part("the page in a browser", "browser and not e2e and not podman")
PROCESSES = Part("the journey on processes", "e2e and not docker")
CONTAINERS = Part("the journey on containers", "e2e and docker")
IMAGES = Part("the images", "docker and not e2e and not tfx and not thorough", two=True)
TFX = Part("TFX in its image", "tfx", two=True)
PODS = Part("the manifests as pods", "podman")
PINS = Part("the pins for each Python and machine", "pins")
NEWEST = Part(f"units that need no torch, on Python {newest.VERSION}", "", two=True, newest=True)
THOROUGH = Part("thorough tests", "thorough", two=True)
ALL = [UNITS, SLOW, BROWSER, PROCESSES, PINS, NEWEST, IMAGES, CONTAINERS, PODS, TFX, THOROUGH]
BUILT = {frozenset({IMAGES, CONTAINERS, PODS}): [*SERVED, "pipeline"], frozenset({TFX}): ["tfx"]}
"""The images that parts need. That of TFX takes as long to build as all others, so it comes last."""


@dataclasses.dataclass
class Outcome:
    """The results of the parts: `seconds` of those that ran, `why` of those that did not."""

    seconds: dict[Part, float] = dataclasses.field(default_factory=dict)
    left_out: dict[Part, str] = dataclasses.field(default_factory=dict)
    tests: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)
    failed: Part | None = None

    def read(self, report: Path) -> None:
        """Take in pytest's own report."""
        if report.exists():
            for case in ElementTree.parse(report).iter("testcase"):
                skipped = [found.get("message", "") for found in case.findall("skipped")]
                self.skipped.update(skipped)
                if not skipped:
                    name = f"{case.get('classname')}::{case.get('name')}"
                    self.tests.append((float(case.get("time", 0)), name))


def chosen(what: str, settings: Settings) -> tuple[list[Part], dict[Part, str]]:
    """The parts to run, and why the others are left out."""
    parts = list(ALL)
    if what == "ci" and not newest.missing():
        # Each unit runs once, and where it can on the Python that `make setup` takes first.
        parts = [TORCH, NEWEST, *(part for part in ALL if part not in (UNITS, NEWEST))]
    left_out = {part: needs.containers() for part in (IMAGES, TFX, CONTAINERS) if needs.containers()}
    left_out |= {PODS: needs.pods()} if needs.pods() else {}
    left_out |= {NEWEST: newest.missing()} if newest.missing() else {}
    if what == "test":
        here = _platform(settings)
        others = [IMAGES, TFX, PODS, PINS, NEWEST, THOROUGH, *({PROCESSES, CONTAINERS} - {here})]
        left_out |= {part: "make test-all" for part in others if part not in left_out}
    elif what == "ci":
        left_out[THOROUGH] = "make test-all"
        if date := passed.unchanged_since():
            left_out.setdefault(TFX, f"what it is made from is what passed on {date} ({passed.FILE.name})")
    return [part for part in parts if part not in left_out], left_out


def _platform(settings: Settings) -> Part:
    """The journey on containers takes minutes more where the images have to be built."""
    if settings.platform != "auto" or needs.containers():
        return CONTAINERS if settings.platform == "docker" else PROCESSES
    with contextlib.closing(engine.client()) as docker:
        current = all(images.is_current(docker, settings, name) for name in SERVED)
    return CONTAINERS if current else PROCESSES


class Builder:
    """Builds images beside the tests that need none: those of the journey at once, that of TFX once they are done.

    Each takes minutes of one core.
    """

    def __init__(self, parts: list[Part], logs: Path) -> None:
        self._left = [needing for needing in BUILT if needing & set(parts)]
        self._needing: frozenset[Part] = frozenset()
        """The parts that wait for what is being built."""
        self._log = logs / "images.log"
        self._process: subprocess.Popen[bytes] | None = None
        if self._left:
            logs.mkdir(parents=True, exist_ok=True)
            self._log.unlink(missing_ok=True)
            say(f"building images meanwhile: {self._log}")
            self._next()

    def _next(self) -> None:
        self._needing = self._left.pop(0)
        with self._log.open("a") as log:
            command = [TANDEM, "images", *BUILT[self._needing]]
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def wait(self, part: Part) -> bool:
        """Wait for the images of a part, and begin the next ones; False if one could not be built."""
        if self._process is not None and part in self._needing:
            if self._process.wait() != 0:
                write(self._log.read_text()[-3000:])
                return False
            if self._left:
                self._next()
        return True

    def close(self) -> None:
        """End what is being built."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def run(parts: list[Part], outcome: Outcome, settings: Settings) -> None:
    """Run parts until one fails. What is trained and published once serves the journeys of all platforms."""
    with (
        tempfile.TemporaryDirectory() as shared,
        contextlib.closing(Builder(parts, settings.logs)) as builder,
    ):
        environment = {REUSE: str(Path(shared) / "artifacts")} | os.environ
        for number, part in enumerate(parts):
            if not builder.wait(part):
                outcome.failed = part
                return
            say(part.name)
            started, report = time.monotonic(), Path(shared) / f"{number}.xml"
            status = subprocess.run(part.command(report), cwd=ROOT, env=environment, check=False).returncode
            outcome.seconds[part] = time.monotonic() - started
            outcome.read(report)
            if status != 0:
                outcome.failed = part
                return
            if part is TFX:
                passed.remember()


def summary(outcome: Outcome, parts: list[Part], slowest: int) -> None:
    """Print what ran and what did not."""
    if slowest:
        say(f"the {slowest} slowest tests")
        for seconds, name in sorted(outcome.tests, reverse=True)[:slowest]:
            write(f"    {seconds:6.1f} s  {name}")
    say(f"ran {len(outcome.tests)} tests in {sum(outcome.seconds.values()) / 60:.1f} minutes")
    for part, seconds in outcome.seconds.items():
        write(f"    {seconds:6.0f} s  {part.name}{'  FAILED' if part is outcome.failed else ''}")
    after = [part for part in parts if part not in outcome.seconds]
    left_out = outcome.left_out | dict.fromkeys(after, "not reached")
    if left_out or outcome.skipped:
        say("left out")
    for part, why in left_out.items():
        write(f"    {part.name}: {why}")
    for why, count in outcome.skipped.items():
        write(f"    {count} tests: {why}")


def main(what: str = "test") -> int:
    """Run what is asked for; returns 1 where a test failed, 2 where the call is wrong, 130 on Ctrl-C."""
    if what not in ("test", "ci", "all"):
        sys.stderr.write(__doc__ or "")
        return 2
    settings = Settings.from_environment()
    # SIGTERM ends it as Ctrl-C does: what builds images beside it is ended too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Chromium is installed where that is possible; the tests that need it say where it is missing.
    subprocess.run(["requirements/browser"], cwd=ROOT, check=False)
    parts, left_out = chosen(what, settings)
    outcome = Outcome(left_out=left_out)
    try:
        run(parts, outcome, settings)
    except KeyboardInterrupt:
        return 130
    finally:
        summary(outcome, parts, SLOWEST if what == "all" else 0)
    return int(outcome.failed is not None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
