"""The last stage against a platform and targets that do as they are told, or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from serving import platforms, progress
from serving.platforms import rollout
from serving.platforms.base import PlatformError, TargetState
from serving.platforms.rollout import wait_until_ready
from serving.settings import Settings
from serving.targets.base import TargetError
from tests.e2e.conftest import until

SETTINGS = replace(Settings(), ready_seconds=1)


@dataclass
class FakeTarget:
    """Answers with each of these in turn, and with the last one from then on."""

    name: str
    answers: list[int | None]
    told: list[int] = field(default_factory=list)
    reason: str = ""

    def served_version(self, _settings: Settings) -> int | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def refusal(self, _settings: Settings, _version: int, _log: list[str]) -> str:
        return self.reason

    def activate(self, _settings: Settings, version: int) -> None:
        self.told.append(version)
        self.answers = [version]


@dataclass
class FakePlatform:
    """Tells these states in turn, and the last ones from then on."""

    told: list[dict[str, str]]

    def states(self, _settings: Settings) -> dict[str, TargetState]:
        states = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        return {name: TargetState(state) for name, state in states.items()}

    def log(self, _settings: Settings, target: str, lines: int, follow: bool) -> Iterator[str]:
        yield f"the last words of {target}\n"


def wait(platform: FakePlatform, *fakes: FakeTarget, started: tuple[str, ...] = ()) -> list[str]:
    seen: list[str] = []
    targets: Any = list(fakes)
    wait_until_ready(
        SETTINGS,
        platform,  # type: ignore[arg-type]
        targets,
        list(started),
        2,
        lambda name, text: seen.append(f"{name}: {text}"),
    )
    return seen


def test_a_target_is_ready_when_it_answers_and_its_platform_says_that_it_is_well() -> None:
    platform = FakePlatform([{"a": "starting"}, {"a": "starting"}, {"a": "running"}])
    target = FakeTarget("a", [None, 2])
    waiting, line = wait(platform, target)
    assert waiting == "a: starting, waiting for its answer"
    assert line.startswith("a: ready, version 2, ")
    assert target.told == []


def test_a_target_with_another_version_is_told_once() -> None:
    target = FakeTarget("a", [1])
    lines = wait(FakePlatform([{"a": "running"}]), target)
    assert target.told == [2]
    assert lines[0] == "a: swapping version 1 for 2"
    assert len(lines) == 2


@pytest.mark.parametrize("states", [{"a": "running", "b": "failed"}, {"a": "running"}])
def test_the_log_of_a_target_that_failed_is_shown(states: dict[str, str]) -> None:
    with pytest.raises(TargetError, match="b does not stay up; the end of its log:\nthe last words of b\n"):
        wait(FakePlatform([states]), FakeTarget("a", [None]), FakeTarget("b", [None]))


def test_the_log_of_a_target_that_takes_too_long_is_shown() -> None:
    with pytest.raises(TargetError) as failure:
        wait(FakePlatform([{"a": "unhealthy"}]), FakeTarget("a", [None]))
    assert "a does not answer after 1 s and is unhealthy, expected version 2" in str(failure.value)
    assert "the last words of a" in str(failure.value)


def test_what_was_started_beside_the_targets_is_waited_for() -> None:
    platform = FakePlatform([{"a": "running", "b": "starting"}, {"a": "running", "b": "running"}])
    lines = wait(platform, FakeTarget("a", [2]), started=("a", "b"))
    assert [line.split(",")[0] for line in lines] == ["a: ready", "b: ready"]


def test_what_was_started_beside_the_targets_is_not_waited_for_without_end() -> None:
    platform = FakePlatform([{"a": "running", "b": "unhealthy"}])
    with pytest.raises(TargetError, match="b does not answer after 1 s and is unhealthy; the end of its log"):
        wait(platform, FakeTarget("a", [2]), started=("a", "b"))


def test_a_version_that_a_server_refuses_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "SETTLE_SECONDS", 0)
    platform = FakePlatform([{"a": "running"}])
    target = FakeTarget("a", [None], reason="golden sample: y differs by 0.5")
    with pytest.raises(
        TargetError, match=r"^a refuses version 2, nothing is served: golden sample: y differs by 0\.5$"
    ):
        wait(platform, target)


def test_samples_in_a_copy_of_the_artifacts_become_a_link_again(tmp_path: Path) -> None:
    settings = Settings(artifacts=tmp_path)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "instances.json").touch()
    rollout.link_samples(settings, 3)
    assert (tmp_path / "samples").is_symlink()


def test_a_preparation_that_fails_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(_settings: Settings, _targets: object, watch: Any) -> None:
        watch("litert", "building its image")
        raise PlatformError("no disk")

    told: list[str] = []
    monkeypatch.setattr(rollout, "note", told.append)
    platform = Mock(prepare=prepare)
    platform.name = "docker"
    monkeypatch.setattr(platforms, "choose", lambda _settings: (platform, ""))
    with pytest.raises(PlatformError, match="no disk"), rollout.prepared(SETTINGS, print):
        until(lambda: bool(told) and "litert" not in str(progress._display.current()), 5)
    assert told == ["platform docker: cannot be prepared; more when this step has ended"]
