"""The versions of a model: which are loaded, which one answers, and the swap without a failed request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Self

from serving.repository import RepositoryError
from serving.server.errors import InvalidRequestError, NotFoundError, ServerError, UnavailableError, quote
from serving.server.metrics import Metrics
from serving.server.repository.loading import Loaded
from serving.server.repository.policies import ModelConfig, RetryPolicy, folder_of, stamp_of
from serving.server.scheduling import QueueLimits, RunQueue
from serving.server.tensors.signature import Signatures

log = logging.getLogger("tandem.server")

LoadVersion = Callable[[Path], Loaded]
"""From a version's folder to a warm servable, in a thread. Raises `ArtifactError`."""


@dataclass(frozen=True)
class Serving:
    """How a server loads, queues and counts versions of all its models."""

    load: LoadVersion
    metrics: Metrics
    queue: QueueLimits
    retries: RetryPolicy
    batching: bool = False
    """True if requests share runs of a version without a manifest."""


class State(StrEnum):
    """The life of a version, in TF Serving's words."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True)
class Status:
    """Where a version is in its life, and why it ended where that was a fault."""

    state: State
    fault: ServerError | None = None


@dataclass(frozen=True)
class Refusal:
    """A version that did not load: the stamp of its files, its attempts so far, and when the last one was."""

    stamp: object
    attempts: int
    when: float

    def stands(self, stamp: object, retries: RetryPolicy) -> bool:
        """Whether it is no use, or too early, to try again."""
        waits = time.monotonic() - self.when < retries.seconds
        return self.stamp == stamp and (waits or self.attempts > retries.retries)


class Version:
    """One loaded version. A context with it is a lease: it is unloaded only when nobody holds one any more."""

    def __init__(self, model: str, number: int, loaded: Loaded, serving: Serving, stamp: object) -> None:
        self.model = model
        self.number = number
        self.stamp = stamp
        """What changes when its files do."""
        self.servable = loaded.servable
        self.signatures: Signatures = loaded.servable.signatures
        self.finite = loaded.manifest is not None and loaded.manifest.finite
        """True if its manifest forbids NaN, infinity and empty tensors."""
        self.batched = loaded.manifest.batched if loaded.manifest else serving.batching
        """True if requests may share a run; without a manifest nobody has proved it."""
        self.queues = {
            key: RunQueue(
                loaded.servable,
                key,
                f"model {model}, version {number}",
                batched=self.batched and signature.batched,
                limits=serving.queue,
                count=partial(serving.metrics.run, model, str(number)),
            )
            for key, signature in self.signatures.items()
        }
        self._leases = 0
        self._free: asyncio.Event | None = None
        """Set with the end of the last lease, where somebody waits for it."""

    def __enter__(self) -> Self:
        self._leases += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._leases -= 1
        if self._free is not None and self._leases == 0:
            self._free.set()

    def waiting(self) -> int:
        return sum(queue.waiting for queue in self.queues.values())

    async def unload(self) -> None:
        """Wait for the last lease, then give back what the version holds."""
        if self._leases:
            self._free = asyncio.Event()
            await self._free.wait()
        await asyncio.gather(*(queue.close() for queue in self.queues.values()))
        await asyncio.to_thread(self.servable.close)


class Model:
    """The versions of one model."""

    def __init__(self, config: ModelConfig, serving: Serving) -> None:
        self.config = config
        self.name = config.name
        """As in URLs."""
        self.statuses: dict[int, Status] = {}
        self._serving = serving
        self._loaded: dict[int, Version] = {}
        self._current: Version | None = None
        self._refused: dict[int, Refusal] = {}
        self._complaint = ""
        self._unloading: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether requests that name no version are answered."""
        return self._current is not None

    @property
    def loaded(self) -> list[int]:
        """The versions that answer, ascending."""
        return sorted(self._loaded)

    def version(self, number: int | None = None, label: str = "") -> Version:
        """A loaded version, by its number or its label, by default the current one.

        Raises `NotFoundError`, `UnavailableError`, or `InvalidRequestError` for a label that is none.
        """
        if label:
            number = self.number_of(label)
        if number is None:
            if self._current is None:
                raise UnavailableError(self.account())
            return self._current
        if number not in self._loaded:
            served = ", ".join(map(str, self.loaded)) or "none"
            status = self.statuses.get(number)
            if status is not None and status.state is State.LOADING:
                raise UnavailableError(f"version {number} of model {self.name} is loading; served: {served}")
            why = f" ({status.fault})" if status is not None and status.fault is not None else ""
            raise NotFoundError(f"version {number} of model {self.name} is not served{why}; served: {served}")
        return self._loaded[number]

    def number_of(self, label: str) -> int:
        """The version that a label names. Raises `InvalidRequestError`."""
        if label not in self.config.labels:
            known = ", ".join(sorted(self.config.labels)) or "none"
            raise InvalidRequestError(f"model {self.name} has no label {quote(label)}; it has: {known}")
        return self.config.labels[label]

    def account(self) -> str:
        """Return why the model is not ready."""
        reasons = [
            f"version {number} is {status.state}" + (f": {status.fault}" if status.fault else "")
            for number, status in sorted(self.statuses.items())
        ]
        return f"model {self.name} is not ready: {'; '.join(reasons) or 'no version was found'}"

    async def refresh(self, reload: bool = False) -> str:
        """Look at the folder once: load wanted versions that are new, make one current, unload the rest.

        With `reload`, versions whose files have changed are new, too. Returns an error or "".
        """
        try:
            wanted = await asyncio.to_thread(self.config.policy, self.config.directory)
        except (RepositoryError, OSError) as error:
            self._complain(f"{error}; model {self.name} stays as it is")
            return str(error)
        new = [number for number in wanted if number not in self._loaded and number not in self._refused]
        self.statuses.update(dict.fromkeys(new, Status(State.START)))
        faults = [await self._try(n, reload) for n in wanted if reload or n not in self._loaded]
        fault = next(filter(None, faults), "") if wanted else self.account()
        serving = [number for number in wanted if number in self._loaded]
        if wanted and not serving:
            return fault  # What serves now goes on.
        self._complaint = ""
        current = self._loaded[max(serving)] if serving else None
        if current is not None and current is not self._current:
            log.info("model %s: version %d answers", self.name, current.number)
        self._current = current
        self._unload(number for number in self.loaded if number not in serving)
        return fault

    def end(self) -> None:
        """Begin no more requests, and unload each version when its last one is answered."""
        self._current = None
        self._unload(self.loaded)

    async def unloaded(self) -> None:
        """Wait until every version that is to be unloaded is."""
        await asyncio.gather(*self._unloading)

    async def _try(self, number: int, reload: bool) -> str:
        """Load a version, in the place of the one that has its number; returns an error or ""."""
        directory = await asyncio.to_thread(folder_of, self.config.directory, number)
        stamp = await asyncio.to_thread(stamp_of, directory)
        old = self._loaded.get(number)
        if old is not None and old.stamp == stamp:
            return ""
        refusal = self._refused.get(number)
        if refusal is not None and not reload and refusal.stands(stamp, self._serving.retries):
            return str(self.statuses[number].fault)
        if old is None:
            self.statuses[number] = Status(State.LOADING)
        try:
            loaded = await asyncio.to_thread(self._serving.load, directory)
        except ServerError as error:
            serving = f"version {self._current.number} goes on serving" if self._current else "none serves"
            log.error("model %s: version %d is refused: %s; %s", self.name, number, error, serving)
            if old is None:
                attempts = refusal.attempts + 1 if refusal is not None and refusal.stamp == stamp else 1
                self._refused[number] = Refusal(stamp, attempts, time.monotonic())
                self.statuses[number] = Status(State.END, error)
            return str(error)
        self._refused.pop(number, None)
        version = self._loaded[number] = Version(self.name, number, loaded, self._serving, stamp)
        if self._current is None or self._current is old:
            self._current = version  # Better than none, while others load.
        self.statuses[number] = Status(State.AVAILABLE)
        self._serving.metrics.loaded(self.name, str(number), version.waiting)
        if old is not None:
            log.info("model %s: version %d is loaded anew, for its files have changed", self.name, number)
            self._let_go(old)
        return ""

    def _unload(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.statuses[number] = Status(State.UNLOADING)
            self._let_go(self._loaded.pop(number))

    def _let_go(self, version: Version) -> None:
        number = version.number

        async def unload() -> None:
            await version.unload()
            self._serving.metrics.unloaded(self.name, str(number), version.waiting)
            if number not in self._loaded:  # It may have been loaded anew.
                self.statuses[number] = Status(State.END)
            log.info("model %s: version %d is unloaded", self.name, number)

        task = asyncio.create_task(unload())
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            log.error("%s", text)
        self._complaint = text
