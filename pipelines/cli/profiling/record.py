"""A profile: the seconds of each part of a step, and its operators."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from serving.errors import TandemError

T = TypeVar("T")
LABELS = {
    "tensorflow": "a TensorFlow step",
    "pytorch": "a PyTorch step",
    "onnxruntime": "an ONNX Runtime run",
    "litert": "a LiteRT run",
}
PARTS = ("input", "forward", "backward", "optimizer")
WARM = 3
"""Steps before the measured ones: the first steps compile and choose kernels."""
DEAREST = 10


class ProfilingError(TandemError):
    """There is nothing to profile, or its profiler failed."""


@dataclass(frozen=True)
class Op:
    """An operator: its calls in a step, and their seconds without what they call."""

    name: str
    seconds: float
    calls: float


@dataclass(frozen=True)
class Profiled:
    """A step of a framework, or a run of a runtime."""

    name: str
    runs_on: str
    parts: dict[str, float]
    """Seconds by part, measured while no profiler ran."""
    ops: list[Op]
    """Sorted by their time, the longest first."""
    note: str = ""

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    @property
    def waiting(self) -> float:
        """The share of the time that waits for input."""
        return self.parts.get("input", 0.0) / self.seconds

    def share(self, op: Op) -> float:
        """Return an op's share of the time of all ops."""
        return op.seconds / (sum(own.seconds for own in self.ops) or 1.0)

    @property
    def sentence(self) -> str:
        """The summary in one sentence."""
        label, dearest = LABELS[self.name], "its profiler saw no op"
        if self.ops:
            dearest = f"the dearest op is {self.ops[0].name}, {100 * self.share(self.ops[0]):.0f} % of all"
        if "input" not in self.parts:
            return f"{label[0].upper()}{label[1:]} takes {1000 * self.seconds:.3g} ms; {dearest}."
        longest = max(PARTS[1:], key=self.parts.__getitem__)
        share = self.parts[longest] / self.seconds
        return f"{100 * self.waiting:.0f} % of {label} waits for input, {100 * share:.0f} % is {longest}; {dearest}."


@dataclass
class Clock:
    """Adds up the seconds of each part of the steps; `scope` names the part in a profiler's trace."""

    scope: Callable[[str], AbstractContextManager[Any]] = nullcontext
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        with self.scope(part):
            yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started

    def waited(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, and count the time until each comes as `input`."""
        iterator = iter(batches)
        while True:
            with self("input"):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch

    def each(self, steps: int) -> dict[str, float]:
        """Return the seconds of one of this number of steps."""
        return {part: seconds / steps for part, seconds in self.seconds.items()}


def dearest(calls: Iterable[tuple[str, float]], steps: int) -> list[Op]:
    """Return the ops of one of `steps` steps, from the name and the seconds of each call."""
    found: dict[str, list[float]] = {}
    for name, seconds in calls:
        found.setdefault(name, []).append(seconds)
    ops = [Op(name, sum(own) / steps, len(own) / steps) for name, own in found.items()]
    return sorted(ops, key=lambda op: -op.seconds)


def write_trace(path: Path, events: Iterable[tuple[str, str, float, float]]) -> None:
    """Write (thread, name, start, duration), in microseconds, in the trace event format, which Perfetto opens."""
    threads: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    for thread, name, start, duration in events:
        if thread not in threads:
            threads[thread] = len(threads) + 1
            found.append(_event("M", threads[thread], "thread_name", args={"name": thread}))
        found.append(_event("X", threads[thread], name, ts=start, dur=duration))
    path.write_text(json.dumps({"traceEvents": found}))


def _event(kind: str, thread: int, name: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"ph": kind, "pid": 1, "tid": thread, "name": name, **more}
