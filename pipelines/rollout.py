"""The last stage: every target answers with the published version."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving import platforms, targets
from serving.platforms.base import Platform
from serving.settings import Settings
from serving.targets.base import Endpoint, Target, TargetError

Report = Callable[[str], None]
"""Called with a line for the user."""


@dataclass(frozen=True)
class Deployment:
    """A version that is served, and where each target answers with it."""

    version: int
    platform: str
    endpoints: dict[str, list[Endpoint]]


def serve(settings: Settings, version: int, report: Report) -> Deployment:
    """Have every target answer with `version`. Raises `TargetError` or `PlatformError` where one does not."""
    platform, why = platforms.choose(settings)
    report(f"platform {platform.name}: {why}")
    all_targets = [targets.load(name) for name in targets.NAMES]
    platform.up(settings, all_targets)
    wait_until_ready(settings, platform, all_targets, version, report)
    folder = sample_folder(settings)
    endpoints = {target.name: target.endpoints(settings, version, folder) for target in all_targets}
    return Deployment(version, platform.name, endpoints)


def wait_until_ready(
    settings: Settings, platform: Platform, all_targets: list[Target], version: int, report: Report
) -> None:
    """Wait until each target answers with `version`; those that answer with another are told to swap."""
    started = time.monotonic()
    told: set[str] = set()
    waiting = {target.name: target for target in all_targets}
    while waiting:
        states = platform.states(settings)
        for name, target in list(waiting.items()):
            served = target.served_version(settings)
            if served == version:
                report(f"ready {name}: version {served}, {time.monotonic() - started:.1f} s")
                del waiting[name]
            elif served is not None and name not in told:
                told.add(name)
                target.activate(settings, version)
            elif (state := states.get(name)) is None or state.state == "failed":
                last = "".join(platform.log(settings, name, 15, follow=False))
                raise TargetError(f"{name} does not stay up; the end of its log:\n{last}")
            elif time.monotonic() - started > settings.ready_seconds:
                answer = f"answers with version {served}" if served else "does not answer"
                raise TargetError(
                    f"{name} {answer} after {settings.ready_seconds} s, expected version {version}; "
                    f"see `tandem logs {name}`"
                )
        if waiting:
            time.sleep(0.25)


def sample_folder(settings: Settings) -> Path:
    """The folder of the sample requests, as short as it can be said from here."""
    folder = settings.artifacts / "samples"
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
