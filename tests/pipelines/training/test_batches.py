from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.base import Model
from models.data import Rows
from pipelines.training.batches import BatchPlan
from tests.pictures import as_floats, labelled


@pytest.fixture
def plan(model: Model, sample: Rows) -> BatchPlan:
    return BatchPlan(model, sample, replace(model.spec.profile("quick"), batch_size=100, epochs=3), seed=1)


def test_the_same_epoch_is_the_same_batches(plan: BatchPlan) -> None:
    for (inputs, labels), (again, labels_again) in zip(plan.epoch(1), plan.epoch(1), strict=True):
        np.testing.assert_array_equal(inputs["image"], again["image"])
        np.testing.assert_array_equal(labels, labels_again)


def test_epochs_and_seeds_differ(plan: BatchPlan) -> None:
    first = next(plan.epoch(0))[1]
    assert not np.array_equal(first, next(plan.epoch(1))[1])
    assert not np.array_equal(first, next(replace(plan, seed=2).epoch(0))[1])


def test_an_epoch_shows_each_picture_at_most_once_and_flips_half(plan: BatchPlan) -> None:
    batches = [(inputs["image"], labels) for inputs, labels in plan.epoch(0)]
    assert len(batches) == plan.steps_per_epoch == 5
    assert all(images.shape == (100, 28, 28, 1) and images.dtype == np.float32 for images, _ in batches)
    shown = np.concatenate([images for images, _ in batches])
    originals = {i.tobytes(): label for i, label in zip(as_floats(plan.rows), plan.rows.targets, strict=True)}
    mirrored = {np.ascontiguousarray(image[:, ::-1]).tobytes() for image in as_floats(plan.rows)}
    straight = [image.tobytes() in originals for image in shown]
    assert all(s or image.tobytes() in mirrored for s, image in zip(straight, shown, strict=True))
    assert 0.4 < np.mean(straight) < 0.6
    labels = np.concatenate([labels for _, labels in batches])
    assert all(originals.get(i.tobytes(), label) == label for i, label in zip(shown, labels, strict=True))
    upright = {np.minimum(image, image[:, ::-1]).tobytes() for image in shown}
    assert len(upright) == len(shown)


def test_a_part_of_the_pictures_is_an_epoch_where_the_profile_says_so(plan: BatchPlan) -> None:
    part = replace(plan, profile=replace(plan.profile, epoch_rows=250))
    assert [len(list(part.epoch(number))) for number in range(3)] == [2, 2, 2]
    assert part.learning_rates().shape == (6,)
    more = replace(plan, profile=replace(plan.profile, epoch_rows=10**6))
    assert more.steps_per_epoch == plan.steps_per_epoch


def test_learning_rate_rises_to_its_peak_and_falls(plan: BatchPlan) -> None:
    rates = plan.learning_rates()
    peak = int(rates.argmax())
    assert rates.shape == (15,)
    assert rates[peak] == pytest.approx(plan.profile.peak_learning_rate)
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[0] < rates[peak] / 50


def test_shifted_pictures_move_by_whole_pixels_and_not_too_far(plan: BatchPlan) -> None:
    dot = np.zeros_like(plan.rows.inputs["image"])
    dot[:, 14, 14] = 255
    profile = replace(plan.profile, augmentation={"flip": True, "shift": 2})
    moved = replace(plan, rows=labelled(dot, plan.rows.targets), profile=profile)
    rows, columns = np.concatenate(
        [np.argwhere(inputs["image"][..., 0] == 1)[:, 1:] for inputs, _ in moved.epoch(0)]
    ).T
    assert len(rows) == 500
    assert set(rows) == set(range(12, 17))
    assert set(columns) == set(range(11, 17)), "column 14 is column 13 in a mirrored picture"


def test_devices_share_each_batch_in_equal_parts(plan: BatchPlan) -> None:
    plan = replace(plan, profile=replace(plan.profile, augmentation={"flip": True}))
    for whole, *parts in zip(plan.epoch(0), *(plan.epoch(0, rank, 4) for rank in range(4)), strict=True):
        assert len({len(targets) for _, targets in parts}) == 1
        assert np.array_equal(whole[1], np.concatenate([targets for _, targets in parts]))
        assert np.array_equal(whole[0]["image"], np.concatenate([inputs["image"] for inputs, _ in parts]))
