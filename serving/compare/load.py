"""Load by MLPerf LoadGen: one endpoint, one scenario, one reading.

https://github.com/mlcommons/inference/tree/master/loadgen - latencies count from the scheduled time of a request, so
that a stall of an endpoint counts for all requests that it delays.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

SINGLE, POISSON, OFFLINE = "SingleStream", "Server", "Offline"
MILLISECOND = 1_000_000
"""Nanoseconds."""
FEWEST = 64
"""Minimum of requests for LoadGen's percentiles of one stream."""
FEWEST_POISSON = 470
"""Minimum of requests for LoadGen's 99th percentile: 459 if none is late."""
SHORTEST = 2_000
"""Nanoseconds; LoadGen cannot send requests in less, and would prepare too many."""
LONGEST = 4
"""A reading takes at most so many times its seconds: a slow endpoint may need longer for enough requests."""

Call = Callable[[int], None]
"""Send one request with the samples of an index, over its own connection. Raises if it fails."""


@dataclass(frozen=True)
class Reading:
    """The result of a scenario. Latencies are in milliseconds, of answered requests, in order of arrival."""

    latencies: list[float]
    seconds: float
    """From the first scheduled request to the last response."""
    failures: dict[str, int] = field(default_factory=dict)
    """Failed requests by the beginning of their error."""
    fault: str = ""
    """The reason why the reading is not valid, or ""."""

    @property
    def rate(self) -> float:
        """Responses a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


def read(
    scenario: str,
    calls: list[Call],
    samples: int,
    seconds: float,
    rate: float = 0.0,
    target_ms: float = 0.0,
    fastest_ms: float = 0.0,
) -> Reading:
    """Run a scenario over `calls` for `seconds`, and until there are enough requests for LoadGen:

    `SINGLE` sends one request at a time, `OFFLINE` sends them as fast as they are answered, and `POISSON` at random
    times, `rate` a second on average; that is valid if 99 % are answered within `target_ms`, waiting included.
    `fastest_ms` is the latency of the fastest request that was seen.
    """
    if scenario == OFFLINE:
        # It is read twice: LoadGen prepares its requests by the expected rate.
        first = _run(OFFLINE, calls, samples, seconds / 4, 1, offline_expected_qps=20.0)
        expected = {"offline_expected_qps": max(1.0, first.rate)}
        return first if first.failures else _run(OFFLINE, calls, samples, seconds, 1, **expected)
    if scenario == SINGLE:
        # Half of it, so that LoadGen does not run out of the requests that it has prepared.
        expected = {"single_stream_expected_latency_ns": max(SHORTEST, int(fastest_ms * MILLISECOND / 2))}
        return _run(SINGLE, calls, samples, seconds, FEWEST, **expected)
    goal = {
        "server_target_qps": rate,
        "server_target_latency_ns": int(target_ms * MILLISECOND),
        "server_target_latency_percentile": 0.99,
    }
    return _run(POISSON, calls, samples, seconds, FEWEST_POISSON, **goal)


def _run(
    scenario: str, calls: list[Call], samples: int, seconds: float, fewest: int, **goals: float
) -> Reading:
    """Run LoadGen for `seconds` and at least `fewest` requests, with further settings `goals`."""
    import mlperf_loadgen as lg

    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(seconds * 1000)
    settings.max_duration_ms = int(seconds * LONGEST * 1000)
    settings.min_query_count = fewest
    for name, value in goals.items():
        setattr(settings, name, value)
    failures: Counter[str] = Counter()
    failed: set[int] = set()
    free: SimpleQueue[Call] = SimpleQueue()
    for call in calls:
        free.put(call)

    def send(sample: Any) -> None:  # noqa: ANN401 - LoadGen has no types
        call = free.get()
        try:
            call(sample.index)
        except Exception as error:  # noqa: BLE001 - a failure of any kind is counted, and the others go on
            failures[f"{type(error).__name__}: {error}"[:120]] += 1
            failed.add(sample.id)
        finally:
            free.put(call)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0)])

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(calls)) as pool:

        def issue(queries: list[Any]) -> None:
            for query in queries:
                if scenario == SINGLE:
                    send(query)
                else:
                    pool.submit(send, query)

        # LoadGen reports by files only.
        log = lg.LogSettings()
        log.log_output = lg.LogOutputSettings()
        log.log_output.outdir = folder
        log.log_output.copy_summary_to_stdout = False
        log.enable_trace = True
        sut = lg.ConstructSUT(issue, lambda: None)
        library = lg.ConstructQSL(samples, samples, lambda _: None, lambda _: None)
        started = time.perf_counter()
        try:
            lg.StartTestWithLogSettings(sut, library, settings, log)
        finally:
            lg.DestroyQSL(library)
            lg.DestroySUT(sut)
        took = time.perf_counter() - started
        result = _result(Path(folder, "mlperf_log_detail.txt"))
        spans = _spans(Path(folder, "mlperf_log_trace.json"), failed)
    latencies = [end - begin for begin, end in spans]
    last = max((end for _, end in spans), default=took * 1000)
    return Reading(latencies, last / 1000, dict(failures), _fault(result, failures))


def _result(detail: Path) -> dict[str, Any]:
    """Return the last value of each key of LoadGen's detail log, and its errors under `errors`."""
    found: dict[str, Any] = {"errors": []}
    for line in detail.read_text().splitlines():
        entry = json.loads(line.partition(" ")[2])
        found[entry["key"]] = entry["value"]
        if entry["metadata"]["is_error"]:
            found["errors"].append(str(entry["value"]))
    return found


def _spans(trace: Path, failed: set[int]) -> list[tuple[float, float]]:
    """Return the scheduled and completion times of answered requests, in milliseconds since the first one."""
    spans = []
    for line in trace.read_text().splitlines():
        if '"name":"Sample"' not in line or '"ph":"b"' not in line:
            continue
        event = json.loads(line.rstrip(","))
        if event["id"] not in failed:
            # `ts` is the scheduled time in microseconds, and `complete_ns` counts from it.
            begin = event["ts"] / 1000
            spans.append((begin, begin + event["args"]["complete_ns"] / MILLISECOND))
    spans.sort()
    return [(begin - spans[0][0], end - spans[0][0]) for begin, end in spans]


def _fault(result: dict[str, Any], failures: Counter[str]) -> str:
    if failures:
        (words, _), total = failures.most_common(1)[0], failures.total()
        return f"{total} requests failed, most by: {words}"
    if result["errors"]:
        return f"LoadGen: {result['errors'][0]}"
    if result.get("result_validity") == "VALID":
        return ""
    if result.get("result_perf_constraints_met") is False:
        late = result.get("result_overlatency_query_count", "more than 1 %")
        return f"{late} of {result.get('result_query_count')} requests were later than the target"
    return "too few requests for LoadGen to vouch for the percentile"
