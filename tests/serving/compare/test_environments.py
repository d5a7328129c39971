"""Packages beside this environment's own: installed once, and never half."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.compare import environments
from serving.compare.environments import InstallError


def test_packages_are_installed_once_and_again_when_the_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def uv(*arguments: str) -> str:
        asked.append(arguments)
        time.sleep(0.1)
        folder.mkdir()
        (folder / f"module_{len(asked)}.py").touch()
        return ""

    folder, pins = tmp_path / "beside", tmp_path / "pins.txt"
    pins.write_text("one==1\n")
    monkeypatch.setattr(environments, "uv", uv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(environments.extend, [pins] * 2, [folder] * 2))
    assert [("--no-deps" in words, str(folder) in words) for words in asked] == [(True, True)]
    assert sys.path.count(str(folder)) == 1
    pins.write_text("one==2\n")
    environments.extend(pins, folder)
    assert sorted(path.name for path in folder.glob("*.py")) == ["module_2.py"]


def test_an_installation_that_failed_is_none(tmp_path: Path) -> None:
    folder, pins = tmp_path / "beside", tmp_path / "pins.txt"
    pins.write_text(f"no-such-package @ file://{tmp_path}/none.whl\n")
    with pytest.raises(InstallError, match=r"none\.whl"):
        environments.extend(pins, folder)
    assert not (folder / environments.INSTALLED).exists()
    assert str(folder) not in sys.path
