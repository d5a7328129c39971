"""Measures all rows in turns, by generators in other processes: answers, latency, rates, batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.signature import Arrays
from serving.compare import load
from serving.compare.generator import ANSWERS, KEPT, Generator, GeneratorError, Job, Result
from serving.compare.report import DEVICE, FAILED, IN_PROCESS, NULL, Figure, Point, Row
from serving.progress import Wait
from serving.settings import Settings

SHARES = (0.5, 0.75, 0.9)
"""The offered rates, as shares of an endpoint's capacity."""
BISECTIONS = 2
ANSWER_SECONDS = 100.0
"""A quarter of the time limit for the answers to all samples."""


@dataclass(frozen=True)
class Plan:
    """The length and the goals of a measurement."""

    seconds: float = 0.8
    """The length of one reading."""
    rounds: int = 3
    target_ms: float = 20.0
    """Time limit for 99 % of the responses."""
    connections: int = 8
    batches: tuple[int, ...] = (1, 8, 64)


@dataclass
class Subject:
    """A row and the way to its server."""

    row: Row
    pid: int = 0
    memory: Callable[[], int | None] = lambda: None
    settings: Settings | None = None
    """The settings of its server; None: the comparison's."""
    target: str = ""
    """The receiver of the load; "" is the row's target."""
    signature: dict[str, Any] = field(default_factory=dict)
    """The signature, for servers without metadata."""

    @property
    def takes_load(self) -> bool:
        """Return True if it accepts concurrent requests, unlike a browser or a runtime in process."""
        return self.row.kind not in (NULL, IN_PROCESS, DEVICE) and self.row.target != "tfjs"


