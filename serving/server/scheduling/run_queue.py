"""The queue of one signature of one version, and the thread in which it runs.

A request joins the queue. When the thread is free, it takes what has queued up to then, as far as requests can share
a run and the limits allow, and runs it once. Nothing waits to be joined by others. The event loop never runs a model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from serving.server.backends.base import Servable
from serving.server.errors import TooLargeError, UnavailableError
from serving.server.records import RequestRecord
from serving.server.scheduling.batch import Job, Run, Runner
from serving.server.tensors.signature import Tensors


@dataclass(frozen=True)
class QueueLimits:
    """What a run and a queue may hold."""

    batch_rows: int = 64
    batch_bytes: int = 64 << 20
    queue: int = 512
    """Requests that wait."""
    queue_bytes: int = 512 << 20
    """Bytes of their inputs."""


class RunQueue:
    """All but the runs themselves happens in the event loop."""

    def __init__(
        self,
        servable: Servable,
        signature: str,
        name: str,
        *,
        batched: bool,
        limits: QueueLimits,
        count: Callable[[Run], None],
    ) -> None:
        """`batched`: whether requests may share runs; `count` hears of every run that succeeded."""
        self._runner = Runner(servable, signature, name)
        self._batched = batched
        self._limits = limits
        self._count = count
        self._waiting: deque[Job] = deque()
        self._bytes = 0
        self._running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-run")

    @property
    def waiting(self) -> int:
        """Requests in the queue whose clients still want an answer."""
        return sum(not job.answer.done() for job in self._waiting)

    async def run(self, inputs: Tensors, outputs: tuple[str, ...], record: RequestRecord) -> Tensors:
        """Compute `outputs`. Raises `UnavailableError` where the queue is full, and what the run raises."""
        size = sum(array.nbytes for array in inputs.values())
        if size > self._limits.queue_bytes:
            raise TooLargeError(f"expected inputs of at most {self._limits.queue_bytes} bytes, got {size}")
        if self._is_full(size):
            self._forget_cancelled()
        if self._is_full(size):
            full = f"{len(self._waiting)} requests with {self._bytes} bytes"
            raise UnavailableError(f"{full} already wait for this model; try again")
        lengths = {array.shape[0] if array.ndim else None for array in inputs.values()}
        rows = lengths.pop() if len(lengths) == 1 else None
        shares = self._batched and rows is not None
        loop = asyncio.get_running_loop()
        job = Job(inputs, outputs, 1 if rows is None else rows, shares, loop.create_future(), size)
        self._waiting.append(job)
        self._bytes += size
        if not self._running:
            self._running = True
            # One turn of the loop later, so that requests that were read in the same turn share a run.
            loop.call_soon(self._next)
        try:
            return await job.answer
        finally:
            if job.started:
                record.rows += job.rows
                record.queue_seconds += job.started - job.queued
                record.run_seconds += job.ended - job.started
            # Else an error would hold, through its traceback and this frame, the job that holds the error.
            del job

    def _is_full(self, size: int) -> bool:
        return len(self._waiting) >= self._limits.queue or self._bytes + size > self._limits.queue_bytes

    async def close(self) -> None:
        """Wait for the run that goes on, even where nobody wants its answer any more, and end the thread."""
        await asyncio.wrap_future(self._thread.submit(lambda: None))
        self._thread.shutdown(wait=False)

    def _next(self) -> None:
        """Hand the thread its next batch."""
        batch = self._take()
        self._running = bool(batch)
        if batch:
            self._thread.submit(self._work, asyncio.get_running_loop(), batch)

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[Job]) -> None:
        runs = self._runner.execute(batch)
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(self._finish, batch, runs)

    def _finish(self, batch: list[Job], runs: list[Run]) -> None:
        for run in runs:
            self._count(run)
        for job in batch:
            if job.answer.done():
                continue
            if isinstance(job.result, Exception):
                job.answer.set_exception(job.result)
            elif job.result is not None:
                job.answer.set_result(job.result)
        self._next()

    def _take(self) -> list[Job]:
        """The first request that still waits, and those right behind it that can share its run."""
        self._forget_cancelled()
        batch: list[Job] = []
        rows = size = 0
        while self._waiting:
            job = self._waiting[0]
            too_much = rows + job.rows > self._limits.batch_rows or size + job.size > self._limits.batch_bytes
            if batch and (too_much or not job.fits(batch[0])):
                break
            batch.append(self._waiting.popleft())
            rows += job.rows
            size += job.size
        self._bytes -= size
        return batch

    def _forget_cancelled(self) -> None:
        """Drop those whose client has gone or whose deadline has passed."""
        if any(job.answer.done() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.answer.done())
            self._bytes = sum(job.size for job in self._waiting)
