"""The making of the environment: which Python, what of the old one stays, and what is said where it fails."""

from __future__ import annotations

import fcntl
import http.server
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from requirements import environment, running, uv
from requirements.environment import Python
from requirements.running import SetupError

UV = str(Path(sys.executable).with_name("uv"))
INSTALL = [UV, "pip", "install", "--no-cache", "--python", sys.executable, "--dry-run"]


@pytest.fixture
def pythons(monkeypatch: pytest.MonkeyPatch) -> dict[str, Python]:
    """The interpreters that a machine has, by name; no wheel folder."""
    found: dict[str, Python] = {}
    monkeypatch.setattr(environment, "probe", lambda path: found.get(str(path)))
    monkeypatch.setattr(environment, "has_torch", lambda _version: False)
    monkeypatch.delenv("PYTHON", raising=False)
    return found


def test_the_newest_python_that_has_venv_is_taken(
    pythons: dict[str, Python], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment.choose(environment.VERSIONS) is None
    pythons["python3"] = Python("python3", "3.14", True)
    assert environment.choose(environment.VERSIONS) is None
    pythons["python3.13"] = Python("python3.13", "3.13", False)
    assert environment.choose(environment.VERSIONS) == pythons["python3.13"]
    pythons["python3.11"] = Python("python3.11", "3.11", True)
    pythons["python3.12"] = Python("python3.12", "3.12", True)
    assert environment.choose(environment.VERSIONS) == pythons["python3.12"]
    # Where torch lies in a wheel folder for one of them.
    monkeypatch.setattr(environment, "has_torch", lambda version: version == "3.11")
    assert environment.choose(environment.VERSIONS) == pythons["python3.11"]


def test_a_python_of_pyenv_is_found_that_is_not_the_selected_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    for name, answer in (("pyenv", f"echo {tmp_path}"), (f"python{version}", "exit 127")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = environment.find(version)
    assert found is not None
    assert (found.path, found.version) == (str(tmp_path / "bin" / "python"), version)


def test_a_named_python_of_another_version_is_refused(
    pythons: dict[str, Python], monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons["old"] = Python("old", "3.10", True)
    for name, why in (
        ("old", "PYTHON=old is Python 3.10"),
        ("nowhere", "PYTHON=nowhere is no Python that runs"),
    ):
        monkeypatch.setenv("PYTHON", name)
        with pytest.raises(SetupError, match=why):
            environment.choose(environment.VERSIONS)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the environments and packages, in order, without installing them."""
    calls: list[str] = []

    def install(venv: Path, pins: Path) -> None:
        calls.append("install")

    def make(venv: Path, versions: tuple[str, ...]) -> None:
        calls.append("make")

    monkeypatch.setattr(environment, "install", install)
    monkeypatch.setattr(environment, "make", make)
    monkeypatch.setattr(environment, "settings", dict)
    monkeypatch.setenv("UV_SYSTEM_CERTS", "1")
    return calls


def test_a_whole_environment_is_kept_and_an_interrupted_one_made_anew(
    made: list[str], tmp_path: Path
) -> None:
    venv, pins = tmp_path / "päckchen mit raum", Path("main.txt")
    environment.main(venv, pins)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    # It has no uv yet.
    environment.main(venv, pins)
    assert made == ["make", "install"] * 2
    (venv / "bin" / "uv").touch()
    environment.main(venv, pins)
    assert made[4:] == ["install"]
    (venv / environment.INTERRUPTED).touch()
    environment.main(venv, pins)
    assert made[5:] == ["make", "install"]
    (venv / environment.INTERRUPTED).unlink()
    # Its Python has gone.
    (venv / "bin" / "python").unlink()
    environment.main(venv, pins)
    assert made[7:] == ["make", "install"]


def test_a_folder_that_is_something_else_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SetupError, match="is no virtual environment; move it away"):
        environment.make(tmp_path, environment.VERSIONS)
    assert (tmp_path / "notes.txt").exists()


def test_a_second_one_waits_and_says_for_whom(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv = tmp_path / "venv"
    with (tmp_path / "venv.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711")
        file.flush()
        thread = threading.Thread(target=environment.main, args=[venv, Path("main.txt")])
        thread.start()
        thread.join(0.5)
        assert made == []
    thread.join()
    assert made == ["make", "install"]
    assert f"waiting for process 4711, which makes {venv} already" in capsys.readouterr().out


def test_how_far_it_is_comes_from_what_uv_said(tmp_path: Path) -> None:
    said = ["Using Python 3.13\n"]
    assert running.stage(said, tmp_path) == "asking the index"
    said += ["Resolved 95 packages in 1s\n", "Downloading torch (180MiB)\n", "Downloading numpy (16MiB)\n"]
    said += [" Downloaded numpy\n"]
    assert running.stage(said, tmp_path) == "95 packages, 1 of 2 large ones fetched, now torch (180MiB)"
    said += ["Prepared 95 packages in 20s\n"]
    (tmp_path / "lib/python3.13/site-packages/six-1.17.0.dist-info").mkdir(parents=True)
    assert running.stage(said, tmp_path) == "1 of 95 packages installed"


@pytest.fixture
def opened_tls(tmp_path: Path) -> Iterator[str]:
    """The address of an index behind a certificate that nobody knows."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=proxy", "-days", "1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()
    server.server_close()


def test_a_proxy_that_opens_tls_is_told_by_name(
    opened_tls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", opened_tls)
    with pytest.raises(SetupError, match="Does a proxy open TLS"):
        uv.fetch_uv(tmp_path)
    for name in ("HTTPS_PROXY", "https_proxy", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    command = [*INSTALL, "six==0.0.1"]
    with pytest.raises(SetupError, match="Does a proxy open TLS"):
        running.run([*command, "--default-index", opened_tls], "uv")


def test_a_pin_that_vanished_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_FIND_LINKS", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    command = [*INSTALL, "numpy==0.0.1"]
    with pytest.raises(SetupError, match=r"numpy==0\.0\.1(.|\n)*A pin cannot be had"):
        running.run([*command, "--no-index", "--find-links", str(tmp_path)], "uv")


def test_a_gpu_s_environment_has_pins_of_its_own() -> None:
    command = ["make", "-n", "VENV=/nonexistent/venv", "setup", "DEVICE=gpu"]
    done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True)
    assert "TORCH=cuda requirements/install /nonexistent/venv requirements/main.txt" in done.stdout
    pins, main = ((environment.HERE / name).read_text() for name in ("cuda.txt", "main.txt"))
    (torch,) = re.findall(r"^torch==\S+", main, re.MULTILINE)
    assert f"\n{torch} \\\n    --hash=sha256:" in pins
    tensorflow = (environment.HERE / "tensorflow-cuda.txt").read_text()
    (wanted,) = re.findall(r"^tensorflow-cpu(==\S+)", main, re.MULTILINE)
    assert f"\ntensorflow{wanted} \\\n    --hash=sha256:" in tensorflow
    for own in (pins, tensorflow):
        assert re.search(r"^nvidia-cudnn-cu\d+==", own, re.MULTILINE)
        assert "://" not in own
    names = set(re.findall(r"^(\S+?)==", main, re.MULTILINE)) - {"tensorflow"}
    assert not names & set(re.findall(r"^(\S+?)==", tensorflow, re.MULTILINE)), "it lies beside them"


def test_builds_for_cuda_are_not_taken_from_a_wheel_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has torch's build for CPUs, a later version by PEP 440."""
    seen: dict[str, str | None] = {}
    monkeypatch.setenv("TORCH", "cuda")
    monkeypatch.setenv("UV_FIND_LINKS", "/wheels")
    (tmp_path / "tensorflow-cuda").mkdir()

    def watch(command: list[str], _venv: Path, _what: str) -> None:
        seen[Path(command[-1]).name] = os.environ.get("UV_FIND_LINKS")

    monkeypatch.setattr(environment, "watch", watch)
    monkeypatch.setattr(environment, "run", lambda _command, _what: None)
    environment._packages(["uv"], tmp_path, environment.HERE / "main.txt")
    assert seen == {"main.txt": "/wheels", "cuda.txt": None, "tensorflow-cuda.txt": None}
