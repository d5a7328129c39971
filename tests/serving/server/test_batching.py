"""The queue of one version, over a servable that notes what it is asked to run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from serving.server import exchange, run_costs, run_queue
from serving.server.batching import Batcher
from serving.server.errors import InvalidRequestError, UnavailableError
from serving.server.metrics import Metrics
from serving.server.run_costs import BELIEVED, PROOF, RETRY, SHORT_SECONDS, RunCosts
from serving.server.run_threads import RunThreads
from serving.server.signature import Signature, Tensors, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "float32", (-1, -1)),), (TensorSpec("y", "float32", (-1, -1)),))


class Doubling:
    """y = 2 x; refuses negative numbers; takes `seconds` a run."""

    concurrent = False

    def __init__(self, seconds: float) -> None:
        self.signatures = {"serving_default": SIGNATURE}
        self.rows: list[int] = []
        self._seconds = seconds

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        time.sleep(self._seconds)
        x = np.asarray(inputs["x"], np.float32)
        self.rows.append(len(x))
        if (x < 0).any():
            raise InvalidRequestError("negative")
        return {"y": 2 * x}

    def close(self) -> None:
        pass


@pytest.fixture
async def threads() -> AsyncIterator[RunThreads]:
    with RunThreads(2) as pool:
        yield pool


def batcher(
    servable: Doubling, threads: RunThreads, rows: int = 64, queue: int = 100, seconds: float = 1.0
) -> Batcher:
    return Batcher(servable, threads, rows, queue, Metrics().model("doubling"), seconds)


def x(*values: float, width: int = 1) -> Tensors:
    return {"x": np.array([[value] * width for value in values], np.float32)}


async def call(target: Batcher, inputs: Tensors) -> list[float]:
    answer = await target.run("serving_default", inputs, ("y",))
    values: list[float] = np.asarray(answer["y"])[:, 0].tolist()
    return values


@pytest.fixture
def every_run_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine is doing."""
    monkeypatch.setattr(run_costs, "SHORT_SECONDS", 60.0)


@pytest.mark.usefixtures("every_run_is_short")
async def test_a_lone_short_request_is_answered_without_suspending(threads: RunThreads) -> None:
    target = batcher(Doubling(0.0), threads, seconds=1e-6)
    asked = call(target, x(3))
    with pytest.raises(StopIteration) as answered:
        asked.send(None)
    assert answered.value.value == [6.0]


async def test_a_lone_request_that_the_model_refuses_is_refused(threads: RunThreads) -> None:
    target = batcher(Doubling(0.0), threads, seconds=1e-6)
    with pytest.raises(InvalidRequestError, match="negative"):
        await call(target, x(-1))
    assert await call(target, x(1)) == [2.0]
    assert (target.statistics.compute.count, target.statistics.rows) == (2, 1)


@pytest.mark.usefixtures("every_run_is_short")
async def test_company_is_noticed_and_then_shares_runs(
    threads: RunThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_queue, "LOOK_SECONDS", 1e-9)  # every second lone request passes through the queue
    servable = Doubling(0.0)
    target = batcher(servable, threads, seconds=1e-6)
    for n in range(20):
        assert await call(target, x(n)) == [2.0 * n]
    for _ in range(2):  # each turn of the loop brings eight requests
        assert await asyncio.gather(*(call(target, x(n)) for n in range(8))) == [[2.0 * n] for n in range(8)]
    assert servable.rows[20:] in ([1, 7, 8], [7, 1, 8])
    for n in range(run_queue.SINGLES):
        await call(target, x(n))
    with pytest.raises(StopIteration):  # the company has gone
        call(target, x(1)).send(None)


async def test_a_model_whose_values_decide_how_long_it_runs_holds_the_event_loop_once(
    threads: RunThreads,
) -> None:
    on_the_loop: list[bool] = []

    class Waiting(Doubling):
        def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            seconds = float(np.asarray(inputs["x"])[0, 0])
            if seconds:
                on_the_loop.append(threading.current_thread() is threading.main_thread())
                time.sleep(seconds)
            return super().run(signature, inputs, outputs)

    target = batcher(Waiting(0.0), threads, seconds=0.0)
    for _ in range(3):
        for _ in range(2 * PROOF):
            await call(target, x(0.0))
        await call(target, x(0.1))
    assert len(on_the_loop) == 3
    assert sum(on_the_loop) <= 1


