"""The versions of a model: loading, the current one, and the swap without a failed request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from serving.repository import RepositoryError
from serving.server.errors import InvalidRequestError, NotFoundError, ServerError, UnavailableError, quote
from serving.server.metrics import Metrics, Statistics
from serving.server.repository.loading import Loaded
from serving.server.repository.policies import ModelConfig, stamp_of
from serving.server.scheduling import QueueLimits, RunQueue

log = logging.getLogger("tandem.server")

LoadVersion = Callable[[Path], Loaded]
"""Load and warm up a version's folder, in a thread. Raises `ArtifactError`."""


@dataclass(frozen=True)
class Serving:
    """The parts that all models of a server share: loader, metrics, limits of queues, retries."""

    load: LoadVersion
    metrics: Metrics
    queue: QueueLimits
    retries: int = 0
    """Further attempts to load a version that failed, while its files do not change."""
    retry_seconds: float = 60.0
    batching: bool = False
    """True if requests share runs of a version without a manifest."""


class State(StrEnum):
    """The states of a version, as TF Serving names them."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True)
class Status:
    """The state of a version; for one that did not load also the error, its files, and the attempts so far."""

    state: State
    fault: ServerError | None = None
    stamp: object = None
    attempts: int = 0
    when: float = 0.0
    """Time of the last attempt, in seconds of the monotonic clock."""

    def stands(self, stamp: object, serving: Serving) -> bool:
        """Return True if the version did not load and should not be tried again now."""
        waits = time.monotonic() - self.when < serving.retry_seconds
        exhausted = self.attempts > serving.retries
        return self.fault is not None and self.stamp == stamp and (waits or exhausted)


class Version:
    """One loaded version. Used as a context it is a lease: the version is unloaded after the last lease."""

    def __init__(self, model: str, number: int, loaded: Loaded, serving: Serving, stamp: object) -> None:
        self.model = model
        self.number = number
        self.stamp = stamp
        """The stamp of its files."""
        self.servable = loaded.servable
        self.signatures = loaded.servable.signatures
        statistics = self.statistics = Statistics()
        self.finite = loaded.manifest is not None and loaded.manifest.finite
        """True if its manifest forbids NaN, infinity and empty tensors."""
        self.batched = loaded.manifest.batched if loaded.manifest else serving.batching
        """True if requests may share a run, by the manifest or, without one, by --batching."""

        def count(rows: int, seconds: float) -> None:  # No method: a cycle would keep the version in memory.
            statistics.run(rows, seconds)
            serving.metrics.run(model, rows, seconds)

        self.queues = {
            key: RunQueue(
                loaded.servable,
                key,
                f"model {model}, version {number}",
                batched=self.batched and signature.batched,
                limits=serving.queue,
                count=count,
            )
            for key, signature in self.signatures.items()
        }
        self._leases = 0
        self._free: asyncio.Event | None = None
        """Set at the end of the last lease, if `unload` waits for it."""

    def __enter__(self) -> Self:
        self._leases += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._leases -= 1
        if self._free is not None and self._leases == 0:
            self._free.set()

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a run."""
        return sum(queue.waiting for queue in self.queues.values())

    async def unload(self) -> None:
        """Wait for the last lease, then release the version's resources."""
        if self._leases:
            self._free = asyncio.Event()
            await self._free.wait()
        await asyncio.gather(*(queue.close() for queue in self.queues.values()))
        await asyncio.to_thread(self.servable.close)


