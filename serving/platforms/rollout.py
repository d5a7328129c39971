"""The last stage: every target serves the published version."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from serving import platforms, targets
from serving.platforms.base import Platform, PlatformError, Watch
from serving.platforms.command import beside
from serving.progress import note, watching
from serving.settings import Settings
from serving.targets.base import Endpoint, Target, TargetError, sample_folder, unreachable

GATEWAY = "tfjs"
SETTLE_SECONDS = 3
"""The time after which a refusal counts: a server checks changed files every second."""
LOG_LINES = 200

Report = Callable[[str], None]
"""Called with a line for the user."""


@dataclass(frozen=True)
class Deployment:
    """A served version and its endpoints by target."""

    version: int
    platform: str
    endpoints: dict[str, list[Endpoint]]
    unreachable: dict[str, str]
    """The targets without an artifact in this version, with the reason."""


@contextlib.contextmanager
def prepared(settings: Settings, report: Report) -> Iterator[Report]:
    """Prepare all that targets need but a version during the block. Yields a report that raises the `PlatformError` of
    a failure early."""
    platform, _ = platforms.choose(settings)
    settings = dataclasses.replace(settings, platform=platform.name)
    wanted = [targets.load(name) for name in targets.NAMES]

    def prepare() -> None:
        with watching() as watch:
            platform.prepare(settings, wanted, watch)

    def tell() -> None:
        note(f"platform {platform.name}: cannot be prepared; more when this step has ended")

    with beside(prepare, tell) as check:

        def report_unless_failed(line: str) -> None:
            check()
            report(line)

        yield report_unless_failed


def serve(settings: Settings, version: int, report: Report) -> Deployment:
    """Make every target serve `version`. Raises `TargetError` or `PlatformError`."""
    platform, why = platforms.choose(settings)
    settings = dataclasses.replace(settings, platform=platform.name)
    report(f"platform {platform.name}: {why}")
    closed = unreachable(settings, version)
    # The gateway is needed even if no browser can run the model.
    reached = [targets.load(name) for name in targets.NAMES if name not in closed or name == GATEWAY]
    with watching() as watch:
        started = platform.up(settings, reached, watch)
        wait_until_ready(settings, platform, reached, started, version, watch)
    folder = link_samples(settings, version)
    endpoints = {target.name: target.endpoints(settings, version, folder) for target in reached}
    if GATEWAY in closed:
        endpoints[GATEWAY] = endpoints[GATEWAY][:1]
    return Deployment(version, platform.name, endpoints, closed)


def wait_until_ready(
    settings: Settings,
    platform: Platform,
    all_targets: list[Target],
    started: list[str],
    version: int,
    watch: Watch,
) -> None:
    """Wait until each target serves `version`; targets with another version are told to swap."""
    since = time.monotonic()
    told: set[str] = set()
    shown = set(started)
    # Other services have no version.
    waiting: dict[str, Target | None] = dict.fromkeys(started) | {
        target.name: target for target in all_targets
    }
    while waiting:
        states = platform.states(settings)
        seconds = time.monotonic() - since
        for name, target in list(waiting.items()):
            now = states[name].state if name in states else "failed"
            if now == "failed":
                last = "".join(platform.log(settings, name, 15, follow=False))
                raise TargetError(f"{name} does not stay up; the end of its log:\n{last}")
            served = target.served_version(settings) if target else None
            if now == "running" and (target is None or served == version):
                watch(
                    name, f"ready, version {served}, {seconds:.1f} s" if target else f"ready, {seconds:.1f} s"
                )
                del waiting[name]
                continue
            if served is None and name not in shown:
                watch(name, f"{now}, waiting for its answer")
            shown.add(name)
            if target and served not in (None, version) and name not in told:
                told.add(name)
                watch(name, f"swapping version {served} for {version}")
                target.activate(settings, version)
                continue
            if target and seconds > SETTLE_SECONDS and (why := _refusal(settings, platform, target, version)):
                stays = f"version {served} is served on" if served else "nothing is served"
                raise TargetError(f"{name} refuses version {version}, {stays}: {why}")
            if seconds > settings.ready_seconds:
                answer = f"answers with version {served}" if served else "does not answer"
                expected = f", expected version {version}" if target else ""
                last = "".join(platform.log(settings, name, 15, follow=False))
                raise TargetError(
                    f"{name} {answer} after {settings.ready_seconds} s and is {now}{expected}; "
                    f"the end of its log:\n{last}"
                )
        if waiting:
            time.sleep(0.25)


def _refusal(settings: Settings, platform: Platform, target: Target, version: int) -> str:
    with contextlib.suppress(PlatformError):
        return target.refusal(
            settings, version, list(platform.log(settings, target.name, LOG_LINES, follow=False))
        )
    return ""


def link_samples(settings: Settings, version: int) -> Path:
    """Link `samples` among the artifacts to a version's; returns its shortest path from here."""
    folder = settings.artifacts / "samples"
    beside = settings.artifacts / ".samples"
    beside.unlink(missing_ok=True)
    beside.symlink_to(sample_folder(settings, version).relative_to(settings.artifacts))
    if folder.is_dir() and not folder.is_symlink():
        # A copy of the artifacts may have a folder instead of the link.
        shutil.rmtree(folder)
    beside.replace(folder)
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