@dataclass
class Measuring:
    """The readings of a comparison; each method fills in figures of all working rows."""

    settings: Settings
    subjects: Sequence[Subject]
    samples: Path
    """An .npz of inputs by name, with at least as many rows as the largest batch."""
    plan: Plan
    say: Callable[[str], None]
    wait: Wait | None = None
    """Shows the progress."""
    done: int = 0
    """The number of readings so far."""
    generators: dict[str, Generator] = field(default_factory=dict)

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        for generator in self.generators.values():
            generator.close()

    def answers(self) -> dict[str, Arrays]:
        """Return the outputs of all rows for all samples, by the row's name."""
        found = {}
        for subject in self._working():
            subject.row.memory_idle = subject.memory()
            if subject.row.is_way or subject.row.kind == DEVICE:
                self.say(f"{subject.row.name}: answers")
                found[subject.row.name] = self.ask(subject, self.samples)
        return {name: outputs for name, outputs in found.items() if outputs}

    def ask(self, subject: Subject, samples: Path) -> Arrays:
        """Return a row's outputs for these samples; empty if it fails."""
        # In large requests: the gates have checked that batches do not change outputs.
        what = {"samples": samples, "rows": max(self.plan.batches), "seconds": ANSWER_SECONDS}
        result = self._run(subject, scenario=ANSWERS, **what)
        return result.answers if result else {}

    def latencies(self) -> None:
        """Measure one request at a time, in turns: percentiles and CPU time; of the finished rounds at Ctrl-C."""
        results: dict[str, list[Result]] = {subject.row.name: [] for subject in self.subjects}
        try:
            for number in range(self.plan.rounds):
                self.say(f"one request at a time, round {number + 1} of {self.plan.rounds}")
                for subject in self._working():
                    if not subject.row.is_way and 0 < number < self.plan.rounds - 1:
                        continue  # Two rounds are enough for rows that are only subtracted.
                    if result := self._run(subject, scenario=load.SINGLE):
                        results[subject.row.name].append(result)
        finally:
            for subject in self._working():
                _tell_latency(subject.row, results[subject.row.name])

    def rates(self) -> None:
        """Measure requests at random times: the curve up to saturation, and the highest sustained rate."""
        for subject in (subject for subject in self._working() if subject.takes_load):
            most = self._capacity(subject, 1, self.plan.connections, self.plan.seconds)
            if not most:
                continue
            self.say(f"{subject.row.name}: rates up to {most:.0f} a second")
            sweep = subject.row.sweep
            for share in SHARES:
                sweep += self._offer(subject, share * most)
            while self._stalled(subject, most):
                pass
            for _ in range(BISECTIONS):
                sweep += self._offer(subject, sum(_between(sweep, most)) / 2)
            good, bad = _between(sweep, most)
            reason = "" if good else f"p99 is above {self.plan.target_ms:g} ms at every rate that was tried"
            if 0 < good * load.LONGEST * self.plan.seconds < load.FEWEST_POISSON:
                reason = f"fewer than {load.FEWEST_POISSON} requests at this rate"
            subject.row.goodput = Figure(good, (bad - good) / 2 if good else 0.0, reason)
            sweep.sort(key=lambda point: point.offered)
            subject.row.memory_loaded = subject.memory()

    def batches(self) -> None:
        """Measure rows a second by the size of a request, one request at a time."""
        for subject in (subject for subject in self._working() if subject.row.kind != NULL):
            self.say(f"{subject.row.name}: requests of {', '.join(map(str, self.plan.batches))} rows")
            for size in self.plan.batches:
                if rate := self._capacity(subject, size, 1, self.plan.seconds / 2):
                    subject.row.batches[str(size)] = rate * size

    def _capacity(self, subject: Subject, rows: int, connections: int, seconds: float) -> float:
        """Return the capacity in requests a second; 0 if the row fails."""
        what = {"seconds": seconds, "rows": rows, "connections": connections}
        result = self._run(subject, scenario=load.OFFLINE, **what)
        return result.reading.rate if result and result.reading else 0.0

    def _offer(self, subject: Subject, rate: float) -> list[Point]:
        """Offer a rate; returns its point, or none if nothing was answered."""
        target = self.plan.target_ms
        what = {"rate": rate, "target_ms": target, "connections": self.plan.connections}
        result = self._run(subject, scenario=load.POISSON, **what)
        if not result or not result.reading:
            return []
        reading = result.reading
        p50, p99 = (float(np.percentile(reading.latencies, percent)) for percent in (50, 99))
        kept = p99 <= target and not reading.failures
        reason = "" if kept else reading.fault or f"p99 was {p99:.0f} ms"
        return [Point(rate, reading.rate, p50, p99, reason, result.cpu_us)]

    def _stalled(self, subject: Subject, most: float) -> bool:
        """Offer the lowest failed rate again; returns True if it is sustained now: then the machine had stalled."""
        sweep = subject.row.sweep
        _, bad = _between(sweep, most)
        failed = next((point for point in sweep if point.offered == bad), None)
        kept = [point for point in self._offer(subject, bad) if not point.reason] if failed else []
        if failed and kept:
            sweep[sweep.index(failed)] = kept[0]
        return bool(kept)

    def _generator(self, subject: Subject) -> Generator:
        """Return the common generator, or the row's own for a client that stays open."""
        key = subject.row.name if subject.row.protocol in KEPT else ""
        if key not in self.generators or not self.generators[key].is_alive:
            self.generators[key] = Generator()
        return self.generators[key]

    def _readings(self) -> int:
        """Return the approximate number of readings, for the progress."""
        found = 0
        for subject in self._working():
            found += self.plan.rounds + 2 * subject.row.is_way
            found += subject.takes_load * (2 + len(SHARES) + BISECTIONS)
            found += (subject.row.kind != NULL) * len(self.plan.batches)
        return found

    def _working(self) -> list[Subject]:
        return [subject for subject in self.subjects if subject.row.works]

    def _run(self, subject: Subject, **what: Any) -> Result | None:  # noqa: ANN401
        """Return a generator's result; None if the row fails or answers nothing, which is then recorded in it."""
        row = subject.row
        if not row.works:
            return None
        where = subject.settings or self.settings, subject.target or row.target, row.protocol
        fields = {"samples": self.samples, "seconds": self.plan.seconds, **what}
        if self.wait is not None:
            self.wait.advance(row.name, self.done, self._readings())
        self.done += 1
        reason = ""
        try:
            job = Job(*where, pid=subject.pid, signature=subject.signature, **fields)
            result = self._generator(subject).do(job)
        except GeneratorError as error:
            reason = str(error)
        else:
            row.memory_loaded = row.memory_loaded if result.memory is None else result.memory
            if result.reading is not None:
                row.failures = dict(Counter(row.failures) + Counter(result.reading.failures))
                reason = "" if result.reading.latencies else result.reading.fault or "no request was answered"
        if reason:
            row.state, row.reason = FAILED, reason
            self.say(f"{row.name}: {reason}")
            return None
        return result


def _between(sweep: Sequence[Point], most: float) -> tuple[float, float]:
    """Return the highest sustained rate, and the lowest failed one above it."""
    good = max((point.offered for point in sweep if not point.reason), default=0.0)
    failed = [point.offered for point in sweep if point.reason and point.offered > good]
    return good, min(failed, default=max(most, good) * 1.1)


def _tell_latency(row: Row, results: Sequence[Result]) -> None:
    readings = [result.reading for result in results if result.reading is not None]
    if not readings:
        return
    fault = next((reading.fault for reading in readings if reading.fault), "")
    every = np.concatenate([reading.latencies for reading in readings])
    few = f"fewer than {load.FEWEST_POISSON} requests" if len(every) < load.FEWEST_POISSON else ""
    row.p50, row.p90, row.p99 = (
        Figure.of([float(np.percentile(reading.latencies, percent)) for reading in readings], reason)
        for percent, reason in ((50, fault), (90, fault), (99, fault or few))
    )
    row.quantiles = [round(float(value), 4) for value in np.percentile(every, range(101))]
    cpu = [result.cpu_us for result in results if result.cpu_us is not None]
    row.cpu_us = Figure.of(cpu) if cpu else None
    row.generator_us = float(
        np.median([own for result in results if (own := result.generator_us) is not None])
    )