class Model:
    def __init__(self, config: ModelConfig, serving: Serving) -> None:
        self.config = config
        self.name = config.name
        """The name in URLs."""
        self.statuses: dict[int, Status] = {}
        self.loaded: dict[int, Version] = {}
        """The versions that answer."""
        self._serving = serving
        self._current: Version | None = None
        self._complaint = ""
        """The reason why the folder could not be read at the last check."""
        self._unloading: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Return True if there is a current version."""
        return self._current is not None

    def version(self, number: int | None = None, label: str = "") -> Version:
        """Return a loaded version by its number or label, by default the current one.

        Raises `NotFoundError`, `UnavailableError`, or `InvalidRequestError` for an unknown label.
        """
        if label:
            number = self.number_of(label)
        if number is None:
            if self._current is None:
                raise UnavailableError(self.account())
            return self._current
        if number not in self.loaded:
            served = ", ".join(map(str, sorted(self.loaded))) or "none"
            status = self.statuses.get(number)
            if status is not None and status.state is State.LOADING:
                raise UnavailableError(f"version {number} of model {self.name} is loading; served: {served}")
            why = f" ({status.fault})" if status is not None and status.fault is not None else ""
            raise NotFoundError(f"version {number} of model {self.name} is not served{why}; served: {served}")
        return self.loaded[number]

    def number_of(self, label: str) -> int:
        """Return the version of a label. Raises `InvalidRequestError`."""
        if label not in self.config.labels:
            known = ", ".join(sorted(self.config.labels)) or "none"
            raise InvalidRequestError(f"model {self.name} has no label {quote(label)}; it has: {known}")
        return self.config.labels[label]

    def account(self) -> str:
        """Return the reason why the model is not ready."""
        reasons = [
            f"version {number} is {status.state}" + (f": {status.fault}" if status.fault else "")
            for number, status in sorted(self.statuses.items())
        ]
        reason = "; ".join(reasons) or self._complaint or "no version was found"
        return f"model {self.name} is not ready: {reason}"

    async def refresh(self, reload: bool = False) -> str:
        """Check the folder once: load new versions, make one current, unload the rest; returns an error or "".

        With `reload`, versions whose files have changed are loaded again.
        """
        try:
            wanted = await asyncio.to_thread(self.config.policy, self.config.directory)
        except (RepositoryError, OSError) as error:
            if str(error) != self._complaint:
                log.error("%s; model %s stays as it is", error, self.name)
            self._complaint = str(error)
            return self._complaint
        self._complaint = ""
        known = self.loaded.keys() | {number for number, status in self.statuses.items() if status.fault}
        self.statuses.update(dict.fromkeys(wanted.keys() - known, Status(State.START)))
        faults = [await self._try(n, wanted[n], reload) for n in wanted if reload or n not in self.loaded]
        fault = next(filter(None, faults), "") if wanted else self.account()
        serving = [number for number in wanted if number in self.loaded]
        if wanted and not serving:
            return fault  # The loaded versions stay.
        current = self.loaded[max(serving)] if serving else None
        if current is not None and current is not self._current:
            log.info("model %s: version %d answers", self.name, current.number)
        self._current = current
        self._unload(self.loaded.keys() - serving)
        return fault

    def end(self) -> None:
        """Accept no more requests, and unload each version after its last one."""
        self._current = None
        self._unload(self.loaded.keys())

    async def unloaded(self) -> None:
        """Wait until all versions are unloaded that `end` or a swap has retired."""
        await asyncio.gather(*self._unloading)

    async def _try(self, number: int, directory: Path, reload: bool) -> str:
        """Load a version, replacing a loaded one of the same number; returns an error or ""."""
        stamp = await asyncio.to_thread(stamp_of, directory)
        old, before = self.loaded.get(number), self.statuses[number]
        if old is not None and old.stamp == stamp:
            return ""
        if not reload and before.stands(stamp, self._serving):
            return str(before.fault)
        if old is None:
            self.statuses[number] = Status(State.LOADING)
        try:
            loaded = await asyncio.to_thread(self._serving.load, directory)
        except ServerError as error:
            serving = f"version {self._current.number} goes on serving" if self._current else "none serves"
            log.error("model %s: version %d is refused: %s; %s", self.name, number, error, serving)
            if old is None:
                attempts = before.attempts + 1 if before.stamp == stamp else 1
                self.statuses[number] = Status(State.END, error, stamp, attempts, time.monotonic())
            return str(error)
        version = self.loaded[number] = Version(self.name, number, loaded, self._serving, stamp)
        if self._current is None or self._current is old:
            self._current = version  # Answers while others load.
        self.statuses[number] = Status(State.AVAILABLE)
        if old is not None:
            log.info("model %s: version %d is loaded anew, for its files have changed", self.name, number)
            self._let_go(old)
        return ""

    def _unload(self, numbers: Iterable[int]) -> None:
        for number in sorted(numbers):
            self.statuses[number] = Status(State.UNLOADING)
            self._let_go(self.loaded.pop(number))

    def _let_go(self, version: Version) -> None:
        async def unload() -> None:
            await version.unload()
            if self.statuses[version.number].state is State.UNLOADING:  # It may be loading again.
                self.statuses[version.number] = Status(State.END)
            log.info("model %s: version %d is unloaded", self.name, version.number)

        task = asyncio.create_task(unload())
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)
