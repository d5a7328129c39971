"""The pins against the package index: each has a wheel for every Python and machine, and the servers install alone."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3

from requirements import environment, uv
from tests.serving.server.artifacts import write_onnx
from tests.serving.server.processes import free_port, oip_body

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).with_name("uv"))
INDEX = os.environ | uv.settings() | {"UV_SYSTEM_CERTS": "1"}
MACHINES = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36", "aarch64-apple-darwin")


def lacking(version: str, machine: str) -> str:
    """Return uv's error about the pins for a Python on a machine; "" if all have a wheel."""
    command = [
        PROGRAM,
        "pip",
        "compile",
        "--quiet",
        "--no-config",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-header",
    ]
    command += ["--python-version", version, "--python-platform", machine, "--output-file", os.devnull]
    command += ["--constraint", str(uv.HERE / "hashes.txt"), str(uv.HERE / "dev.txt")]
    # onnxruntime asks for macOS 14. torch of a wheel folder is of one Python alone.
    own = INDEX | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    own.pop("UV_FIND_LINKS", None)
    done = subprocess.run(command, env=own, capture_output=True, text=True)
    return f"Python {version} on {machine}:\n{done.stderr}" if done.returncode else ""


@pytest.mark.pins
def test_every_pin_has_a_wheel_for_each_python_on_each_machine() -> None:
    pairs = list(itertools.product(environment.VERSIONS, MACHINES))
    with ThreadPoolExecutor(len(pairs)) as threads:
        assert [said for said in threads.map(lambda pair: lacking(*pair), pairs) if said] == []


@pytest.mark.pins
def test_the_servers_alone_install_without_tensorflow_and_serve(tmp_path: Path) -> None:
    folders = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    # By way of an archive: installed from its folder, it would leave its build there.
    own = INDEX | folders
    archive = [PROGRAM, "build", "--sdist", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(archive, env=own, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.tar.gz")
    install = [PROGRAM, "tool", "install", "--python", sys.executable]
    install.append(f"tandem[server] @ {built.as_uri()}")
    subprocess.run(install, env=own, check=True, capture_output=True)
    tracked = subprocess.run(
        ["git", "ls-files", "models", "pipelines", "serving"], cwd=ROOT, capture_output=True
    )
    (installed,) = tmp_path.glob("tools/tandem/lib/python*/site-packages")
    assert [file for file in tracked.stdout.decode().split() if not (installed / file).exists()] == []
    write_onnx(tmp_path / "repository" / "fashion", 1)
    http, grpc = free_port(), free_port()
    command = [str(tmp_path / "bin" / "tandem-server"), f"--model-repository={tmp_path / 'repository'}"]
    command += [f"--http-port={http}", f"--grpc-port={grpc}", "--backend"]
    with subprocess.Popen([*command, "onnxruntime"], cwd=tmp_path) as server:
        try:
            address = f"http://127.0.0.1:{http}/v2"
            retries = urllib3.Retry(50, backoff_factor=0.1, backoff_max=0.5)
            urllib3.request("GET", f"{address}/health/live", retries=retries)
            end = time.monotonic() + 20
            while urllib3.request("GET", f"{address}/health/ready").status != 200:
                assert time.monotonic() < end
                time.sleep(0.1)
            answer = urllib3.request("POST", f"{address}/models/fashion/infer", body=oip_body())
            assert answer.status == 200, answer.data
        finally:
            server.terminate()
    for lacking_one in ([*command, "tensorflow"], [str(tmp_path / "bin" / "tandem"), "status"]):
        done = subprocess.run(lacking_one, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        assert "is not installed" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
