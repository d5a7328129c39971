"""One endpoint, one row at a time, one connection: how long each answer takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.signature import Arrays, batch_size, joined, rows
from serving.targets.base import Client

WARMUP_CALLS = 5


@dataclass(frozen=True)
class Measurement:
    """What an endpoint answered, row by row, and how long each answer took (seconds, [N])."""

    target: str
    protocol: str
    outputs: Arrays
    seconds: NDArray[np.float64]

    def percentile(self, percent: float) -> float:
        """Latency in milliseconds that `percent` of the calls stayed within."""
        return float(np.percentile(self.seconds, percent)) * 1000


def measure(target: str, protocol: str, client: Client, inputs: Arrays) -> Measurement:
    """Call with one row after the other. Raises `TargetError` where a call fails."""
    single = [rows(inputs, slice(row, row + 1)) for row in range(batch_size(inputs))]
    for row in single[:WARMUP_CALLS]:
        client.predict(row)
    answers, seconds = [], []
    for row in single:
        started = time.perf_counter()
        answers.append(client.predict(row))
        seconds.append(time.perf_counter() - started)
    return Measurement(target, protocol, joined(answers), np.array(seconds))
