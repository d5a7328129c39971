"""One queue and one thread for each signature: over servables that note what they are asked to run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from serving.server.backends.base import Servable
from serving.server.errors import BackendError, InvalidRequestError, TooLargeError, UnavailableError
from serving.server.metrics import RequestRecord
from serving.server.scheduling import QueueLimits, RunQueue
from serving.server.tensors.signature import Signature, Tensors, TensorSpec

ANY = TensorSpec("x", "float32", (-1, -1))


class Doubling:
    """y = 2 x and z = -x; refuses negative numbers; a run waits for its `gate`."""

    def __init__(self) -> None:
        self.signatures = {"serving_default": Signature((ANY,), (ANY,))}
        self.runs: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x: Any = inputs["x"]
        self.runs.append(len(x))
        assert self.gate.wait(20)
        if (x < 0).any():
            raise InvalidRequestError("negative")
        return {name: {"y": 2 * x, "z": -x}[name] for name in outputs}

    def close(self) -> None:
        pass


class Queue:
    """A queue and what it has counted."""

    def __init__(self, servable: Servable, batched: bool = True, **limits: int) -> None:
        self.counted: list[int] = []
        """The rows of its runs."""
        self._queue = RunQueue(
            servable,
            "serving_default",
            "model m, version 1",
            batched=batched,
            limits=QueueLimits(**limits),
            count=lambda rows, _seconds: self.counted.append(rows),
        )
        self.close = self._queue.close

    async def ask(
        self, inputs: Tensors, outputs: tuple[str, ...] = ("y",), record: RequestRecord | None = None
    ) -> Tensors:
        return await self._queue.run(inputs, outputs, record or RequestRecord("", "", ""))

    async def y(self, *values: float, width: int = 1) -> list[float]:
        answer: Any = await self.ask(x(*values, width=width))
        found: list[float] = answer["y"][:, 0].tolist()
        return found


def x(*values: float, width: int = 1) -> Tensors:
    return {"x": np.array([[value] * width for value in values], np.float32)}


async def behind(servable: Doubling, queue: Queue, *asked: Callable[[], Any]) -> list[Any]:
    """The answers to what queues while another request runs."""
    servable.gate.clear()
    first = asyncio.create_task(queue.y(0))
    while not servable.runs:
        await asyncio.sleep(0.001)
    tasks = [asyncio.create_task(one()) for one in asked]
    await asyncio.sleep(0.01)
    servable.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert await first == [0.0]
    return answers


async def test_what_queues_during_a_run_shares_the_next_one() -> None:
    servable = Doubling()
    queue = Queue(servable)
    answers = await behind(servable, queue, *(lambda n=n: queue.y(n, n + 1) for n in range(5)))
    assert answers == [[2.0 * n, 2.0 * n + 2] for n in range(5)]
    assert servable.runs == [1, 10]
    assert queue.counted == [1, 10]


async def test_requests_of_one_turn_of_the_loop_share_a_run() -> None:
    servable = Doubling()
    queue = Queue(servable)
    assert await asyncio.gather(*(queue.y(n) for n in range(8))) == [[2.0 * n] for n in range(8)]
    assert servable.runs == [8]


async def test_a_model_that_is_not_batched_runs_each_request_alone() -> None:
    servable = Doubling()
    queue = Queue(servable, batched=False)
    assert await asyncio.gather(*(queue.y(n, n) for n in range(3))) == [[2.0 * n] * 2 for n in range(3)]
    assert servable.runs == [2, 2, 2]


async def test_a_shared_run_stays_within_its_rows_and_bytes() -> None:
    servable = Doubling()
    queue = Queue(servable, batch_rows=4, batch_bytes=100)
    wide = x(1, width=20)
    await asyncio.gather(*(queue.y(1, 2, 3) for _ in range(3)), queue.y(*range(9)))
    await asyncio.gather(*(queue.ask(wide) for _ in range(2)))
    assert servable.runs == [3, 3, 3, 9, 1, 1]  # A larger request runs alone.


async def test_requests_of_other_shapes_or_outputs_do_not_share() -> None:
    servable = Doubling()
    queue = Queue(servable)
    asked = [queue.y(1), queue.y(1, width=3), queue.y(1, width=3), queue.ask(x(1), ("z",))]
    await asyncio.gather(*asked)
    assert servable.runs == [1, 2, 1]


async def test_a_full_queue_refuses_at_once_and_drains() -> None:
    servable = Doubling()
    queue = Queue(servable, queue=3, queue_bytes=100)
    answers = await behind(servable, queue, *[lambda: queue.y(1)] * 5, lambda: queue.y(*range(26)))
    assert answers[:3] == [[2.0]] * 3
    assert [type(answer) for answer in answers[3:]] == [UnavailableError] * 2 + [TooLargeError]
    assert await queue.y(5) == [10.0]


async def test_a_request_that_is_given_up_is_not_run_and_makes_room() -> None:
    servable = Doubling()
    queue = Queue(servable, queue=1)

    async def impatient() -> object:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.y(*range(7)), 0.002)
        return await queue.y(4)

    assert await behind(servable, queue, impatient) == [[8.0]]
    assert servable.runs == [1, 1]


async def test_the_end_waits_for_a_run_that_nobody_wants_any_more() -> None:
    servable = Doubling()
    queue = Queue(servable)
    servable.gate.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.y(1), 0.05)
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    servable.gate.set()
    await closing


class Faulty(Doubling):
    """Raises, or gives one row too many, if a row is 7."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self._raises = raises

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        answer: dict[str, Any] = dict(super().run(signature, inputs, outputs))
        given: Any = inputs["x"]
        if (given == 7).any():
            if self._raises:
                raise MemoryError("no room")
            answer["y"] = np.concatenate([answer["y"], answer["y"][:1]])
        return answer


@pytest.mark.parametrize("raises", [True, False])
async def test_a_request_that_fails_in_a_shared_run_fails_alone_and_with_the_model_s_name(
    raises: bool,
) -> None:
    servable = Faulty(raises)
    queue = Queue(servable)
    first, refused, failed, last = await behind(
        servable, queue, *(lambda n=n: queue.y(n, n) for n in (1, -1, 7, 3))
    )
    assert (first, last) == ([2.0, 2.0], [6.0, 6.0])
    assert isinstance(refused, InvalidRequestError)
    assert isinstance(failed, BackendError)
    assert "model m, version 1: " in str(failed)
    assert servable.runs == [1, 8, 2, 2, 2, 2]
    assert queue.counted == [1, 2, 2]


async def test_waiting_strings_count_with_their_bytes() -> None:
    queue = Queue(Doubling(), queue_bytes=1000)
    with pytest.raises(TooLargeError, match="at most 1000 bytes, got 1016"):
        await queue.ask({"x": np.array([b"a" * 500, b"b" * 500], object)})
