"""The pins against the package index: each has a wheel for every Python and machine that we promise."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from requirements import environment, uv

MACHINES = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36", "aarch64-apple-darwin")


def lacking(version: str, machine: str) -> str:
    """What uv says of the pins for a Python on a machine; "" where all have a wheel."""
    program = Path(sys.executable).with_name("uv")
    command = [
        program,
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
    command += ["--constraint", uv.HERE / "hashes.txt", uv.HERE / "dev.txt"]
    # onnxruntime asks for macOS 14. torch of a wheel folder is of one Python alone.
    own = os.environ | uv.settings() | {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_SYSTEM_CERTS": "1"}
    own.pop("UV_FIND_LINKS", None)
    done = subprocess.run(command, env=own, capture_output=True, text=True)
    return f"Python {version} on {machine}:\n{done.stderr}" if done.returncode else ""


@pytest.mark.pins
def test_every_pin_has_a_wheel_for_each_python_on_each_machine() -> None:
    pairs = list(itertools.product(environment.VERSIONS, MACHINES))
    with ThreadPoolExecutor(len(pairs)) as threads:
        assert [said for said in threads.map(lambda pair: lacking(*pair), pairs) if said] == []
