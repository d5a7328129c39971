"""The queue of one version, over a servable that notes what it is asked to run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.server.batching import Batcher
from serving.server.errors import InvalidRequestError, UnavailableError
from serving.server.signature import Signature, Tensors, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "float32", (-1, -1)),), (TensorSpec("y", "float32", (-1, -1)),))


class Doubling:
    """y = 2 x; refuses negative numbers; takes `seconds` a run."""

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
async def threads() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def batcher(servable: Doubling, threads: ThreadPoolExecutor, rows: int = 64, queue: int = 100) -> Batcher:
    return Batcher(servable, threads, rows, queue, lambda *_: None, 1.0)


def x(*values: float, width: int = 1) -> Tensors:
    return {"x": np.array([[value] * width for value in values], np.float32)}


async def call(target: Batcher, inputs: Tensors) -> list[float]:
    answer = await target.run("serving_default", inputs, ("y",))
    values: list[float] = np.asarray(answer["y"])[:, 0].tolist()
    return values


async def test_what_queues_during_a_run_shares_the_next_one(threads: ThreadPoolExecutor) -> None:
    servable = Doubling(0.05)
    target = batcher(servable, threads)
    first = asyncio.create_task(call(target, x(1)))
    await asyncio.sleep(0.02)
    others = [call(target, x(*range(n, n + 2))) for n in range(5)]
    assert await asyncio.gather(first, *others) == [[2.0], *([2.0 * n, 2.0 * n + 2] for n in range(5))]
    assert servable.rows == [1, 10]


async def test_a_shared_run_stays_within_its_rows(threads: ThreadPoolExecutor) -> None:
    servable = Doubling(0.01)
    target = batcher(servable, threads, rows=4)
    await asyncio.gather(*(call(target, x(1, 2, 3)) for _ in range(3)), call(target, x(*range(9))))
    assert servable.rows == [3, 3, 3, 9]  # a larger request runs alone


async def test_requests_of_different_shapes_do_not_share(threads: ThreadPoolExecutor) -> None:
    servable = Doubling(0.01)
    target = batcher(servable, threads)
    await asyncio.gather(call(target, x(1)), call(target, x(1, width=3)), call(target, x(1, width=3)))
    assert servable.rows == [1, 2]


async def test_a_bad_request_does_not_fail_its_neighbours(threads: ThreadPoolExecutor) -> None:
    target = batcher(Doubling(0.01), threads)
    good, bad, other = await asyncio.gather(
        call(target, x(1)), call(target, x(-1)), call(target, x(3)), return_exceptions=True
    )
    assert (good, other) == ([2.0], [6.0])
    assert isinstance(bad, InvalidRequestError)


async def test_a_full_queue_refuses_at_once_and_drains(threads: ThreadPoolExecutor) -> None:
    target = batcher(Doubling(0.05), threads, queue=3)
    answers = await asyncio.gather(*(call(target, x(1)) for _ in range(5)), return_exceptions=True)
    assert [isinstance(answer, UnavailableError) for answer in answers] == [False] * 3 + [True] * 2
    assert await call(target, x(5)) == [10.0]


async def test_a_request_that_is_given_up_is_not_run(threads: ThreadPoolExecutor) -> None:
    servable = Doubling(0.05)
    target = batcher(servable, threads)
    first = asyncio.create_task(call(target, x(1)))
    await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(target, x(*range(7))), 0.01)
    await first
    assert await call(target, x(2)) == [4.0]
    assert servable.rows == [1, 1]
