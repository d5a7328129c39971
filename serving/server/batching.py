"""Runs of one version: each signature has a queue of its own, so that a slow one holds up no other."""

from __future__ import annotations

from collections.abc import Awaitable

from serving.server.backends.base import Servable
from serving.server.metrics import ModelMetrics
from serving.server.run_queue import RunQueue
from serving.server.run_threads import RunThreads
from serving.server.signature import Tensors
from serving.server.statistics import Statistics


class Batcher:
    """The queues of one servable, each of at most `max_queue` requests; one for all where only one run may go on."""

    def __init__(
        self,
        servable: Servable,
        threads: RunThreads,
        max_rows: int,
        max_queue: int,
        metrics: ModelMetrics,
        row_seconds: float,
    ) -> None:
        self.statistics = Statistics()
        signatures = servable.signatures
        if len(signatures) > 1:
            row_seconds = 0.0  # Which of them it was measured on says nothing about the others.

        def queue() -> RunQueue:
            return RunQueue(servable, threads, max_rows, max_queue, metrics, self.statistics, row_seconds)

        shared = queue()
        self._queues = {key: queue() if servable.concurrent else shared for key in signatures}
        metrics.batchers.add(self)

    @property
    def waiting(self) -> int:
        """Requests in the queues."""
        return sum(queue.waiting for queue in set(self._queues.values()))

    def run(self, signature: str, inputs: Tensors, outputs: tuple[str, ...]) -> Awaitable[Tensors]:
        """Compute `outputs`. Raises `UnavailableError` where the queue is full."""
        return self._queues[signature].run(signature, inputs, outputs)
