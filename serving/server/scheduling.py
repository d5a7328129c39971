"""The queue of one signature of a version, and its thread.

A free thread takes the requests that have queued, as far as they can share a run within the limits, and runs them at
once: no request waits for others to join. The event loop never runs a model.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from serving.server.backends.base import Servable
from serving.server.errors import BackendError, ServerError, TooLargeError, UnavailableError
from serving.server.metrics import RequestRecord
from serving.server.tensors.signature import Tensors, shapes, size_of


@dataclass(frozen=True)
class QueueLimits:
    """The limits of a run and of a queue."""

    batch_rows: int = 64
    batch_bytes: int = 64 << 20
    queue: int = 512
    """Waiting requests."""
    queue_bytes: int = 512 << 20
    """Bytes of the inputs of waiting requests."""


@dataclass(eq=False, slots=True)
class Job:
    """A request and its result."""

    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    shares: bool
    """True if it may share a run: the version is batched, and every input has `rows` rows."""
    answer: asyncio.Future[Tensors]
    size: int
    """Bytes of its inputs."""
    queued: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    ended: float = 0.0
    result: Tensors | Exception | None = None

    def fits(self, other: Job) -> bool:
        """Return True if both can share a run."""
        return (
            self.shares
            and other.shares
            and (self.outputs, self.inputs.keys()) == (other.outputs, other.inputs.keys())
            and all(array.shape[1:] == other.inputs[name].shape[1:] for name, array in self.inputs.items())
        )


class RunQueue:
    """The queue. Everything but the runs happens in the event loop."""

    def __init__(
        self,
        servable: Servable,
        signature: str,
        name: str,
        *,
        batched: bool,
        limits: QueueLimits,
        count: Callable[[int, float], None],
    ) -> None:
        """`name` is the servable's in messages, such as "model fashion, version 3".

        `batched`: True if requests may share runs. `count` is called with rows and seconds of successful runs.
        """
        self._servable = servable
        self._signature = signature
        self._name = name
        self._batched = batched
        self._limits = limits
        self._count = count
        self._waiting: deque[Job] = deque()
        self._bytes = 0
        self._running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-run")

    @property
    def waiting(self) -> int:
        """The number of waiting requests, without cancelled ones."""
        return sum(not job.answer.done() for job in self._waiting)

    async def run(self, inputs: Tensors, outputs: tuple[str, ...], record: RequestRecord) -> Tensors:
        """Compute `outputs`. Raises `UnavailableError` if the queue is full, and as the run does."""
        size = size_of(inputs)
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
            # Deferred by one turn of the loop, so that requests read in the same turn share a run.
            loop.call_soon(self._next)
        try:
            return await job.answer
        finally:
            if job.started:
                record.rows += job.rows
                record.queue_seconds += job.started - job.queued
                record.run_seconds += job.ended - job.started
            # Breaks the cycle of error, traceback, frame, job and error.
            del job

    async def close(self) -> None:
        """Wait for the current run, also if it was cancelled, and end the thread."""
        await asyncio.wrap_future(self._thread.submit(lambda: None))
        self._thread.shutdown(wait=False)

    def _is_full(self, size: int) -> bool:
        return len(self._waiting) >= self._limits.queue or self._bytes + size > self._limits.queue_bytes

    def _forget_cancelled(self) -> None:
        """Drop requests that were cancelled or are past their deadline."""
        if any(job.answer.done() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.answer.done())
            self._bytes = sum(job.size for job in self._waiting)

    def _next(self) -> None:
        """Submit the next batch to the thread."""
        batch = self._take()
        self._running = bool(batch)
        if batch:
            self._thread.submit(self._work, asyncio.get_running_loop(), batch)

    def _take(self) -> list[Job]:
        """Take the first waiting request, and those right behind it that can share its run."""
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

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[Job]) -> None:
        """Run a batch, in the thread. If a shared run fails, each job runs alone: one bad request fails alone."""
        with suppress(RuntimeError):  # The loop is closed.
            if not self._run(loop, batch) and len(batch) > 1:
                for job in batch:
                    self._run(loop, [job])
            loop.call_soon_threadsafe(self._finish, batch)

    def _run(self, loop: asyncio.AbstractEventLoop, jobs: list[Job]) -> bool:
        """Run `jobs` at once and set their results; return True if it succeeds.

        If they may share runs, every output must have their rows.
        """
        rows = sum(job.rows for job in jobs)
        results: Sequence[Tensors | Exception]
        started = time.perf_counter()
        try:
            outputs = self._servable.run(self._signature, _joined(jobs), jobs[0].outputs)
            wrong = {n: a for n, a in outputs.items() if jobs[0].shares and a.shape[:1] != (rows,)}
            if wrong:
                expected = f"expected {rows} rows in each output for {rows} rows of input"
                raise BackendError(f"{self._name}: {expected}, got {shapes(wrong)}")
            results = _parted(outputs, jobs)
        except ServerError as error:
            # Its traceback would hold this frame and the jobs.
            results = [error.with_traceback(None)] * len(jobs)
        except Exception as error:  # noqa: BLE001 - any error of a runtime belongs to the caller
            told = f"the runtime failed: {type(error).__name__}: {error}"
            results = [BackendError(f"{self._name}: {told}")] * len(jobs)
        ended = time.perf_counter()
        for job, result in zip(jobs, results, strict=True):
            job.started, job.ended, job.result = started, ended, result
        succeeded = not isinstance(results[0], Exception)
        if succeeded:
            loop.call_soon_threadsafe(self._count, rows, ended - started)
        return succeeded

    def _finish(self, batch: list[Job]) -> None:
        for job in batch:
            if job.answer.done():
                continue
            if isinstance(job.result, Exception):
                job.answer.set_exception(job.result)
            elif job.result is not None:
                job.answer.set_result(job.result)
        self._next()


def _joined(jobs: list[Job]) -> Tensors:
    if len(jobs) == 1:
        return jobs[0].inputs
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}


def _parted(outputs: Tensors, jobs: list[Job]) -> list[Tensors]:
    if len(jobs) == 1:
        return [outputs]
    ends = list(accumulate(job.rows for job in jobs))
    rows = [slice(end - job.rows, end) for job, end in zip(jobs, ends, strict=True)]
    return [{name: array[part] for name, array in outputs.items()} for part in rows]
