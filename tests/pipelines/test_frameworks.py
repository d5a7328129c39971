"""The comparison's figures of each framework, from known records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.base import Model
from pipelines.cli import frameworks
from pipelines.training.record import Epoch, History
from serving import repository, targets
from serving.repository import Manifest
from serving.settings import Settings


def test_each_framework_has_its_own_run_s_records_and_its_own_targets_exports(
    tmp_path: Path, model: Model
) -> None:
    settings = replace(Settings(), artifacts=tmp_path, model=model.spec.name)
    digests = {"tensorflow": "t" * 64, "pytorch": "p" * 64}
    for number, name in enumerate(targets.NAMES):
        fields = targets.load(name).source, {}, "", model.spec.signature.to_json()
        metrics = {"tensorflow/accuracy": 0.91, "pytorch/accuracy": 0.92}
        manifest = Manifest(model.spec.name, 1, name, *fields, metrics, "", 1, "f" * 64, "")
        manifest = replace(
            manifest, weights=digests, libraries={"torch": "2.13.0"}, export_seconds=number + 1.0
        )
        repository.write_manifest(
            repository.version_dir(settings.repository, name, settings.model, 1), manifest
        )
    # A run of other weights, and the version's own; the TensorFlow side's is gone.
    for run, digest in (("other", "x" * 64), ("own", digests["pytorch"])):
        history = History([], [Epoch(0.5, 0.8, 0.6, 0.7)] * 2, 9.0, digest, peak_bytes=len(run))
        history.write(tmp_path / "runs" / f"{settings.model}-{run}" / "pytorch" / "history.json")
    (found,) = frameworks.measured(settings, model, 1)
    assert (found.name, found.library, found.score, found.seconds) == ("pytorch", "torch 2.13.0", 0.92, 9.0)
    assert found.peak_bytes == len("own")
    assert [epoch["validation_loss"] for epoch in found.epochs] == [0.6, 0.6]
    expected = {n: i + 1.0 for i, n in enumerate(targets.NAMES) if targets.load(n).source == "pytorch"}
    assert found.export_seconds == expected
    assert len(expected) == 2


def test_lines_are_those_that_are_neither_empty_nor_comments(model: Model) -> None:
    network = (model.folder / "torch_model.py").read_text().splitlines()
    code = [line for line in network if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) < len(network)
    assert frameworks.lines(model, "pytorch", [])["network"] == len(code)
    one, both = (
        frameworks.lines(model, "pytorch", own) for own in (["torchserve"], ["torchserve", "onnxruntime"])
    )
    assert one["network"] == both["network"]
    assert one["export"] < both["export"]
    assert one["clients"] < both["clients"]
