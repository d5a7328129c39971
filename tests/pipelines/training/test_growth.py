"""What a process grew by while something ran."""

from __future__ import annotations

import time

import numpy as np

from pipelines.training import growth


def test_the_most_that_was_held_is_read_and_what_was_there_before_is_not() -> None:
    before = np.ones(2**24, np.uint8)
    with growth() as grown:
        held = np.ones(2**26, np.uint8)
        time.sleep(0.3)
        del held
    assert before.all()
    assert 2**26 <= max(grown) < 2**26 + 2**23
