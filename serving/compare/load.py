"""One endpoint, one picture at a time, one connection: how long each answer takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.targets.base import Client, Images, Outputs

WARMUP_CALLS = 5


@dataclass(frozen=True)
class Measurement:
    """What an endpoint answered, picture by picture, and how long each answer took (seconds, [N])."""

    target: str
    protocol: str
    outputs: Outputs
    seconds: NDArray[np.float64]

    def percentile(self, percent: float) -> float:
        """Latency in milliseconds that `percent` of the calls stayed within."""
        return float(np.percentile(self.seconds, percent)) * 1000


def measure(target: str, protocol: str, client: Client, images: Images) -> Measurement:
    """Call with one picture after the other. Raises `TargetError` where a call fails."""
    for image in images[:WARMUP_CALLS]:
        client.predict(image[np.newaxis])
    answers, seconds = [], []
    for image in images:
        started = time.perf_counter()
        answers.append(client.predict(image[np.newaxis]))
        seconds.append(time.perf_counter() - started)
    outputs = Outputs(
        np.concatenate([answer.logits for answer in answers]),
        np.concatenate([answer.probabilities for answer in answers]),
    )
    return Measurement(target, protocol, outputs, np.array(seconds))
