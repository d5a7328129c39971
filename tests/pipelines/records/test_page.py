from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

import models.base
from models.base import Model
from models.data import Dataset, Rows
from pipelines.gates import Check
from pipelines.gates.networks import Evaluated
from pipelines.records import page
from pipelines.records.page import plots
from pipelines.training.record import Epoch, History, Trained
from pipelines.validation import Published, Validated, schema, statistics
from tests.pipelines.records.test_lineage import run

REFUSED = replace(run(2, "refused"), reason="a gate refused this version")
SPEC = models.base.load("fashion").spec
HISTORY = History([2.3, 2.1, 1.9], [Epoch(1.5, 0.6, 1.2, 0.7), Epoch(1.0, 0.8, 0.9, 0.8)], 12.0)
CHECKS = [
    Check("data", "train: pictures", 512, ">=", 100),
    Check("quality", "pytorch: accuracy/<Bag>", 0.8125, ">=", 0.93),
]


@pytest.fixture
def values(model: Model, sample: Rows) -> list[object]:
    """Everything that a run can find out."""
    found = statistics.of_dataset(Dataset(sample, sample, sample, ""), model.spec, schema.load(model))
    metrics = {"accuracy": 0.9} | {f"accuracy/{name}": 0.8 for name in model.spec.task.classes}
    trained = [Trained(framework, {}, HISTORY) for framework in ("tensorflow", "pytorch")]
    evaluated = Evaluated({"tensorflow": metrics, "pytorch": metrics}, ())
    return [Published(4, found), Validated(found, ()), *trained, evaluated]


def addresses(text: str) -> list[str]:
    """Every address that a tag of a page names."""
    return re.findall(r'(?<!xlink:)\b(?:src|href|action)="([^"]*)"', text)


def test_a_refused_run_says_why_with_figure_and_limit(values: list[object]) -> None:
    text = page.render(REFUSED, SPEC, CHECKS, values)
    assert "Refused: 1 of 2 checks failed" in text
    assert "(version 4)" in text
    assert "quality: pytorch: accuracy/&lt;Bag&gt;: <b>0.8125</b>, limit &gt;= 0.93" in text


def test_a_published_run_names_its_version_and_says_what_was_noted(values: list[object]) -> None:
    noted = Check("batching", "onnxruntime float32", 0.5, "<=", 1e-5, "published with `batched: false`")
    text = page.render(run(1, "published", 3), SPEC, [CHECKS[0], noted], values)
    assert "Published as version 3" in text
    assert "1 of 2 checks passed" in text
    assert "<b>0.5</b>, limit &lt;= 1e-05: published with `batched: false`" in text
    assert "✗ fail" not in text


@pytest.mark.parametrize("state", ["refused", "failed", "interrupted", "complete"])
def test_a_run_that_found_out_nothing_has_a_page(state: str) -> None:
    text = page.render(replace(run(1, state), reason="disk <full>"), SPEC, [], [])
    assert state in text.lower()
    assert "<full>" not in text


def test_the_page_needs_nothing_from_anywhere(values: list[object]) -> None:
    text = page.render(REFUSED, SPEC, CHECKS, values)
    pictures = addresses(text)
    assert len(pictures) == 20, "a mean picture of each class, of this run and of the published version"
    assert all(picture.startswith("data:image/png;base64,") for picture in pictures)
    text = re.sub(r'xmlns(:xlink)?="[^"]+"|url\(#\w+\)', "", text)
    assert not re.search(r"<script|<link|@import|url\(|https?://", text)


def test_a_published_version_of_no_data_is_not_shown_beside_it(values: list[object]) -> None:
    text = page.render(REFUSED, SPEC, CHECKS, [*values, Published(4, {})])
    assert "(version 4)" in text
    assert "version 4, train" not in text


def test_a_training_says_what_a_step_took_and_waited_where_it_was_recorded(values: list[object]) -> None:
    took = "12 s of training, 2 epochs"
    assert f"tensorflow: {took}; pytorch: {took}." in page.render(REFUSED, SPEC, CHECKS, values)
    epochs = [Epoch(1.5, 0.6, 1.2, 0.7, waiting) for waiting in (0.03, 0.021)]
    history = replace(HISTORY, epochs=epochs, step_seconds=0.0271, peak_bytes=2**27)
    text = page.render(REFUSED, SPEC, CHECKS, [Trained("pytorch", {}, history)])
    told = "27 ms a step (3.0 % of it waiting for input), 128 MiB more memory, in float32 on 1 cpu"
    assert f"pytorch: {took}, {told}." in text


def test_curves_of_both_frameworks_are_on_it(values: list[object]) -> None:
    text = page.render(REFUSED, SPEC, CHECKS, values)
    for name in ("tensorflow", "pytorch"):
        for series in (f"{name}, train", f"{name}, validation"):
            assert text.count(f">{series}</text>") == 2, "loss and accuracy by epoch"
        assert text.count(f">{name}</text>") == 2, "loss of the first steps, accuracy by class"


def test_plots_are_svg_whatever_their_values() -> None:
    for plot in (
        plots.lines({"train": [0.5, 0.7, 0.65], "test": [0.4]}),
        plots.lines({"train": [float("nan"), 2.0, 2.0]}),
        plots.lines({"train": []}),
        plots.bars({"train": [0, 5, 10], "<test>": [1, 1, 1]}, ["a", "b", "c"]),
        plots.bars({"train": [0, 0]}, ["a", "b"]),
    ):
        assert ET.fromstring(plot).tag.endswith("svg")


@pytest.mark.parametrize(
    ("value", "text"), [(55_000, "55,000"), (0, "0"), (0.010690909, "0.01069"), (2.489e-05, "2.489e-05")]
)
def test_figures_are_short(value: float, text: str) -> None:
    assert page.figure(value) == text
