"""What `make doctor` finds on machines that lack something."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from serving.platforms import doctor
from serving.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(Settings(), platform="process", artifacts=tmp_path / "not" / "yet")


@pytest.mark.parametrize("field", ["tfjs_port", "prometheus_port"])
def test_a_taken_port_is_found_before_anything_is_trained(settings: Settings, field: str) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        checks = list(doctor.quick(replace(settings, monitoring=True, **{field: port})))
    (check,) = [check for check in checks if check.name == f"port {port}"]
    assert check.failed
    assert "listens on it" in check.found
    assert check.mend == f"Stop that, or choose another port: TANDEM_{field.upper()}=<port>"


def test_a_file_is_no_folder_for_artifacts(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = next(doctor.quick(replace(settings, artifacts=tmp_path / "file")))
    assert (check.failed, check.mend) == (True, "TANDEM_ARTIFACTS=<another folder>")


def test_too_little_disk_fails_and_too_little_memory_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(settings.artifacts.parents[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1 << 30))
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(total=2_000_000_000))
    checks = {check.name: check for check in doctor.quick(settings)}
    assert checks["disk"].failed
    assert checks["disk"].found == "1.0 GiB free, 2 needed"
    assert checks["memory"].mend
    assert not checks["memory"].failed


def test_an_environment_that_is_not_as_pinned_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "requirements").mkdir()
    pins = "numpy==0.1\nnot-there==1.0\nrich-for-plan9==1 ; sys_platform == 'plan9'\n"
    (tmp_path / "requirements" / "main.txt").write_text(pins)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    check = next(doctor.everything(settings))
    assert check.failed
    assert check.found.endswith("not as pinned: numpy, not-there")


def test_an_engine_and_a_browser_are_needed_only_where_they_are_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setattr(doctor.engine, "find", doctor.engine.find.__wrapped__)
    monkeypatch.setattr("serving.targets.browser.installed_chromium", lambda: "")
    checks = {check.name: check for check in doctor.everything(settings)}
    for name in ("engine", "chromium"):
        assert checks[name].mend
        assert not checks[name].failed
    checks = {check.name: check for check in doctor.everything(replace(settings, platform="docker"))}
    assert checks["engine"].failed
