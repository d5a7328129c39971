"""Runs of one signature: inline when idle and sure to be short, else shared by what has queued while the last lasted.

Nothing waits for company: requests that arrive in one turn of the event loop, or during a run, wait in a bounded
queue. When it is the queue's turn, its head is taken together with the requests behind it that can share its run.
"""

from __future__ import annotations

import asyncio
from collections import deque

from serving.server import exchange
from serving.server.backends.base import Servable
from serving.server.batch import Batch, Job
from serving.server.errors import BackendError, UnavailableError
from serving.server.metrics import ModelMetrics
from serving.server.run_costs import SHORT_SECONDS, RunCosts
from serving.server.run_threads import SLOW_SECONDS, RunThreads
from serving.server.signature import Tensors
from serving.server.statistics import Statistics

LONG_SECONDS = 0.02
"""From here on nobody waits for the end of a run that need not."""


class RunQueue:
    """Requests that wait. The methods belong to the event loop; runs may happen in `threads`."""

    def __init__(
        self,
        servable: Servable,
        threads: RunThreads,
        max_rows: int,
        max_queue: int,
        metrics: ModelMetrics,
        statistics: Statistics,
        row_seconds: float,
    ) -> None:
        self._statistics = statistics
        self._servable = servable
        self._threads = threads
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._metrics = metrics
        self._costs = RunCosts(row_seconds)
        self._queue: deque[Job] = deque()
        self._busy = False
        """Whether a turn is asked for, or a run goes on."""
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def run(self, signature: str, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        """Compute `outputs`. Raises `UnavailableError` where the queue is full."""
        if len(self._queue) >= self._max_queue:
            self._forget_given_up()
        if len(self._queue) >= self._max_queue:
            raise UnavailableError(
                f"{self._max_queue} requests are already waiting for this model; try again"
            )
        batched = self._servable.signatures[signature].batched
        lengths = {len(array) for array in inputs.values()} if batched else {1}
        job = Job(
            signature,
            inputs,
            outputs,
            min(lengths, default=1),
            batched and len(lengths) == 1,
            asyncio.get_running_loop().create_future(),
        )
        self._queue.append(job)
        self._schedule()
        try:
            return await job.done
        finally:
            if job.started:
                self._account(job)
            # Else an error would hold, through its traceback and this frame, the job that holds the error.
            del job

    def _account(self, job: Job) -> None:
        queued = job.started - job.queued
        self._metrics.queue_seconds(queued)
        self._statistics.queue.add(queued)
        self._statistics.compute.add(job.seconds)
        seen = exchange.current.get()
        if seen is not None:
            seen.rows += job.rows
            seen.queue += queued
            seen.compute += job.seconds

    def _schedule(self) -> None:
        # One turn of the loop later, so that requests read in the same turn share a run.
        if not self._busy and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        self._forget_given_up()
        if not self._queue:
            return
        self._busy = True
        if len(self._queue) == 1 and self._costs.short(self._queue[0].rows):
            batch = Batch([self._queue.popleft()])
            batch.execute(self._servable)
            self._finish(batch)
            return
        slow = self._costs.expected(self._rows_to_share()) >= SLOW_SECONDS
        self._threads.ask(slow, lambda: self._begin(slow))

    def _begin(self, slow: bool) -> None:
        """Run in a thread what has queued until now."""
        batch = Batch(self._take())

        def overdue() -> None:
            nonlocal slow
            slow = slow or self._threads.overdue()
            self._costs.doubt(sum(job.rows for job in batch.jobs))
            if self._servable.concurrent:
                batch.alone = False
                self._go_on()

        def finish(running: asyncio.Future[None]) -> None:
            timer.cancel()
            error = running.exception()
            if error is not None:
                fault = BackendError(f"the run of a batch failed: {type(error).__name__}: {error}")
                batch.results = [fault] * len(batch.jobs)
            self._threads.leave(slow)
            self._finish(batch)

        loop = asyncio.get_running_loop()
        timer = loop.call_later(LONG_SECONDS, overdue)
        loop.run_in_executor(self._threads, batch.execute, self._servable).add_done_callback(finish)

    def _forget_given_up(self) -> None:
        """Drop those from the queue whose client has gone, or whose deadline has passed."""
        if any(job.done.done() for job in self._queue):
            waiting = [job for job in self._queue if not job.done.done()]
            self._queue.clear()
            self._queue.extend(waiting)

    def _rows_to_share(self) -> int:
        return self._costs.limit(sum(job.rows for job in self._queue), self._max_rows)

    def _take(self) -> list[Job]:
        self._forget_given_up()
        batch: list[Job] = []
        rows, limit = 0, self._rows_to_share()
        while self._queue:
            job = self._queue[0]
            if batch and (rows + job.rows > limit or not job.shares(batch[0])):
                break
            batch.append(self._queue.popleft())
            rows += job.rows
        return batch

    def _finish(self, batch: Batch) -> None:
        for rows, seconds in batch.runs:
            self._costs.add(rows, seconds)
            self._statistics.run(rows, seconds)
            self._metrics.run(rows, seconds)
        for job, result in zip(batch.jobs, batch.results, strict=True):
            if job.done.done():
                continue
            if isinstance(result, Exception):
                if job.seconds >= SHORT_SECONDS:
                    self._costs.doubt(job.rows)
                job.done.set_exception(result)
            else:
                job.done.set_result(result)
        if batch.alone:
            self._go_on()

    def _go_on(self) -> None:
        self._busy = False
        if self._queue:
            self._schedule()
