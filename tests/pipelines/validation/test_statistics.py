from __future__ import annotations

import numpy as np
import pytest

from pipelines.data import Rows, to_floats
from pipelines.validation import statistics
from pipelines.validation.labels import agreement, class_means
from pipelines.validation.statistics import Statistics

CLASSES = 10


def of(images: np.ndarray, labels: np.ndarray) -> Statistics:
    return statistics.of(images, labels, class_means(images, labels, CLASSES))


def test_figures_are_those_of_the_values_that_the_endpoints_take(sample: Rows) -> None:
    found, values = of(sample.images, sample.labels), to_floats(sample.images)
    assert (found.pictures, found.values, found.shape) == (512, 512 * 784, [28, 28, 1])
    assert found.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
    assert found.std == pytest.approx(values.std(dtype=np.float64), rel=1e-6)
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.zeros == np.sum(values == 0)
    assert found.histogram == np.histogram(values, 10, (0, 1))[0].tolist()
    assert found.classes == np.bincount(sample.labels, minlength=CLASSES).tolist()
    assert found.constant == found.duplicates == found.unknown_labels == found.non_finite == 0


def test_bytes_and_floats_have_the_same_statistics(sample: Rows) -> None:
    one = of(sample.images, sample.labels)
    other = of(to_floats(sample.images)[..., 0], sample.labels)
    assert (one.dtype, other.dtype) == ("uint8", "float32")
    for name in ("mean", "std", "minimum", "maximum", "zeros", "histogram", "classes", "agreement"):
        assert getattr(one, name) == pytest.approx(getattr(other, name)), name


def test_corrupt_values_are_counted_and_left_out_of_the_sums(sample: Rows) -> None:
    floats = to_floats(sample.images)[..., 0]
    broken = floats.copy()
    broken[0, 0, :3] = np.nan
    broken[1, 0, 0] = np.inf
    found = of(broken, sample.labels)
    assert found.non_finite == 4
    assert found.mean == pytest.approx(floats.mean(), rel=1e-3)


def test_the_same_picture_twice_and_pictures_of_one_colour_are_counted(sample: Rows) -> None:
    images = sample.images.copy()
    images[:4] = 17
    images[5] = images[6]
    found = of(images, sample.labels)
    assert (found.constant, found.duplicates) == (4, 4)


def test_statistics_come_back_as_they_were_written(sample: Rows) -> None:
    found = {"train": of(sample.images, sample.labels)}
    assert statistics.from_json(statistics.to_json(found)) == found


def test_labels_that_are_wrong_agree_less_with_the_mean_pictures(sample: Rows) -> None:
    means = class_means(sample.images, sample.labels, CLASSES)
    right = np.mean(agreement(sample.images, sample.labels, means))
    assert right > 0.6
    assert np.mean(agreement(sample.images, (sample.labels + 1) % CLASSES, means)) < 0.2


def test_the_digest_tells_other_pictures_and_other_labels(sample: Rows) -> None:
    digest = of(sample.images, sample.labels).digest
    assert of(sample.images.copy(), sample.labels).digest == digest
    assert of(sample.images, np.roll(sample.labels, 1)).digest != digest
    assert of(np.roll(sample.images, 1, axis=0), sample.labels).digest != digest
