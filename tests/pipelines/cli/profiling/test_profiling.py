from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import models.base
from models.base import Model
from models.data import Rows
from models.signature import encode_text
from pipelines.cli import profiling
from pipelines.cli.profiling import litert_runs
from pipelines.cli.profiling.record import ProfilingError
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


def test_a_wheel_without_litert_s_library_is_told_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert_runs.ai_edge_litert, "__file__", str(tmp_path / "__init__.py"))
    litert_runs.library.cache_clear()
    with pytest.raises(ProfilingError, match=rf"^ai-edge-litert 2.* has no libLiteRt.\* in {tmp_path}$"):
        litert_runs.call("LiteRtCreateOptions")


def test_an_interrupted_profile_leaves_nothing(
    model: Model, sample: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    plan = BatchPlan(model, sample, model.spec.profile("smoke"), seed=1)
    monkeypatch.setattr("pipelines.stages.load_recipe", lambda *_: None)
    monkeypatch.setattr(profiling, "_plan", lambda _: plan)
    monkeypatch.setattr("pipelines.cli.profiling.torch_steps.profile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        profiling.profile(Settings(artifacts=tmp_path), "pytorch", 1, say)
    assert list((tmp_path / "profiles").iterdir()) == []


@pytest.mark.slow
def test_one_page_for_all_that_the_model_reaches(
    project: Project, pictures: tuple[Rows, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.put(*pictures)
    # A profile is of one device.
    monkeypatch.setenv("TANDEM_DEVICES", "2")
    done = project.tandem("profile", "--profile", "smoke", "--steps", "2", timeout=200)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime is not profiled: no version of sample is published" in done.stdout
    for name, label in (("tensorflow", "a TensorFlow"), ("pytorch", "a PyTorch")):
        assert f"% of {label} step waits for input" in done.stdout
        found = re.search(
            rf"^{name} +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", done.stdout, re.MULTILINE
        )
        *parts, whole = map(float, found.groups())
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(whole, rel=0.02)
    assert len(re.findall(r"^\d+\.\d %  ", done.stdout, re.MULTILINE)) == 20, "ten ops of each"
    (folder,) = (project.artifacts / "profiles").iterdir()
    assert done.stdout.endswith(f"page: {folder / 'index.html'}\n")
    assert list((folder / "tensorflow").rglob("*.xplane.pb"))
    for trace in ("tensorflow/trace.json", "pytorch/steps.pt.trace.json"):
        assert json.loads((folder / trace).read_text())["traceEvents"]


def _plan(name: str, sample: Rows) -> BatchPlan:
    model = models.base.load(name)
    if name == "language":
        texts = np.stack([encode_text(f"text {number}", 48) for number in range(64)])
        sample = Rows({"text": texts}, np.arange(64) % 10)
    return BatchPlan(
        model, sample, replace(model.spec.profile("smoke"), batch_size=32, epoch_rows=None), seed=1
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["fashion", pytest.param("language", marks=pytest.mark.thorough)])
def test_each_op_of_an_artifact_is_told_by_its_place(model: str, sample: Rows, tmp_path: Path) -> None:
    from pipelines.cli.profiling import litert_runs, onnxruntime_runs
    from pipelines.exporting import litert, onnx

    plan = _plan(model, sample)
    batches = [inputs for inputs, _ in islice(plan.epoch(0), STEPS)]
    weights = plan.model.initial_weights(1)
    for trace, exporter in ((onnxruntime_runs.trace, onnx.EXPORTER), (litert_runs.trace, litert.EXPORTER)):
        exporter.write(plan.model, weights, tmp_path, batches[0])
        artifact = tmp_path / exporter.serve
        outputs = exporter.run(artifact, plan.model, batches[0])
        ops = trace(artifact, batches, outputs, tmp_path)
        assert len(ops) > 10
        assert {op.calls for op in ops} == {1}
        assert [op.seconds for op in ops] == sorted((op.seconds for op in ops), reverse=True)
        assert json.loads((tmp_path / "trace.json").read_text())
