"""Measures every row in turns, by generators in processes of their own: answers, latency, rates, batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compare import generator, load, local
from serving.compare.generator import GeneratorError, Job, Result
from serving.compare.report import FAILED, IN_PROCESS, NULL, Figure, Point, Row
from serving.compare.sender import Generator
from serving.progress import Wait
from serving.settings import Settings

Say = Callable[[str], None]

SHARES = (0.5, 0.75, 0.9)
"""Of the most that an endpoint answers: the rates that are offered."""
BISECTIONS = 2
EXPECTED_MS = {local.NOTHING: 0.002, local.IN_PROCESS: 0.1}
"""What a first request takes, where that is far from a millisecond: LoadGen makes requests up by it."""
ANSWER_SECONDS = 100.0
"""A quarter of what the answers for all samples may take."""


@dataclass(frozen=True)
class Plan:
    """How long to measure, and what to ask of an endpoint."""

    seconds: float = 0.8
    """Of one reading."""
    rounds: int = 3
    target_ms: float = 20.0
    """The time within which 99 % of the answers must come."""
    connections: int = 8
    batches: tuple[int, ...] = (1, 8, 64)


@dataclass
class Subject:
    """A row and how its server is reached."""

    row: Row
    pid: int = 0
    memory: Callable[[], int | None] = lambda: None
    settings: Settings | None = None
    """Of its server, where they are others than the comparison's."""
    target: str = ""
    """What the generator connects to; "" is the row's target."""
    signature: dict[str, Any] = field(default_factory=dict)
    """Where the server does not tell it."""

    @property
    def has_model(self) -> bool:
        """Return False where there is nothing to ask but how long it takes."""
        return self.row.kind != NULL

    @property
    def takes_load(self) -> bool:
        """Return False where one caller waits for each answer: in a browser, and in a process of its own."""
        return self.row.kind not in (NULL, IN_PROCESS) and self.row.target != "tfjs"


