"""Measures every row in turns, by generators in processes of their own: answers, latency, rates, batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.signature import Arrays
from serving.compare import load, local
from serving.compare.generator import ANSWERS, KEPT, Generator, GeneratorError, Job, Result
from serving.compare.report import DEVICE, FAILED, IN_PROCESS, NULL, Figure, Point, Row
from serving.progress import Wait
from serving.settings import Settings

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
    def takes_load(self) -> bool:
        """Return False where one caller waits for each answer: in a browser, and in a process of its own."""
        return self.row.kind not in (NULL, IN_PROCESS, DEVICE) and self.row.target != "tfjs"


@dataclass
class Measuring:
    """One comparison's readings; each method fills in figures of all rows that still work."""

    settings: Settings
    subjects: Sequence[Subject]
    samples: Path
    """An .npz of inputs by name, of at least as many rows as the largest batch."""
    plan: Plan
    say: Callable[[str], None]
    wait: Wait | None = None
    """Is told how far it is."""
    done: int = 0
    """Readings."""
    generators: dict[str, Generator] = field(default_factory=dict)

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        for generator in self.generators.values():
            generator.close()

    def answers(self) -> dict[str, Arrays]:
        """Every row's outputs for all samples, by the row's name."""
        found = {}
        for subject in self._working():
            subject.row.memory_idle = subject.memory()
            if subject.row.is_way or subject.row.kind == DEVICE:
                self.say(f"{subject.row.name}: answers")
                found[subject.row.name] = self.ask(subject, self.samples)
        return {name: outputs for name, outputs in found.items() if outputs}

    def ask(self, subject: Subject, samples: Path) -> Arrays:
        """A row's outputs for these samples; none where it fails."""
        # In large requests: that company changes no answer is the gates' part.
        what = {"samples": samples, "rows": max(self.plan.batches), "seconds": ANSWER_SECONDS}
        result = self._run(subject, scenario=ANSWERS, **what)
        return result.answers if result else {}

    def latencies(self) -> None:
        """One request at a time, in turns: percentiles and CPU time."""
        results: dict[str, list[Result]] = {subject.row.name: [] for subject in self.subjects}
        for number in range(self.plan.rounds):
            self.say(f"one request at a time, round {number + 1} of {self.plan.rounds}")
            for subject in self._working():
                if not subject.row.is_way and 0 < number < self.plan.rounds - 1:
                    continue  # The first round and the last tell what is only subtracted.
                before = results[subject.row.name]
                expected = EXPECTED_MS.get(subject.row.protocol, 1.0)
                if before and before[-1].reading:
                    expected = float(np.median(before[-1].reading.latencies))
                result = self._run(subject, scenario=load.SINGLE, expected_ms=expected)
                if result and result.reading and result.reading.latencies:
                    before.append(result)
        for subject in self._working():
            _tell_latency(subject.row, results[subject.row.name])

    def rates(self) -> None:
        """Requests at random times: the curve up to saturation, and the highest rate that is kept up."""
        for subject in self._working():
            if not subject.takes_load:
                continue
            most = self._capacity(subject, 1, self.plan.connections, self.plan.seconds)
            if most is None:
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
            subject.row.goodput = Figure(good, (bad - good) / 2 if good else 0.0, reason)
            sweep.sort(key=lambda point: point.offered)
            subject.row.memory_loaded = subject.memory()

    def batches(self) -> None:
        """Rows a second by the size of a request, one request after the other."""
        for subject in self._working():
            if subject.row.kind == NULL:
                continue
            self.say(f"{subject.row.name}: requests of {', '.join(map(str, self.plan.batches))} rows")
            for size in self.plan.batches:
                rate = self._capacity(subject, size, 1, self.plan.seconds / 2)
                if rate is not None:
                    subject.row.batches[str(size)] = rate * size

    def _capacity(self, subject: Subject, rows: int, connections: int, longer: float) -> float | None:
        """Requests a second at most: a short reading tells how many a longer one needs."""
        rate = 20.0
        for seconds in (self.plan.seconds / 4, longer):
            what = {"seconds": seconds, "rate": rate, "rows": rows, "connections": connections}
            result = self._run(subject, scenario=load.OFFLINE, **what)
            if not result or not result.reading or not result.reading.rate:
                return None
            rate = result.reading.rate
        return rate

    def _offer(self, subject: Subject, rate: float) -> list[Point]:
        """What became of a rate; empty where nothing was answered."""
        target = self.plan.target_ms
        what = {"rate": rate, "target_ms": target, "connections": self.plan.connections}
        result = self._run(subject, scenario=load.POISSON, **what)
        if not result or not result.reading or not result.reading.latencies:
            return []
        reading = result.reading
        p50, p99 = (float(np.percentile(reading.latencies, percent)) for percent in (50, 99))
        kept = p99 <= target and not reading.failures
        reason = "" if kept else reading.fault or f"p99 was {p99:.0f} ms"
        return [Point(rate, reading.rate, p50, p99, reason, result.cpu_us)]

    def _stalled(self, subject: Subject, most: float) -> bool:
        """Offer the lowest rate that failed once more; returns True where it is kept up now: it was the machine that
        stalled, not the endpoint."""
        sweep = subject.row.sweep
        _, bad = _between(sweep, most)
        failed = next((point for point in sweep if point.offered == bad), None)
        kept = [point for point in self._offer(subject, bad) if not point.reason] if failed else []
        if failed and kept:
            sweep[sweep.index(failed)] = kept[0]
        return bool(kept)

    def _generator(self, subject: Subject) -> Generator:
        """One for all endpoints; one of its own for what stays open in it, a model or a browser."""
        key = subject.row.name if subject.row.protocol in KEPT else ""
        if key not in self.generators or not self.generators[key].is_alive:
            self.generators[key] = Generator()
        return self.generators[key]

    def _readings(self) -> int:
        """About how many there will be, for the progress."""
        found = 0
        for subject in self._working():
            found += self.plan.rounds + 2 * subject.row.is_way
            found += subject.takes_load * (3 + len(SHARES) + BISECTIONS)
            found += (subject.row.kind != NULL) * 2 * len(self.plan.batches)
        return found

    def _working(self) -> list[Subject]:
        return [subject for subject in self.subjects if subject.row.works]

    def _run(self, subject: Subject, **what: Any) -> Result | None:  # noqa: ANN401
        """A generator's result; None where the row fails, which it then says."""
        row = subject.row
        if not row.works:
            return None
        where = subject.settings or self.settings, subject.target or row.target, row.protocol
        fields = {"samples": self.samples, "seconds": self.plan.seconds, **what}
        if self.wait is not None:
            self.wait.advance(row.name, self.done, self._readings())
        self.done += 1
        try:
            result = self._generator(subject).do(
                Job(*where, pid=subject.pid, signature=subject.signature, **fields)
            )
        except GeneratorError as error:
            row.state, row.reason = FAILED, str(error)
            self.say(f"{row.name}: {error}")
            return None
        if result.memory is not None:
            row.memory_loaded = result.memory
        if result.reading is not None:
            for words, count in result.reading.failures.items():
                row.failures[words] = row.failures.get(words, 0) + count
        return result


def _between(sweep: Sequence[Point], most: float) -> tuple[float, float]:
    """The highest rate that was kept up, and the lowest above it that was not."""
    good = max((point.offered for point in sweep if not point.reason), default=0.0)
    failed = [point.offered for point in sweep if point.reason and point.offered > good]
    return good, min(failed, default=max(most, good) * 1.1)


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
    own = [result.generator_us for result in results if result.generator_us is not None]
    row.generator_us = float(np.median(own))
