"""Servers that run as long as a comparison does: what their start takes, and their certain end."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from models.signature import Signature, Tensor
from serving import repository
from serving.compare import conditions, resources, servers
from serving.repository import MANIFEST, Manifest
from serving.settings import Settings
from serving.targets import load
from serving.targets.base import TargetError

OUTPUTS = (Tensor("y", "float32", ("batch", 3)), Tensor("z", "float32", ("batch", 1)))
SIGNATURE = Signature((Tensor("x", "float32", ("batch", 2)),), OUTPUTS)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(Settings(), artifacts=tmp_path, model="m", stop_seconds=5, ready_seconds=20)


def script(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


def test_the_start_is_timed_and_everything_that_was_started_is_ended(
    settings: Settings, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    command = script(f"""
        import pathlib, subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        time.sleep(0.5)
        pathlib.Path({str(ready)!r}).touch()
        time.sleep(60)
    """)
    with servers.running(command, {"OMP_NUM_THREADS": "3"}, settings, ready.exists, 10) as server:
        tree = resources.processes(server.pid)
        manifest = Manifest("m", 1, "t", "pytorch", {}, "", {}, {}, "", 1, "", "", batched=True)
        found = conditions.of("onnxruntime", manifest, server.pid)
    assert 0.5 <= server.start_seconds < 3
    assert len(tree) == 2
    assert found == {"threads": 3, "processes": 2, "batched": "yes", "instruction set": "chosen at run time"}
    assert not psutil.wait_procs(tree, timeout=3)[1]


def test_a_server_that_does_not_start_says_why(settings: Settings) -> None:
    command = script("import sys; sys.exit('no such model')")
    with (
        pytest.raises(TargetError, match=r"ended after .*: no such model"),
        servers.running(command, {}, settings, lambda: False, 10),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "tf-serving"])
def test_a_version_that_serves_its_manifest_has_no_model_and_answers_zeros(
    settings: Settings, name: str
) -> None:
    folder = repository.version_dir(settings.repository, name, "m", 7)
    signature = SIGNATURE.to_json()
    repository.write_manifest(
        folder, Manifest("m", 7, name, "pytorch", {}, MANIFEST, signature, {}, "", 1, "", "", batched=True)
    )
    inputs = {"x": np.ones((5, 2), np.float32)}
    with servers.started(load(name), settings, 7) as server:
        assert 0 < server.start_seconds < 20
        for client in load(name).clients(server.settings).values():
            answers = client.predict(inputs)
            assert {output: array.shape for output, array in answers.items()} == {"y": (5, 3), "z": (5, 1)}
            assert not any(array.any() for array in answers.values())
            client.close()