async def test_what_queues_during_a_run_shares_the_next_one(threads: RunThreads) -> None:
    servable = Doubling(0.05)
    target = batcher(servable, threads)
    first = asyncio.create_task(call(target, x(1)))
    await asyncio.sleep(0.02)
    others = [call(target, x(*range(n, n + 2))) for n in range(5)]
    assert await asyncio.gather(first, *others) == [[2.0], *([2.0 * n, 2.0 * n + 2] for n in range(5))]
    assert servable.rows == [1, 10]


async def test_a_shared_run_stays_within_its_rows(threads: RunThreads) -> None:
    servable = Doubling(0.01)
    target = batcher(servable, threads, rows=4)
    await asyncio.gather(*(call(target, x(1, 2, 3)) for _ in range(3)), call(target, x(*range(9))))
    assert servable.rows == [3, 3, 3, 9]  # a larger request runs alone


async def test_requests_of_different_shapes_do_not_share(threads: RunThreads) -> None:
    servable = Doubling(0.01)
    target = batcher(servable, threads)
    await asyncio.gather(call(target, x(1)), call(target, x(1, width=3)), call(target, x(1, width=3)))
    assert servable.rows == [1, 2]


async def test_a_bad_request_does_not_fail_its_neighbours(threads: RunThreads) -> None:
    target = batcher(Doubling(0.01), threads)
    good, bad, other = await asyncio.gather(
        call(target, x(1)), call(target, x(-1)), call(target, x(3)), return_exceptions=True
    )
    assert (good, other) == ([2.0], [6.0])
    assert isinstance(bad, InvalidRequestError)


async def test_a_full_queue_refuses_at_once_and_drains(threads: RunThreads) -> None:
    target = batcher(Doubling(0.05), threads, queue=3)
    answers = await asyncio.gather(*(call(target, x(1)) for _ in range(5)), return_exceptions=True)
    assert [isinstance(answer, UnavailableError) for answer in answers] == [False] * 3 + [True] * 2
    assert await call(target, x(5)) == [10.0]


@pytest.mark.parametrize(("left", "told"), [(None, b"30"), (20.0, b"20"), (0.01, b"1")])
async def test_a_full_queue_tells_when_it_will_be_empty(
    threads: RunThreads, left: float | None, told: bytes
) -> None:
    """By what its runs are expected to take, 2.5 s a row here; but no later than all that waits gives up."""
    target = batcher(Doubling(0.0), threads, queue=3, seconds=2.5)
    if left is not None:
        exchange.deadline.set((time.monotonic() + left, "late"))
    answers = await asyncio.gather(*(call(target, x(1, 2, 3, 4)) for _ in range(4)), return_exceptions=True)
    refused = answers[3]
    assert isinstance(refused, UnavailableError)
    assert refused.headers == ((b"retry-after", told),)


async def test_a_request_that_is_given_up_is_not_run(threads: RunThreads) -> None:
    servable = Doubling(0.05)
    target = batcher(servable, threads)
    first = asyncio.create_task(call(target, x(1)))
    await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(target, x(*range(7))), 0.01)
    await first
    assert await call(target, x(2)) == [4.0]
    assert servable.rows == [1, 1]


async def test_what_was_given_up_makes_room_in_a_full_queue(threads: RunThreads) -> None:
    target = batcher(Doubling(0.05), threads, queue=1)
    first = asyncio.create_task(call(target, x(1)))
    await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(target, x(2)), 0.01)
    assert await call(target, x(3)) == [6.0]
    assert await first == [2.0]


async def test_a_slow_model_delays_a_quick_one_by_no_run_of_its_own(threads: RunThreads) -> None:
    slow = [batcher(Doubling(0.5), threads, rows=1) for _ in range(3)]
    quick = batcher(Doubling(0.01), threads, seconds=0.01)
    waiting = [asyncio.create_task(call(target, x(n))) for target in slow for n in range(4)]
    await asyncio.sleep(0.05)
    for n in range(10):
        assert await call(quick, x(n)) == [2.0 * n]
    assert not any(task.done() for task in waiting)  # a quick one had to wait for none of them
    for task in waiting:
        task.cancel()


