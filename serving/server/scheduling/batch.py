"""Requests that share a run: their inputs joined, their outputs split."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np

from serving.server.backends.base import Servable, shapes
from serving.server.errors import BackendError, ServerError
from serving.server.tensors.signature import Tensors


@dataclass(eq=False, slots=True)
class Job:
    """One request that waits for its run."""

    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    shares: bool
    """True if it may run with others: the version is batched, and every input has these rows."""
    answer: asyncio.Future[Tensors]
    size: int
    """Bytes of its inputs."""
    queued: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    ended: float = 0.0
    result: Tensors | Exception | None = None

    def fits(self, other: Job) -> bool:
        """Return True if one run can answer both."""
        return (
            self.shares
            and other.shares
            and (self.outputs, self.inputs.keys()) == (other.outputs, other.inputs.keys())
            and all(array.shape[1:] == other.inputs[name].shape[1:] for name, array in self.inputs.items())
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the model that succeeded."""

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs one signature of a servable."""

    servable: Servable
    signature: str
    name: str
    """What messages call the servable: "model fashion, version 3"."""

    def execute(self, jobs: list[Job]) -> list[Run]:
        """Set every job's result; return the runs that succeeded.

        Where the shared run fails, each job runs alone: one bad request never fails its neighbours.
        """
        if len(jobs) > 1:
            run, answer = self._attempt(jobs)
            if not isinstance(answer, Exception):
                start = 0
                for job in jobs:
                    job.result = {name: array[start : start + job.rows] for name, array in answer.items()}
                    start += job.rows
                return [run]
        runs = []
        for job in jobs:
            run, job.result = self._attempt([job])
            if not isinstance(job.result, Exception):
                runs.append(run)
        return runs

    def _attempt(self, jobs: list[Job]) -> tuple[Run, Tensors | Exception]:
        """One run for all of `jobs`. Where they may share it, every output must have their rows."""
        rows = sum(job.rows for job in jobs)
        started = time.perf_counter()
        answer: Tensors | Exception
        try:
            answer = self.servable.run(self.signature, _joined(jobs), jobs[0].outputs)
            wrong = {n: a for n, a in answer.items() if jobs[0].shares and a.shape[:1] != (rows,)}
            if wrong:
                expected = f"expected {rows} rows in each output for {rows} rows of input"
                answer = BackendError(f"{self.name}: {expected}, got {shapes(wrong)}")
        except ServerError as error:
            # Its traceback would hold this frame, and so the jobs, which hold the error.
            answer = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises reaches the caller, not the thread
            answer = BackendError(f"{self.name}: the runtime failed: {type(error).__name__}: {error}")
        ended = time.perf_counter()
        for job in jobs:
            job.started, job.ended = started, ended
        return Run(rows, ended - started), answer


def _joined(jobs: list[Job]) -> Tensors:
    if len(jobs) == 1:
        return jobs[0].inputs
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
