"""Figures that are noted as they come, and told to prometheus_client now and then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client import Histogram


class Tally:
    """What a histogram is to be told: a value costs a hundredth of what telling it at once would."""

    __slots__ = ("_bounds", "_histogram", "_values", "observe")

    def __init__(self, histogram: Histogram, bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = np.array(bounds)
        self._values: list[float] = []
        self.observe = self._values.append
        """Note a value, until the next `tell`."""

    def tell(self) -> None:
        """Hand over what was noted since the last time."""
        if not self._values:
            return
        values = np.array(self._values, float)
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._bounds) + 1)
        # The library takes single values only, and shares these fields between its own ways of storing them.
        for bucket, count in zip(self._histogram._buckets, counts.tolist(), strict=True):
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(float(values.sum()))
        self._values.clear()
