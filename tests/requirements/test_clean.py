"""`make clean`: what cannot be made again in minutes goes only after a yes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CLEAN = Path(__file__).parents[2] / "requirements" / "clean"


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "meine ergebnisse für tandem"
    for target in ("litert", "tfjs"):
        (folder / "repository" / target / "fashion" / "1").mkdir(parents=True)
    (folder / "runs" / "fashion-quick-seed1").mkdir(parents=True)
    return folder


def clean(artifacts: Path, answer: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLEAN, "nowhere/tandem"],
        input=answer,
        env=os.environ | {"TANDEM_ARTIFACTS": str(artifacts)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("answer", ["", "\n", "n\n"])
def test_without_a_yes_everything_stays(artifacts: Path, answer: str) -> None:
    done = clean(artifacts, answer)
    assert done.returncode == 1
    assert "holds 1 trainings and 1 published versions. Delete them?" in done.stdout
    assert "nothing was deleted" in done.stdout
    assert (artifacts / "repository" / "tfjs" / "fashion" / "1").is_dir()


def test_with_a_yes_or_nothing_to_lose_it_goes(artifacts: Path) -> None:
    assert clean(artifacts, "y\n").returncode == 0
    assert not artifacts.exists()
    (artifacts / "logs").mkdir(parents=True)
    assert clean(artifacts, "").returncode == 0
    assert not artifacts.exists()


def test_yes_1_does_not_ask(artifacts: Path) -> None:
    done = clean(artifacts, "", YES="1")
    assert (done.returncode, done.stdout) == (0, "")
    assert not artifacts.exists()
