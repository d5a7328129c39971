"""Rows of endpoints that are known: their latencies, capacities, answers and faults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.signature import Arrays
from serving.compare import load
from serving.compare.generator import Job, work
from serving.compare.local import IN_PROCESS, NOTHING
from serving.compare.measure import Measuring, Plan, Subject
from serving.compare.report import FAILED, NULL, Row
from serving.settings import Settings

from .scripted import serving, sleeping

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PLAN = Plan(seconds=0.5, rounds=2, target_ms=50.0, connections=4, batches=(1, 4))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.arange(36, dtype=np.float32).reshape(18, 2))
    return path


@contextmanager
def measuring(samples: Path, *urls: str, plan: Plan = PLAN) -> Iterator[tuple[Measuring, list[Row]]]:
    rows = [Row(url, "", "-", "a script") for url in urls]
    said: list[str] = []
    with Measuring(Settings(), [Subject(row) for row in rows], samples, plan, said.append) as measured:
        yield measured, rows


def test_a_slower_endpoint_is_read_as_slower_by_as_much_and_percentiles_are_told_apart(samples: Path) -> None:
    """Every tenth request of the fast one takes ten times as long, so its p50 and p99 cannot be one figure."""

    def script(number: int) -> float:
        time.sleep(0.04 if number % 10 == 9 else 0.004)
        return 1.0

    with (
        serving(script) as fast,
        serving(sleeping(24)) as slow,
        measuring(samples, fast, slow) as (measured, (quick, late)),
    ):
        measured.latencies()
    assert quick.p50 is not None
    assert quick.p99 is not None
    assert late.p50 is not None
    assert 4 <= quick.p50.value < 15
    assert quick.p99.value > 35
    assert 15 < late.p50.value - quick.p50.value < 30
    assert quick.quantiles[50] < late.quantiles[50]


def test_the_highest_rate_is_near_the_capacity_that_is_known(samples: Path) -> None:
    """Four connections to an endpoint that takes 20 ms: 200 requests a second at most."""
    plan = Plan(seconds=1.0, rounds=1, target_ms=200.0, connections=4)
    with serving(sleeping(20)) as url, measuring(samples, url, plan=plan) as (measured, (row,)):
        measured.rates()
    assert row.goodput is not None
    assert 80 < row.goodput.value < 210
    offered = [point.offered for point in row.sweep]
    assert offered == sorted(offered)
    assert len(offered) == 5


@pytest.mark.thorough
def test_a_stall_of_the_machine_is_not_taken_for_the_highest_rate(samples: Path) -> None:
    """The first requests of the lowest rate stall, once: it is offered again, and what is above it counts."""
    begun: list[str] = []

    def script(_number: int) -> float:
        time.sleep(1.2 if begun and begun.pop() else 0.02)
        return 1.0

    def say(line: str) -> None:
        if "rates up to" in line:
            begun.extend([line] * 4)

    plan, row = Plan(seconds=1.0, rounds=1, target_ms=200.0, connections=4), Row("", "", "-", "a script")
    with serving(script) as url:
        row.target = url
        with Measuring(Settings(), [Subject(row)], samples, plan, say) as measured:
            measured.rates()
    assert row.goodput is not None
    assert row.goodput.value > 80
    assert min(point.offered for point in row.sweep if not point.reason) < 110


def test_larger_requests_bring_more_rows_a_second(samples: Path) -> None:
    plan = replace(PLAN, seconds=1.5)
    with serving(sleeping(20)) as url, measuring(samples, url, plan=plan) as (measured, (row,)):
        measured.batches()
    assert 2.5 < row.batches["4"] / row.batches["1"] < 5


def test_what_costs_no_request_is_read_beside_it(samples: Path) -> None:
    """The generator alone takes less than a millisecond, and is asked for nothing else."""
    row = Row("null", NOTHING, "-", "nothing", kind=NULL)
    with Measuring(Settings(), [Subject(row)], samples, PLAN, lambda _: None) as measured:
        assert measured.answers() == {}
        measured.latencies()
        measured.rates()
        measured.batches()
    assert row.p50 is not None
    assert 0 < row.p50.value < 1
    # LoadGen has prepared enough requests.
    assert row.p50.reason == ""
    assert (row.goodput, row.batches, row.score) == (None, {}, None)


class Burning:
    """Uses the processor for 5 ms, then waits for 5."""

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        until = time.process_time() + 0.005
        while time.process_time() < until:
            pass
        time.sleep(0.005)
        return {}

    def close(self) -> None:
        pass


def test_a_model_in_process_is_charged_its_processor_s_time_only(samples: Path) -> None:
    job = Job(Settings(), "litert", IN_PROCESS, samples, load.SINGLE, seconds=0.5)
    result = work(job, [Burning()])
    assert result.reading is not None
    assert result.cpu_us is not None
    assert 5000 <= result.cpu_us < 7000
    assert np.median(result.reading.latencies) > 9.5


@pytest.mark.parametrize(("scheme", "path"), [("json", "/predict"), ("tfs", "/v1/models/m")])
def test_a_server_is_asked_in_the_protocol_of_its_address(samples: Path, scheme: str, path: str) -> None:
    with serving(sleeping(0, 2.0)) as url:
        address = url.replace("oip+", f"{scheme}+").replace("/v2/models/m", path)
        with measuring(samples, address) as (measured, (row,)):
            answers = measured.answers()
    np.testing.assert_allclose(answers[row.name]["y"][:, 0], 2 * np.arange(0, 36, 2))


def test_an_endpoint_with_few_requests_has_no_sure_percentiles(samples: Path) -> None:
    """64 requests of one stream, and 100 a second for 2 s."""
    with serving(sleeping(8)) as url, measuring(samples, url) as (measured, (row,)):
        measured.plan = replace(PLAN, seconds=0.25, rounds=1, connections=1, target_ms=1000)
        measured.latencies()
        measured.rates()
    assert row.p50 is not None
    assert row.p99 is not None
    assert row.goodput is not None
    assert (row.p50.reason, row.p99.reason) == ("", "fewer than 470 requests")
    assert row.goodput.value > 10
    assert row.goodput.reason == "fewer than 470 requests at this rate"


def test_ctrl_c_keeps_the_rounds_that_were_read(samples: Path) -> None:
    def say(line: str) -> None:
        if "round 2" in line:
            raise KeyboardInterrupt

    row = Row("", "", "-", "a script")
    with serving(sleeping(2)) as url:
        row.target = url
        with (
            Measuring(Settings(), [Subject(row)], samples, PLAN, say) as measured,
            pytest.raises(KeyboardInterrupt),
        ):
            measured.latencies()
    assert row.p50 is not None
    assert row.p50.value > 2


def test_a_target_that_dies_fails_by_name_and_the_others_go_on(samples: Path) -> None:
    def dying(number: int) -> float:
        if number >= 40:
            raise RuntimeError("the model is gone")
        return 1.0

    with ExitStack() as stack:
        urls = [stack.enter_context(serving(one)) for one in (dying, sleeping(2))]
        measured, (broken, other) = stack.enter_context(measuring(samples, *urls))
        measured.answers()
        measured.rates()
    assert broken.state == FAILED
    assert "the model is gone" in broken.reason
    assert other.works
    assert other.goodput is not None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("oip+http://127.0.0.1:1/v2/models/m", "does not answer"),
        ("http://127.0.0.1:8000/m", "is no address of an endpoint: expected one of oip"),
    ],
)
def test_an_address_that_is_none_or_does_not_answer_is_a_reason(samples: Path, url: str, reason: str) -> None:
    with measuring(samples, url) as (measured, (row,)):
        measured.answers()
    assert row.state == FAILED
    assert reason in row.reason