async def test_a_run_of_unknown_length_leaves_the_event_loop_and_the_threads_to_others(
    threads: RunThreads,
) -> None:
    slow = [asyncio.create_task(call(batcher(Doubling(0.5), threads, seconds=0.0), x(1))) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert await call(batcher(Doubling(0.0), threads, seconds=0.0), x(2)) == [4.0]
    assert not any(task.done() for task in slow)
    assert await asyncio.gather(*slow) == [[2.0]] * 3


async def test_a_long_run_holds_up_no_other_of_a_concurrent_model(threads: RunThreads) -> None:
    class Concurrent(Doubling):
        concurrent = True

        def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            time.sleep(float(np.asarray(inputs["x"])[0, 0]))
            return super().run(signature, inputs, outputs)

    target = batcher(Concurrent(0.0), threads, seconds=0.0)
    slow = asyncio.create_task(call(target, x(0.5)))
    await asyncio.sleep(0.01)
    for _ in range(3):
        assert await call(target, x(0.0)) == [0.0]
    assert not slow.done()
    assert await slow == [1.0]


async def test_models_take_turns(threads: RunThreads) -> None:
    ran: list[str] = []

    class Noting(Doubling):
        def __init__(self, name: str) -> None:
            super().__init__(0.15)
            self._name = name

        def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            ran.append(self._name)
            return super().run(signature, inputs, outputs)

    targets = [batcher(Noting(name), threads, rows=1) for name in "abc"]
    busy = [call(targets[0], x(n)) for n in range(4)]
    await asyncio.gather(*busy, *(call(target, x(1)) for target in targets[1:]))
    assert sorted(ran[:3]) == ["a", "b", "c"]  # nobody was second before everybody was first


async def test_statistics_tell_waiting_from_running(threads: RunThreads) -> None:
    target = batcher(Doubling(0.05), threads)
    await asyncio.gather(*(call(target, x(1, 2)) for _ in range(3)))
    told = target.statistics
    assert (told.queue.count, told.compute.count, told.rows) == (3, 3, 6)
    assert {rows: runs.count for rows, runs in told.runs.items()} == {6: 1}
    assert told.compute.nanoseconds >= 3 * 0.05e9  # a shared run counts whole for each


def test_sizes_that_are_slower_by_the_row_are_withheld_and_tried_again() -> None:
    costs = RunCosts(0.001)
    assert costs.limit(64, 32) == 32  # never tried: may be good
    for _ in range(BELIEVED):
        costs.add(32, 32 * 0.004)
        costs.add(8, 8 * 0.0005)
    assert costs.limit(64, 32) == 16
    limits = [costs.limit(64, 32) for _ in range(RETRY)]
    assert sorted(set(limits)) == [16, 32]
    assert limits.count(32) == 1
    for _ in range(30):
        costs.add(32, 32 * 0.0002)
    assert costs.limit(64, 32) == 32


def test_only_a_row_of_short_runs_is_believed_to_go_on() -> None:
    costs = RunCosts(0.0)
    assert not costs.short(1)  # nothing is known
    for _ in range(PROOF):
        assert not costs.short(1)
        costs.add(1, 0.0001)
    assert costs.short(1)
    assert not costs.short(2)  # another size
    costs.add(1, 10 * SHORT_SECONDS)
    for _ in range(10 * PROOF):
        assert not costs.short(1)  # whatever the mean says, and for the longer the longer that one was
        costs.add(1, 0.0001)
    assert costs.short(1)
    assert RunCosts(0.0001).short(1)  # as the warm-up has shown
    assert not RunCosts(0.5).short(1)


def test_costs_follow_the_rows() -> None:
    assert RunCosts(0.001).expected(4) == pytest.approx(0.004)
    costs = RunCosts(0.0)
    costs.add(4, 0.004)
    assert costs.expected(1) == pytest.approx(0.001)
    assert costs.expected(8) == pytest.approx(0.008)
