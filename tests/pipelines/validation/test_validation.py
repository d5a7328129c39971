"""The checks on the sample; tests/pipelines/test_refusals.py has each of them refuse, by the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.base import Model, ModelError, ModelSpec
from models.data import Dataset, NpzFolder, Rows
from models.regression import Regression
from models.signature import Tensor
from pipelines.gates import Check
from pipelines.validation import Published, schema, validate
from pipelines.validation.anomalies import infinity_norm, jensen_shannon_divergence
from pipelines.validation.schema import Schema
from tests.pictures import as_floats, labelled


@pytest.fixture
def dataset(pictures: tuple[Rows, Rows]) -> Dataset:
    train, test = pictures
    held_out = np.random.default_rng(1).random(len(train)) < 1 / 12
    parts = [labelled(train.inputs["image"][own], train.targets[own]) for own in (~held_out, held_out)]
    return Dataset(*parts, test, digest="")


@pytest.fixture(scope="module")
def rules(model: Model) -> Schema:
    # Splits of some hundred pictures differ more by chance than those of thousands.
    found = schema.load(model)
    return replace(found, label=replace(found.label, skew=0.08))


def failing(checks: Sequence[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_good_data_passes_first_and_against_itself(model: Model, dataset: Dataset, rules: Schema) -> None:
    first = validate(dataset, model.spec, rules, None)
    assert failing(first.checks) == []
    assert not [check for check in first.checks if "version" in check.name]
    again = validate(dataset, model.spec, rules, Published(7, first.statistics))
    assert failing(again.checks) == []
    against = [check for check in again.checks if "version 7" in check.name]
    assert len(against) == 9
    assert {check.figure for check in against} == {0.0}


def test_floats_are_told_from_the_schema_and_their_faults_counted(
    model: Model, dataset: Dataset, rules: Schema
) -> None:
    images = as_floats(dataset.test)
    images[0, 0, 0], images[1, 0, 0], images[2, 0, 0] = np.nan, -0.5, 1.5
    test = labelled(images, dataset.test.targets)
    checks = validate(replace(dataset, test=test), model.spec, rules, None).checks
    assert failing(checks) == [
        "test: image: values that are not finite",
        "test: image: smallest value",
        "test: image: largest value",
    ]


def test_classes_that_have_far_from_equal_shares_are_told(
    model: Model, dataset: Dataset, rules: Schema
) -> None:
    kept = (dataset.test.targets != 3) | (np.arange(len(dataset.test)) % 4 == 0)
    test = labelled(dataset.test.inputs["image"][kept], dataset.test.targets[kept])
    failed = failing(validate(replace(dataset, test=test), model.spec, rules, None).checks)
    assert "test: class imbalance" in failed


def test_what_the_schema_does_not_limit_is_not_compared(
    model: Model, dataset: Dataset, rules: Schema
) -> None:
    free = replace(rules, inputs={"image": schema.Feature(0, 1)}, label=schema.Feature(0, 9))
    first = validate(dataset, model.spec, free, None)
    checks = validate(dataset, model.spec, free, Published(1, first.statistics)).checks
    assert not [check.name for check in checks if "Jensen" in check.name or "L-infinity" in check.name]


def test_a_range_that_is_new_in_the_schema_is_no_drift(model: Model, dataset: Dataset, rules: Schema) -> None:
    free = replace(rules, inputs={"image": schema.Feature(drift=0.01)})
    first = validate(dataset, model.spec, free, None)
    assert failing(validate(dataset, model.spec, rules, Published(1, first.statistics)).checks) == []


def test_targets_of_a_regression_are_held_against_the_schema(model: Model) -> None:
    spec = ModelSpec(
        "price", (Tensor("x", "float32", ("batch", 1)),), Regression(("price",)), NpzFolder("price")
    )
    generator = np.random.default_rng(1)
    parts = [
        Rows({"x": generator.random((30, 1), np.float32)}, generator.random((30, 1), np.float32))
        for _ in range(3)
    ]
    parts[2].targets[:2] = [[np.nan], [2.5]]
    limits = Schema(Path(), {"x": schema.Feature(minimum=0)}, schema.Feature(0, 2), 1)
    checks = validate(Dataset(*parts, digest=""), spec, limits, None).checks
    assert failing(checks) == ["test: targets: values that are not finite", "test: targets: largest value"]
    assert "test: x: smallest value" in [check.name for check in checks], "one limit is one check"


def test_a_published_version_of_other_classes_or_of_no_data_is_no_yardstick(
    model: Model, dataset: Dataset, rules: Schema
) -> None:
    found = validate(dataset, model.spec, rules, None).statistics
    others = {name: replace(own, classes=own.classes[:9]) for name, own in found.items()}
    for statistics in (others, {}):
        checks = validate(dataset, model.spec, rules, Published(1, statistics)).checks
        assert not [check.name for check in checks if "version 1" in check.name]


def test_the_shipped_schema_fits_its_spec(model: Model) -> None:
    rules = schema.load(model)
    assert rules.inputs["image"].range == (0, 1)
    assert rules.label.range == (0, 9)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda fields: fields["feature"].pop(), "cannot be read: expected a Schema of TensorFlow Metadata"),
        (lambda fields: fields.pop("feature"), "cannot be read"),
        (
            lambda fields: fields["feature"][1]["int_domain"].update(max=8),
            r"has labels 0\.0 to 8\.0, spec\.py has 10 classes",
        ),
        (
            lambda fields: fields["feature"][0]["float_domain"].update(min=2),
            r"ValueError image has the range \(2\.0, 1\.0\)",
        ),
    ],
)
def test_a_schema_that_cannot_be_meant_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: object, message: str
) -> None:
    fields = json.loads((model.folder / schema.FILE).read_text())
    harm(fields)  # type: ignore[operator]
    (tmp_path / schema.FILE).write_text(json.dumps(fields))
    monkeypatch.setattr(Model, "folder", tmp_path)
    with pytest.raises(ModelError, match=message):
        schema.load(model)


def test_a_missing_schema_says_where_to_take_one_from(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "folder", tmp_path)
    with pytest.raises(ModelError, match=r"schema\.json is missing: copy that of models/fashion"):
        schema.load(model)


def test_infinity_norm_is_the_largest_difference_of_a_share() -> None:
    assert infinity_norm([10, 10], [20, 20]) == 0
    assert infinity_norm([50, 50, 0], [50, 25, 25]) == 0.25
    assert infinity_norm([1, 0], [0, 1]) == 1


def test_jensen_shannon_divergence_is_in_bits() -> None:
    assert jensen_shannon_divergence([3, 4, 5], [6, 8, 10]) == pytest.approx(0)
    assert jensen_shannon_divergence([1, 0], [0, 1]) == 1
    # By hand: p = (1, 0), q = (1/2, 1/2), middle (3/4, 1/4).
    by_hand = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) / 2
    assert jensen_shannon_divergence([8, 0], [1, 1]) == pytest.approx(by_hand)
    assert jensen_shannon_divergence([1, 1], [8, 0]) == pytest.approx(by_hand)


def test_nothing_is_as_far_as_can_be() -> None:
    assert infinity_norm([0, 0], [1, 1]) == jensen_shannon_divergence([1, 1], [0, 0]) == 1
