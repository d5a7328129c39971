"""Other projects' servers as rows of a comparison."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.signature import Signature, Tensor
from serving.compare import endpoints, resources
from serving.settings import Settings
from tests.benchmarks import peers

SIGNATURE = Signature((Tensor("x", "float32", ("batch", 2)),), (Tensor("y", "float32", ("batch", 1)),))


PEER = """
import argparse, sys, time
sys.path.insert(0, {root!r})
from tests.serving.compare.scripted import serving, sleeping
parser = argparse.ArgumentParser()
for name in ("model", "name", "http-port", "grpc-port", "folder"):
    parser.add_argument("--" + name, required=True)
options = parser.parse_args()
time.sleep(0.5)
with serving(sleeping(0, 3.0), int(options.http_port)):
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_peer_is_an_entry_with_its_program_and_answers_where_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "peers.toml").write_text('[triple]\nendpoints = ["json+http://127.0.0.1:{http}/predict"]')
    (folder / "serve_triple.py").write_text(PEER.format(root=str(Path(__file__).parents[2])))
    (peer,) = peers.read(folder)
    settings = replace(Settings(), artifacts=tmp_path, model="m", stop_seconds=5)
    inputs = {"x": np.ones((1, 2), np.float32)}
    place, python, model = tmp_path / "place", Path(sys.executable), tmp_path / "model.onnx"
    begun = time.monotonic()
    with peer.started(settings, model, SIGNATURE, inputs, python, place) as server:
        assert 0.5 <= server.start_seconds <= time.monotonic() - begun
        (url,) = peer.urls(server.settings)
        assert endpoints.connect(url, SIGNATURE).predict(inputs)["y"].tolist() == [[3.0]]
    assert not resources.processes(server.pid)
