"""Runs of one signature: at once for a client that is alone, else shared by what has queued while the last lasted.

Nothing waits for company: requests that arrive in one turn of the event loop, or during a run, wait in a bounded
queue. When it is the queue's turn, its head is taken together with the requests behind it that can share its run.

Who comes next in a turn of the loop is not known before this one is answered. So a client counts as alone while
nothing is queued or runs, and the queue has held single requests for some turns; and so that company is noticed,
runs are made at once only up to `LOOK_SECONDS` in all before one passes through the queue again. This also bounds
how long requests of one turn hold up the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from serving.server import batch as batches
from serving.server import exchange
from serving.server.backends.base import Servable
from serving.server.batch import Batch, Job
from serving.server.errors import BackendError, UnavailableError
from serving.server.metrics import ModelMetrics
from serving.server.run_clock import RunClock
from serving.server.run_costs import RunCosts
from serving.server.run_threads import SLOW_SECONDS, RunThreads
from serving.server.signature import Tensors
from serving.server.statistics import Statistics

LONG_SECONDS = 0.02
"""From here on nobody waits for the end of a run that need not."""
LOOK_SECONDS = 0.005
"""Of runs at once, after which a request passes through the queue to see whether others come with it."""
SINGLES = 8
"""Turns of a single request each after which its client counts as alone."""


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
        self._singles = SINGLES
        """Turns since the last one that had several requests."""
        self._alone = True
        """Whether a request may run at once: nothing is queued or runs, and nothing was of late."""
        self._held = 0.0
        """Seconds of runs at once since a request passed through the queue."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def run(self, signature: str, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        """Compute `outputs`. Raises `UnavailableError` where the queue is full."""
        batched = self._servable.signatures[signature].batched
        lengths = set(map(len, inputs.values())) if batched else {1}
        rows = min(lengths, default=1)
        if self._alone and self._held < LOOK_SECONDS and self._costs.short(rows):
            return self._run_here(signature, inputs, outputs, rows)
        if len(self._queue) >= self._max_queue:
            self._forget_given_up()
        if len(self._queue) >= self._max_queue:
            raise UnavailableError(
                f"{self._max_queue} requests are already waiting for this model; try again",
                self._seconds_to_empty(),
            )
        shares = batched and len(lengths) == 1
        job = Job(signature, inputs, outputs, rows, shares, asyncio.get_running_loop().create_future())
        self._alone = False
        self._queue.append(job)
        self._schedule()
        try:
            return await job.done
        finally:
            if job.started:
                self._account(job.rows, job.started - job.queued, job.seconds)
            # Else an error would hold, through its traceback and this frame, the job that holds the error.
            del job

    def _run_here(self, signature: str, inputs: Tensors, outputs: tuple[str, ...], rows: int) -> Tensors:
        answer: Tensors | None = None
        clock = RunClock()
        try:
            answer = batches.run(self._servable, signature, inputs, outputs)
            return answer
        finally:
            seconds, own = clock.read()
            if answer is None:
                self._costs.doubt(rows, own)
            else:
                self._note(rows, seconds, own)
            self._held += seconds
            self._account(rows, 0.0, seconds)

    def _account(self, rows: int, queued: float, seconds: float) -> None:
        self._metrics.queue_seconds(queued)
        self._statistics.wait(queued, seconds)
        seen = exchange.current.get()
        if seen is not None:
            seen.rows += rows
            seen.queue += queued
            seen.compute += seconds

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
        self._held = 0.0
        rows = self._rows_to_share()
        if len(self._queue) == 1:
            self._singles += 1
            if self._costs.short(rows):
                batch = Batch([self._queue.popleft()])
                batch.execute(self._servable)
                self._finish(batch)
                return
        else:
            self._singles = 0
        slow = self._costs.expected(rows) >= SLOW_SECONDS
        self._threads.ask(slow, lambda: self._begin(slow))

    def _begin(self, slow: bool) -> None:
        """Run in a thread what has queued until now."""
        batch = Batch(self._take())

        def overdue() -> None:
            nonlocal slow
            slow = slow or self._threads.overdue()
            self._costs.doubt(sum(job.rows for job in batch.jobs), LONG_SECONDS)
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

    def _seconds_to_empty(self) -> float:
        """Until what waits now has run; but by when this request's time would be up, that of all those is."""
        seconds = self._costs.expected(sum(job.rows for job in self._queue))
        due = exchange.deadline.get()
        return seconds if due is None else min(seconds, due[0] - time.monotonic())

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
        for run in batch.runs:
            self._note(*run)
        for job, result in zip(batch.jobs, batch.results, strict=True):
            if job.done.done():
                continue
            if isinstance(result, Exception):
                self._costs.doubt(job.rows, job.seconds)
                job.done.set_exception(result)
            else:
                job.done.set_result(result)
        if batch.alone:
            self._go_on()

    def _note(self, rows: int, seconds: float, own: float) -> None:
        """Count a run that has succeeded."""
        self._costs.add(rows, own)
        self._statistics.run(rows, seconds)
        self._metrics.run(rows, seconds)

    def _go_on(self) -> None:
        self._busy = False
        if self._queue:
            self._schedule()
        else:
            self._alone = self._singles >= SINGLES
