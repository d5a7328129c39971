from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from serving import targets
from serving.settings import Settings
from serving.torchserve.launch import STARTING, STOPPED


@pytest.mark.parametrize("name", [name for name in targets.NAMES if name != "tfjs"])
def test_the_line_to_paste_names_its_sample_by_one_word(tmp_path: Path, name: str) -> None:
    samples = tmp_path / "mit raum"
    curl = targets.load(name).endpoints(Settings(), 1, samples)[0].curl
    assert shlex.split(curl)[-1].removeprefix("@").startswith(f"{samples}/")


def test_a_refusal_of_torchserve_counts_until_it_stops_or_starts_anew() -> None:
    refused = "torchserve: version 3 of fashion is refused: golden sample; version 3 is not served"
    target = targets.load("torchserve")
    assert target.refusal(Settings(), 3, [STARTING, refused]) == refused
    for line in (STARTING, STOPPED):
        assert target.refusal(Settings(), 3, [refused, line]) == ""


def test_what_only_training_needs_does_not_restart_a_server(tmp_path: Path) -> None:
    settings = replace(Settings(), artifacts=tmp_path)
    other = replace(settings, seed=2, profile="full", source="pytorch", ready_seconds=7)
    for name in ("torchserve", "litert", "onnxruntime"):
        target = targets.load(name)
        assert target.launch(settings) == target.launch(other), name
        assert target.launch(settings) != target.launch(replace(settings, host="127.0.0.2")), name