class Measuring:
    """One comparison's readings; each method fills in figures of all rows that still work."""

    def __init__(
        self,
        settings: Settings,
        subjects: Sequence[Subject],
        samples: Path,
        plan: Plan,
        say: Say,
        wait: Wait | None = None,
    ) -> None:
        """`samples`: an .npz of inputs by name, of at least as many rows as the largest batch; `wait` is told how far
        it is."""
        self._settings = settings
        self._subjects = subjects
        self._samples = samples
        self._plan = plan
        self._say = say
        self._wait = wait
        self._seconds = 0.0
        self._generators: dict[str, Generator] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def answers(self) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Every row's outputs for all samples, by the row's name."""
        found = {}
        file = self._samples.with_name("answers.npz")
        for subject in self._working():
            subject.row.memory_idle = subject.memory()
            if not subject.row.is_way:
                continue
            self._say(f"{subject.row.name}: answers")
            # In large requests: that company changes no answer is the gates' part.
            size = max(self._plan.batches)
            what = {
                "scenario": generator.ANSWERS,
                "answers": str(file),
                "rows": size,
                "seconds": ANSWER_SECONDS,
            }
            done = self._run(subject, **what)
            if done is not None:
                with np.load(file) as stored:
                    found[subject.row.name] = {name: stored[name] for name in stored.files}
        return found

    def latencies(self) -> None:
        """One request at a time, in turns: percentiles and CPU time."""
        results: dict[str, list[Result]] = {subject.row.name: [] for subject in self._subjects}
        for number in range(self._plan.rounds):
            self._say(f"one request at a time, round {number + 1} of {self._plan.rounds}")
            for subject in self._working():
                if not subject.row.is_way and 0 < number < self._plan.rounds - 1:
                    continue  # The first round and the last tell what is only subtracted.
                before = results[subject.row.name]
                expected = _median(before[-1]) if before else EXPECTED_MS.get(subject.row.protocol, 1.0)
                result = self._run(subject, scenario=load.SINGLE, expected_ms=expected)
                if result is not None and result.reading is not None and result.reading.latencies:
                    before.append(result)
        for subject in self._working():
            _tell_latency(subject.row, results[subject.row.name])

    def rates(self) -> None:
        """Requests at random times: the curve up to saturation, and the highest rate that is kept up."""
        for subject in self._working():
            if not subject.takes_load:
                continue
            most = self._capacity(subject, 1, self._plan.connections, self._plan.seconds)
            if most is None:
                continue
            self._say(f"{subject.row.name}: rates up to {most:.0f} a second")
            for share in SHARES:
                self._offer(subject, share * most)
            while self._stalled(subject, most):
                pass
            for _ in range(BISECTIONS):
                good, bad = _between(subject.row.sweep, most)
                self._offer(subject, (good + bad) / 2)
            good, bad = _between(subject.row.sweep, most)
            reason = "" if good else f"p99 is above {self._plan.target_ms:g} ms at every rate that was tried"
            subject.row.goodput = Figure(good, (bad - good) / 2 if good else 0.0, reason)
            subject.row.sweep.sort(key=lambda point: point.offered)
            subject.row.memory_loaded = subject.memory()

    def batches(self) -> None:
        """Rows a second by the size of a request, one request after the other."""
        for subject in self._working():
            if not subject.has_model:
                continue
            self._say(f"{subject.row.name}: requests of {', '.join(map(str, self._plan.batches))} rows")
            for size in self._plan.batches:
                rate = self._capacity(subject, size, 1, self._plan.seconds / 2)
                if rate is not None:
                    subject.row.batches[str(size)] = rate * size

    def _capacity(self, subject: Subject, rows: int, connections: int, longer: float) -> float | None:
        """Requests a second at most: a short reading tells how many a longer one needs."""
        rate = 20.0
        for seconds in (self._plan.seconds / 4, longer):
            what = {"seconds": seconds, "rate": rate, "rows": rows, "connections": connections}
            result = self._run(subject, scenario=load.OFFLINE, **what)
            if result is None or result.reading is None or not result.reading.rate:
                return None
            rate = result.reading.rate
        return rate

    def _offer(self, subject: Subject, rate: float) -> None:
        target = self._plan.target_ms
        what = {"rate": rate, "target_ms": target, "connections": self._plan.connections}
        result = self._run(subject, scenario=load.POISSON, **what)
        if result is None or result.reading is None or not result.reading.latencies:
            return
        reading = result.reading
        p50, p99 = (float(np.percentile(reading.latencies, percent)) for percent in (50, 99))
        kept = p99 <= target and not reading.failures
        reason = "" if kept else reading.fault or f"p99 was {p99:.0f} ms"
        subject.row.sweep.append(Point(rate, reading.rate, p50, p99, reason, result.cpu_us))

    def _stalled(self, subject: Subject, most: float) -> bool:
        """Offer the lowest rate that failed once more; returns True where it is kept up now: it was the machine that
        stalled, not the endpoint."""
        sweep = subject.row.sweep
        _, bad = _between(sweep, most)
        failed = next((point for point in sweep if point.offered == bad), None)
        if failed is None:
            return False
        before = len(sweep)
        self._offer(subject, bad)
        kept = len(sweep) > before and not sweep[-1].reason
        if len(sweep) > before:
            sweep.remove(failed if kept else sweep[-1])
        return kept

    def _generator(self, subject: Subject) -> Generator:
        """One for all endpoints; one of its own for what stays open in it, a model or a browser."""
        key = subject.row.name if subject.row.protocol in generator.KEPT else ""
        if key not in self._generators or not self._generators[key].is_alive:
            self._generators[key] = Generator(self._settings)
            self._stack.callback(self._generators[key].close)
        return self._generators[key]

    def _expected_seconds(self) -> float:
        """About what all readings take, for the progress."""
        plan, found = self._plan, 0.0
        for subject in self._working():
            readings = float(plan.rounds)
            readings += subject.takes_load * (1.25 + len(SHARES) + BISECTIONS)
            readings += subject.has_model * 0.75 * len(plan.batches)
            found += readings * (plan.seconds + 0.5) + 5 * subject.row.is_way
        return found

    def _working(self) -> list[Subject]:
        return [subject for subject in self._subjects if subject.row.works]

    def _run(self, subject: Subject, **what: object) -> Result | None:
        """A generator's result; None where the row fails, which it then says."""
        row = subject.row
        if not row.works:
            return None
        own = {} if subject.settings is None else vars(subject.settings)
        changed = {name: value for name, value in own.items() if value != getattr(self._settings, name)}
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in changed.items()}
        fields: dict[str, Any] = {"seconds": self._plan.seconds, "pid": subject.pid, **what}
        job = Job(
            subject.target or row.target,
            row.protocol,
            str(self._samples),
            signature=subject.signature,
            settings=settings,
            **fields,
        )
        if self._wait is not None:
            self._wait.advance(row.name, self._seconds, self._expected_seconds())
        started = time.monotonic()
        try:
            result = self._generator(subject).do(job)
        except GeneratorError as error:
            row.state, row.reason = FAILED, str(error)
            self._say(f"{row.name}: {error}")
            return None
        finally:
            self._seconds += time.monotonic() - started + 0.5
        if result.reading is not None:
            for words, count in result.reading.failures.items():
                row.failures[words] = row.failures.get(words, 0) + count
        return result


def _between(sweep: Sequence[Point], most: float) -> tuple[float, float]:
    """The highest rate that was kept up, and the lowest above it that was not."""
    good = max((point.offered for point in sweep if not point.reason), default=0.0)
    return good, min(
        (p.offered for p in sweep if p.reason and p.offered > good), default=max(most, good) * 1.1
    )


def _median(result: Result) -> float:
    return float(np.median(result.reading.latencies)) if result.reading else 1.0


def _tell_latency(row: Row, results: Sequence[Result]) -> None:
    readings = [result.reading for result in results if result.reading is not None]
    if not readings:
        return
    reason = next((reading.fault for reading in readings if reading.fault), "")
    row.p50, row.p90, row.p99 = (
        Figure.of([float(np.percentile(reading.latencies, percent)) for reading in readings], reason)
        for percent in (50, 90, 99)
    )
    every = np.concatenate([reading.latencies for reading in readings])
    row.quantiles = [round(float(value), 4) for value in np.percentile(every, range(101))]
    cpu = [result.cpu_us for result in results if result.cpu_us is not None]
    row.cpu_us = Figure.of(cpu) if cpu else None
    row.generator_us = float(
        np.median([result.generator_us for result in results if result.generator_us is not None])
    )
