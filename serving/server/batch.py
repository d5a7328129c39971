"""Requests that run together: their inputs joined, their results taken apart."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np

from serving.server.backends.base import Servable
from serving.server.errors import BackendError, ServerError
from serving.server.run_clock import RunClock
from serving.server.signature import Tensors


def run(servable: Servable, signature: str, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
    """As `Servable.run`; whatever else a runtime raises is a `BackendError`."""
    try:
        return servable.run(signature, inputs, outputs)
    except ServerError:
        raise
    except Exception as error:
        # A fault of a runtime must reach its caller, not the loop.
        raise BackendError(f"the runtime failed: {type(error).__name__}: {error}") from error


@dataclass(eq=False, slots=True)
class Job:
    """One request. Times are in seconds."""

    signature: str
    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    batched: bool
    """Whether every input has these rows, so that others like it can share its run."""
    done: asyncio.Future[Tensors]
    queued: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    seconds: float = 0.0
    """The run's."""

    def shares(self, other: Job) -> bool:
        """Whether one run can be for both."""
        return (
            self.batched
            and other.batched
            and (self.signature, self.outputs) == (other.signature, other.outputs)
            and all(array.shape[1:] == other.inputs[name].shape[1:] for name, array in self.inputs.items())
        )


@dataclass(eq=False, slots=True)
class Batch:
    """What one run is for."""

    jobs: list[Job]
    results: list[Tensors | Exception] = field(default_factory=list)
    runs: list[tuple[int, float, float]] = field(default_factory=list)
    """Rows, seconds and own seconds of each run that succeeded."""
    alone: bool = True
    """Whether the queue waits for its end."""

    def execute(self, servable: Servable) -> None:
        """Fill in the results; in any thread."""
        jobs = self.jobs
        if len(jobs) > 1:
            self.results = self._share(servable) or [self._attempt(servable, [job]) for job in jobs]
        else:
            self.results = [self._attempt(servable, [job]) for job in jobs]

    def _share(self, servable: Servable) -> list[Tensors | Exception]:
        """The results of one run for all, or nothing where each job has to run for itself."""
        jobs = self.jobs
        answer = self._attempt(servable, jobs)
        rows = sum(job.rows for job in jobs)
        if isinstance(answer, Exception) or any(len(array) != rows for array in answer.values()):
            # One bad request must not fail its neighbours, and outputs that are no batch cannot be split.
            return []
        results: list[Tensors | Exception] = []
        start = 0
        for job in jobs:
            results.append({name: array[start : start + job.rows] for name, array in answer.items()})
            start += job.rows
        return results

    def _attempt(self, servable: Servable, jobs: list[Job]) -> Tensors | Exception:
        first = jobs[0]
        clock = RunClock()
        try:
            inputs = first.inputs
            if len(jobs) > 1:
                inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in first.inputs}
            answer = run(servable, first.signature, inputs, first.outputs)
        except ServerError as error:
            # Its traceback would hold this frame, and so the batch, which holds the error.
            return error.with_traceback(None)
        else:
            self.runs.append((sum(job.rows for job in jobs), *clock.read()))
            return answer
        finally:
            seconds = time.perf_counter() - clock.start
            for job in jobs:
                job.started, job.seconds = clock.start, seconds
