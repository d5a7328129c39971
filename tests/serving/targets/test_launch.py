from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from serving import targets
from serving.settings import Settings


def test_what_only_training_needs_does_not_restart_a_server(tmp_path: Path) -> None:
    settings = replace(Settings(), artifacts=tmp_path)
    other = replace(settings, seed=2, profile="full", source="pytorch", ready_seconds=7)
    for name in ("torchserve", "litert", "onnxruntime"):
        target = targets.load(name)
        assert target.launch(settings) == target.launch(other), name
        assert target.launch(settings) != target.launch(replace(settings, host="127.0.0.2")), name
