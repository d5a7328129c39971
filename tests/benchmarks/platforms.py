"""What do containers cost? `python tests/benchmarks/platforms.py` after `make deploy`, with Docker.

Starts the five targets twice on one published version, as processes and as containers, on ports of their own;
prints how long each platform takes until all answer, and then calls every endpoint on both in turns. The ratio
is docker's median latency by process's, round by round: its median, and its least and largest value.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from pipelines.records import tables
from serving import platforms, repository, targets
from serving.compare.load import measure
from serving.platforms import rollout
from serving.platforms.base import PlatformError
from serving.settings import Settings
from serving.targets.base import Client

PLATFORMS = ("process", "docker")


def beside(settings: Settings, platform: str, folder: Path) -> Settings:
    """Settings for another deployment of the same repository."""
    artifacts = folder / platform
    artifacts.mkdir()
    for name in ("repository", "samples", "web"):
        # A container sees no further than what is mounted, so no link may lead out of it.
        (artifacts / name).mkdir()
        shutil.copytree(
            settings.artifacts / name, artifacts / name, copy_function=os.link, dirs_exist_ok=True
        )
    ports = {}
    for field in dataclasses.fields(settings):
        if field.name.endswith("_port"):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports[field.name] = probe.getsockname()[1]
    return dataclasses.replace(
        settings, platform=platform, artifacts=artifacts, project=f"tandem-bench-{os.getpid()}", **ports
    )


def clients_of(settings: Settings) -> dict[tuple[str, str], Client]:
    """Every endpoint but the browser, which would measure itself."""
    return {
        (name, protocol): client
        for name in targets.NAMES
        if name != "tfjs"
        for protocol, client in targets.load(name).clients(settings).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=100, help="of each endpoint on each platform, a round")
    options = parser.parse_args()
    settings = Settings.from_environment()
    pointer = repository.read_pointer(settings.repository / f"{settings.model}.json")
    if pointer is None:
        sys.exit("no version is published; `make deploy` publishes the first")
    images = {"image": np.random.default_rng(0).random((options.calls, 28, 28, 1), np.float32)}
    with tempfile.TemporaryDirectory() as name:
        stacks = {platform: beside(settings, platform, Path(name)) for platform in PLATFORMS}
        try:
            for platform, own in stacks.items():
                started = time.monotonic()
                rollout.serve(own, pointer.version, lambda _line: None, lambda _name, _line: None)
                print(f"{platform}: all five answer after {time.monotonic() - started:.1f} s", flush=True)
            called = {platform: clients_of(own) for platform, own in stacks.items()}
            medians: dict[tuple[str, str, str], list[float]] = defaultdict(list)
            for _ in range(options.rounds):
                for endpoint in called["process"]:
                    for platform in PLATFORMS:
                        measured = measure(*endpoint, called[platform][endpoint], images)
                        medians[(*endpoint, platform)].append(measured.percentile(50))
            rows = []
            for target, protocol in called["process"]:
                one, other = (medians[target, protocol, platform] for platform in PLATFORMS)
                ratios = [docker / process for process, docker in zip(one, other, strict=True)]
                rows.append(
                    [
                        target,
                        protocol,
                        f"{statistics.median(one):.2f}",
                        f"{statistics.median(other):.2f}",
                        f"{statistics.median(ratios):.2f}",
                        f"{min(ratios):.2f} - {max(ratios):.2f}",
                    ]
                )
            print(tables.render(["target", "protocol", "process ms", "docker ms", "ratio", "spread"], rows))
        finally:
            for platform, own in stacks.items():
                try:
                    platforms.choose(own)[0].down(own)
                except PlatformError as error:
                    print(f"{platform}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
