from __future__ import annotations

import numpy as np
import pytest

from pipelines.validation.anomalies import infinity_norm, jensen_shannon_divergence


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
