from __future__ import annotations

import numpy as np
import pytest

import models.base
from models.data import Rows
from pipelines.validation import schema, statistics
from pipelines.validation.statistics import Statistics, agreement, class_means
from tests.pictures import as_floats, labelled

CLASSES = 10


def of(images: np.ndarray, labels: np.ndarray) -> Statistics:
    model = models.base.load("fashion")
    rows = labelled(images, labels)
    return statistics.of(rows, model.spec, schema.load(model), class_means(images, labels, CLASSES))


def test_figures_are_those_of_the_values_that_the_endpoints_take(sample: Rows) -> None:
    split, values = of(sample.inputs["image"], sample.targets), as_floats(sample)
    found = split.inputs["image"]
    assert (split.rows, found.values, found.shape) == (512, 512 * 784, [28, 28, 1])
    assert found.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
    assert found.std == pytest.approx(values.std(dtype=np.float64), rel=1e-6)
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.zeros == np.sum(values == 0)
    assert found.histogram == np.histogram(values, 10, (0, 1))[0].tolist()
    assert split.classes == np.bincount(sample.targets, minlength=CLASSES).tolist()
    assert split.constant == split.duplicates == split.unknown_labels == found.non_finite == 0


def test_bytes_and_floats_have_the_same_statistics(sample: Rows) -> None:
    one = of(sample.inputs["image"], sample.targets)
    other = of(as_floats(sample), sample.targets)
    bytes_, floats = one.inputs["image"], other.inputs["image"]
    assert (bytes_.dtype, floats.dtype) == ("uint8", "float32")
    for name in ("mean", "std", "minimum", "maximum", "zeros", "histogram"):
        assert getattr(bytes_, name) == pytest.approx(getattr(floats, name)), name
    assert one.agreement == pytest.approx(other.agreement)


def test_corrupt_values_are_counted_and_left_out_of_the_sums(sample: Rows) -> None:
    floats = as_floats(sample)
    broken = floats.copy()
    broken[0, 0, :3] = np.nan
    broken[1, 0, 0] = np.inf
    found = of(broken, sample.targets).inputs["image"]
    assert found.non_finite == 4
    assert found.mean == pytest.approx(floats.mean(), rel=1e-3)


def test_the_same_picture_twice_and_pictures_of_one_colour_are_counted(sample: Rows) -> None:
    images = sample.inputs["image"].copy()
    images[:4] = 17
    images[5] = images[6]
    found = of(images, sample.targets)
    assert (found.constant, found.duplicates) == (4, 4)


def test_statistics_come_back_as_they_were_written(sample: Rows) -> None:
    found = {"train": of(sample.inputs["image"], sample.targets)}
    assert statistics.from_json(statistics.to_json(found)) == found


def test_labels_that_are_wrong_agree_less_with_the_mean_pictures(sample: Rows) -> None:
    means = class_means(sample.inputs["image"], sample.targets, CLASSES)
    right = np.mean(agreement(sample.inputs["image"], sample.targets, means))
    assert right > 0.6
    assert np.mean(agreement(sample.inputs["image"], (sample.targets + 1) % CLASSES, means)) < 0.2
