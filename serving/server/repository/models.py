"""The models of a server, by its configuration or repository."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from serving import repository
from serving.server.errors import InvalidRequestError, NotFoundError, UnavailableError, quote
from serving.server.repository.policies import ModelConfig
from serving.server.repository.versions import Model, Serving, State


@dataclass(frozen=True)
class Entry:
    """A version in the repository's index; a model without versions has one entry with None."""

    model: str
    version: int | None
    state: State
    reason: str = ""


class Models:
    def __init__(
        self, find: Callable[[], dict[str, ModelConfig]], serving: Serving, layout: str = ""
    ) -> None:
        """`find` returns the models to serve now; `layout` is the expected layout, for messages."""
        self._find = find
        self._layout = f"; expected {layout}" if layout else ""
        self._serving = serving
        self._models: dict[str, Model] = {}
        self._unloaded: set[str] = set()
        """Models that were unloaded on request."""
        self.ended: dict[str, Model] = {}
        """Models that are no longer configured, for the status of their versions."""
        self.started = False
        """True after the first refresh."""
        self._refreshing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Return True if there are models and all are ready."""
        return self.started and bool(self._models) and all(model.ready for model in self._models.values())

    @property
    def loading(self) -> bool:
        return any(s.state is State.LOADING for m in self._models.values() for s in m.statuses.values())

    @property
    def names(self) -> list[str]:
        return sorted(self._models)

    def model(self, name: str) -> Model:
        """Return a model by name. Raises `NotFoundError` or, while the server starts, `UnavailableError`."""
        if name not in self._models:
            if not self.started:
                raise UnavailableError("the server is starting: no model is loaded yet")
            if name in self._unloaded:
                raise NotFoundError(f"model {quote(name)} was unloaded on request; load it to call it again")
            served = ", ".join(self.names) or "none"
            raise NotFoundError(f"model {quote(name)} is not served; served: {served}")
        return self._models[name]

    def available(self, name: str, version: int) -> bool:
        """Return True if a version of a model is loaded."""
        return name in self._models and version in self._models[name].loaded

    def account(self) -> str:
        """Return the reason why models are not ready."""
        if not self._models:
            found = f"no model was found{self._layout}"
            return found if self.started else "the server is starting: no model is loaded yet"
        return "; ".join(model.account() for model in self._models.values() if not model.ready)

    async def refresh(self) -> None:
        """Check every model's folder once. Raises as `find` does."""
        async with self._refreshing:
            configs = await asyncio.to_thread(self._find)
            for name, config in configs.items():
                if name in self._models:
                    self._models[name].config = config
                elif name not in self._unloaded:
                    self._models[name] = Model(config, self._serving)
                    if name in self.ended:
                        self._models[name].statuses.update(self.ended.pop(name).statuses)
            for name in [name for name in self._models if name not in configs]:
                self.ended[name] = self._models.pop(name)
                self.ended[name].end()
            await asyncio.gather(*(model.refresh() for model in self._models.values()))
            self.started = True

    async def load(self, name: str) -> None:
        """Load a model from the repository, also if its files have changed; returns when it is ready.

        A loaded version goes on answering, and stays if the new files do not load. Raises `NotFoundError` if the
        repository has no such model, and `InvalidRequestError` with the reason if it cannot be loaded.
        """
        await self._finish(self._load(name))

    async def unload(self, name: str) -> None:
        """Unload a model until it is loaded again; returns after its last request. Raises `NotFoundError`."""
        await self._finish(self._unload(name))

    async def index(self) -> list[Entry]:
        """Return all versions of all models in the repository, sorted."""
        configs = await asyncio.to_thread(self._find)
        entries: list[Entry] = []
        for name, config in sorted(({n: m.config for n, m in self._models.items()} | configs).items()):
            present = await asyncio.to_thread(repository.versions, config.directory)
            entries += _entries(name, self._models.get(name), present, name in self._unloaded)
        return entries

    async def close(self) -> None:
        """Unload all models, each after its last request."""
        for model in self._models.values():
            model.end()
        await asyncio.gather(*(m.unloaded() for m in (*self._models.values(), *self.ended.values())))

    async def _finish(self, change: Coroutine[None, None, None]) -> None:
        # A cancelled request must not leave a model half loaded.
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _load(self, name: str) -> None:
        async with self._refreshing:
            config = await self._config(name)
            self._unloaded.discard(name)
            model = self._models.setdefault(name, Model(config, self._serving))
            model.config = config
            fault = await model.refresh(reload=True)
            if fault:
                raise InvalidRequestError(f"model {name!r} is not loaded: {fault}")

    async def _unload(self, name: str) -> None:
        async with self._refreshing:
            if name not in self._unloaded:
                await self._config(name)
            self._unloaded.add(name)
            model = self._models.pop(name, None)
            if model is not None:
                model.end()
        if model is not None:  # Outside of the lock: requests may take long.
            await model.unloaded()

    async def _config(self, name: str) -> ModelConfig:
        configs = await asyncio.to_thread(self._find)
        if name not in configs:
            held = ", ".join(sorted(configs)) or "none"
            raise NotFoundError(f"the repository holds no model {quote(name)}; it holds: {held}")
        return configs[name]


def _entries(name: str, model: Model | None, present: list[int], unloaded: bool) -> list[Entry]:
    absent = "unloaded on request" if unloaded else "not loaded"
    entries = {number: Entry(name, number, State.END, absent) for number in present}
    for number, status in (model.statuses if model else {}).items():
        if status.state is not State.END or status.fault is not None:
            entries[number] = Entry(name, number, status.state, str(status.fault or ""))
    if not entries:
        return [Entry(name, None, State.END, absent if model is None else model.account())]
    return [entries[number] for number in sorted(entries)]
