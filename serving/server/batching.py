"""Runs of one version: inline when idle, shared by what has queued while the last run lasted, never delayed.

Requests that arrive in one turn of the event loop, or during a run, wait in a bounded queue. When the runtime
is free, the head of the queue is taken together with the requests behind it that can share its run.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from serving.server.backends.base import Servable
from serving.server.errors import BackendError, ServerError, UnavailableError
from serving.server.signature import Tensors

INLINE_SECONDS = 0.005
"""A single run expected to be shorter than this blocks the event loop for less than a thread would cost."""

Key = tuple[object, ...]


@dataclass(eq=False)
class _Job:
    signature: str
    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    key: Key | None
    """Jobs of equal keys can share a run; None can share with nobody."""
    done: asyncio.Future[Tensors]
    queued: float = field(default_factory=time.perf_counter)


class Batcher:
    """The queue of one servable. Its methods belong to the event loop; runs may happen in `threads`."""

    def __init__(
        self,
        servable: Servable,
        threads: Executor,
        max_rows: int,
        max_queue: int,
        observe: Callable[[int, float], None],
        row_seconds: float,
    ) -> None:
        self._servable = servable
        self._threads = threads
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._observe = observe
        self._queue: deque[_Job] = deque()
        self._running = False
        self._scheduled = False
        self._row_seconds = row_seconds

    async def run(self, signature: str, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        """Compute `outputs`. Raises `UnavailableError` where the queue is full."""
        if len(self._queue) >= self._max_queue:
            raise UnavailableError(
                f"{self._max_queue} requests are already waiting for this model; try again"
            )
        loop = asyncio.get_running_loop()
        batched = self._servable.signatures[signature].batched
        rows = min((len(array) for array in inputs.values()), default=1) if batched else 1
        job = _Job(signature, inputs, outputs, rows, None, loop.create_future())
        if batched and all(len(array) == rows for array in inputs.values()):
            job.key = (
                signature,
                outputs,
                *((name, array.shape[1:]) for name, array in sorted(inputs.items())),
            )
        self._queue.append(job)
        self._schedule()
        return await job.done

    def _schedule(self) -> None:
        # One turn of the loop later, so that requests read in the same turn share a run.
        if not self._running and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        batch = self._take()
        if not batch:
            return
        rows = sum(job.rows for job in batch)
        self._running = True
        if len(batch) == 1 and not self._queue and rows * self._row_seconds < INLINE_SECONDS:
            self._finish(batch, self._execute(batch))
            return
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._execute, batch)
        running.add_done_callback(lambda future: self._finish(batch, _results(batch, future)))

    def _take(self) -> list[_Job]:
        batch: list[_Job] = []
        rows = 0
        while self._queue:
            job = self._queue[0]
            if job.done.done():  # The client has gone, or its deadline has passed.
                self._queue.popleft()
                continue
            if batch and (job.key is None or job.key != batch[0].key or rows + job.rows > self._max_rows):
                break
            batch.append(self._queue.popleft())
            rows += job.rows
        return batch

    def _finish(self, batch: list[_Job], results: list[Tensors | Exception]) -> None:
        for job, result in zip(batch, results, strict=True):
            if job.done.done():
                continue
            if isinstance(result, Exception):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)
        self._running = False
        if self._queue:
            self._schedule()

    def _execute(self, batch: list[_Job]) -> list[Tensors | Exception]:
        if len(batch) == 1:
            return [self._attempt(batch[0].signature, batch[0].inputs, batch[0].outputs, batch[0].rows)]
        first = batch[0]
        rows = sum(job.rows for job in batch)
        together = {name: np.concatenate([job.inputs[name] for job in batch]) for name in first.inputs}
        answer = self._attempt(first.signature, together, first.outputs, rows)
        if isinstance(answer, Exception) or any(len(array) != rows for array in answer.values()):
            # One bad request must not fail its neighbours, and outputs that are no batch cannot be split.
            return [self._attempt(job.signature, job.inputs, job.outputs, job.rows) for job in batch]
        results: list[Tensors | Exception] = []
        start = 0
        for job in batch:
            results.append({name: array[start : start + job.rows] for name, array in answer.items()})
            start += job.rows
        return results

    def _attempt(
        self, signature: str, inputs: Tensors, outputs: tuple[str, ...], rows: int
    ) -> Tensors | Exception:
        start = time.perf_counter()
        try:
            answer = self._servable.run(signature, inputs, outputs)
        except ServerError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a fault of a runtime must reach its caller, not the loop
            return BackendError(f"the runtime failed: {type(error).__name__}: {error}")
        seconds = time.perf_counter() - start
        self._row_seconds += 0.2 * (seconds / max(rows, 1) - self._row_seconds)
        self._observe(rows, seconds)
        return answer


def _results(
    batch: list[_Job], future: asyncio.Future[list[Tensors | Exception]]
) -> list[Tensors | Exception]:
    error = future.exception()
    if error is None:
        return future.result()
    return [BackendError(f"the run of a batch failed: {type(error).__name__}: {error}")] * len(batch)
