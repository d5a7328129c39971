"""Readings of endpoints whose latencies, failures and capacity are known."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from serving.compare import load

pytestmark = pytest.mark.slow


def sleeping(milliseconds: float) -> load.Call:
    return lambda _index: time.sleep(milliseconds / 1000)


def test_one_stream_reads_the_latency_and_each_percentile_is_its_own() -> None:
    """Every twentieth request takes ten times as long: the median, p90 and p99 must differ by that."""
    count = iter(range(10**6))

    def call(_index: int) -> None:
        time.sleep(0.03 if next(count) % 20 == 19 else 0.003)

    reading = load.read(load.SINGLE, [call], 10, 2, fastest_ms=3)
    p50, p90, p99 = np.percentile(reading.latencies, [50, 90, 99])
    assert 3 <= p50 < 10
    assert 3 <= p90 < 15
    assert 30 <= p99 < 60
    assert reading.fault == ""


def test_a_stall_is_charged_to_the_requests_that_it_kept_waiting() -> None:
    """A closed loop sees one slow request in a stall of 300 ms; at 200 requests a second, 60 come in that time."""
    begun = time.perf_counter()
    lock = threading.Lock()

    def call(_index: int) -> None:
        with lock:
            if 0.5 < time.perf_counter() - begun < 0.6:
                time.sleep(0.3)
            time.sleep(0.001)

    reading = load.read(load.POISSON, [call] * 4, 10, 2, 200, target_ms=50)
    late = sum(latency > 50 for latency in reading.latencies)
    assert late > 25
    assert max(reading.latencies) > 250
    assert "later than the target" in reading.fault


def test_a_rate_beyond_the_capacity_is_not_kept_up_and_ends_in_bounded_time() -> None:
    begun = time.monotonic()
    # Two connections answer 200 at most.
    reading = load.read(load.POISSON, [sleeping(10)] * 2, 10, 1, 400, target_ms=20)
    assert time.monotonic() - begun < 15
    assert reading.rate < 210
    assert reading.fault


def test_all_at_once_reads_the_capacity() -> None:
    reading = load.read(load.OFFLINE, [sleeping(10)] * 4, 10, 1)
    assert 250 < reading.rate <= 400


def test_failures_are_counted_by_cause_and_are_no_latencies() -> None:
    count = iter(range(10**6))

    def call(_index: int) -> None:
        time.sleep(0.001)
        if next(count) % 10 == 0:
            raise ConnectionError("the target is gone")

    reading = load.read(load.POISSON, [call], 10, 1, 300, target_ms=50)
    failed = reading.failures["ConnectionError: the target is gone"]
    assert failed > 30
    assert len(reading.latencies) > 5 * failed
    assert reading.fault == f"{failed} requests failed, most by: ConnectionError: the target is gone"
