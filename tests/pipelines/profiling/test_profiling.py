from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models.base
from models.data import Rows
from models.signature import encode_text
from pipelines import profiling
from pipelines.profiling.record import PARTS, Profiled, ProfilingError
from pipelines.training.batches import BatchPlan
from serving.progress import say
from serving.settings import Settings
from tests.pipelines.project import Project

STEPS = 2


def test_what_cannot_be_profiled_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    settings = Settings(artifacts=tmp_path)
    for asked, steps, why in (
        ("pytorch", 0, "--steps 0: expected at least 1"),
        ("litert", 20, "no version of fashion is published; `make deploy` publishes the first"),
        ("onnxruntime", 20, "no version of fashion is published; `make deploy` publishes the first"),
    ):
        with pytest.raises(ProfilingError, match=f"^{why}$"):
            profiling.profile(settings, asked, steps, say)
    assert list(tmp_path.iterdir()) == []


def test_a_framework_that_the_model_has_no_network_in_is_named(project: Project) -> None:
    (project.spec.parent / "keras_model.py").unlink()
    done = project.tandem("profile", "tensorflow")
    assert (done.returncode, done.stderr) == (
        1,
        "error: sample has no network in tensorflow; it has pytorch\n",
    )
    assert project.tandem("profile", "jax").returncode == 2


@pytest.mark.slow
def test_one_page_for_all_that_the_model_reaches(project: Project, pictures: tuple[Rows, Rows]) -> None:
    project.put(*pictures)
    done = project.tandem("profile", "--profile", "smoke", "--steps", "2", timeout=200)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime is not profiled: no version of sample is published" in done.stdout
    assert "% of a TensorFlow step waits for input" in done.stdout
    assert "% of a PyTorch step waits for input" in done.stdout
    (folder,) = (project.artifacts / "profiles").iterdir()
    assert done.stdout.endswith(f"page: {folder / 'index.html'}\n")
    assert list((folder / "tensorflow").rglob("*.xplane.pb"))
    for trace in ("tensorflow/trace.json", "pytorch/steps.pt.trace.json"):
        assert json.loads((folder / trace).read_text())["traceEvents"]


@pytest.fixture(params=["fashion", "language"])
def plan(request: pytest.FixtureRequest, sample: Rows) -> BatchPlan:
    model = models.base.load(request.param)
    if request.param == "language":
        texts = np.stack([encode_text(f"text {number}", 48) for number in range(64)])
        sample = Rows({"text": texts}, np.arange(64) % 10)
    return BatchPlan(
        model, sample, replace(model.spec.profile("smoke"), batch_size=32, epoch_rows=None), seed=1
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["tensorflow", "pytorch"])
def test_the_parts_of_a_training_step(plan: BatchPlan, name: str, tmp_path: Path) -> None:
    found = _check(profiling.module(name).profile(plan, STEPS, tmp_path))
    assert tuple(found.parts) == PARTS
    assert 0 < found.waiting < 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_ops_of_the_artifacts(plan: BatchPlan, tmp_path: Path) -> None:
    from pipelines.exporting import litert, onnx

    batches = [inputs for inputs, _ in plan.epoch(0)][:STEPS]
    weights = plan.model.initial_weights(1)
    for name, exporter in (("onnxruntime", onnx.EXPORTER), ("litert", litert.EXPORTER)):
        exporter.write(plan.model, weights, tmp_path, batches[0])
        found = _check(profiling.module(name).profile(tmp_path / exporter.serve, batches, tmp_path))
        assert found.waiting == 0
        # No op is forgotten, and none is counted twice.
        assert 0.5 < sum(op.seconds for op in found.ops) / found.seconds < 2
        assert json.loads((tmp_path / "trace.json").read_text())


def _check(found: Profiled) -> Profiled:
    assert found.seconds > 0
    assert len(found.ops) >= 5
    assert [op.seconds for op in found.ops] == sorted((op.seconds for op in found.ops), reverse=True)
    assert all(op.calls % 1 == 0 for op in found.ops), "each step has the same ops"
    return found
