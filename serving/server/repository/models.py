"""The models of a server, by its configuration or repository."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator

from serving import repository
from serving.server.errors import InvalidRequestError, NotFoundError, UnavailableError, quote
from serving.server.repository.policies import ModelConfig
from serving.server.repository.versions import Model, Serving, State, Status


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
        """Models that are no longer configured or were unloaded, for the status of their versions."""
        self.started = False
        """True after the first refresh."""
        self._refreshing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Return True if there are models and all are ready."""
        return self.started and bool(self._models) and all(model.ready for model in self)

    def __iter__(self) -> Iterator[Model]:
        return iter([self._models[name] for name in sorted(self._models)])

    def model(self, name: str) -> Model:
        """Return a model by name. Raises `NotFoundError` or, while the server starts, `UnavailableError`."""
        if name not in self._models:
            if not self.started:
                raise UnavailableError("the server is starting: no model is loaded yet")
            if name in self._unloaded:
                raise NotFoundError(f"model {quote(name)} was unloaded on request; load it to call it again")
            served = ", ".join(sorted(self._models)) or "none"
            raise NotFoundError(f"model {quote(name)} is not served; served: {served}")
        return self._models[name]

    def loads(self) -> Iterator[tuple[str, int, int]]:
        """Return the model, number, and number of waiting requests of each loaded version."""
        for model in self:
            for number, version in model.loaded.items():
                yield model.name, number, version.waiting

    def available(self, name: str, version: int) -> bool:
        return name in self._models and version in self._models[name].loaded

    def account(self) -> str:
        """Return the reason why models are not ready."""
        if not self._models:
            found = f"no model was found{self._layout}"
            return found if self.started else "the server is starting: no model is loaded yet"
        return "; ".join(model.account() for model in self if not model.ready)

    async def refresh(self) -> None:
        """Check every model's folder once. Raises as `find` does."""
        await self._finish(self._refresh())

    async def load(self, name: str) -> None:
        """Load a model from the repository, also if its files have changed; returns when it is ready.

        A loaded version goes on answering, and stays if the new files do not load. Raises `NotFoundError` if the
        repository has no such model, and `InvalidRequestError` with the reason if it cannot be loaded.
        """
        await self._finish(self._load(name))

    async def unload(self, name: str) -> None:
        """Unload a model until it is loaded again; returns after its last request. Raises `NotFoundError`."""
        await self._finish(self._unload(name))

    async def index(self) -> list[tuple[str, int | None, Status]]:
        """Return all versions of all models in the repository, sorted; None for a model without versions."""
        configs = await asyncio.to_thread(self._find)
        entries: list[tuple[str, int | None, Status]] = []
        for name, config in sorted(({model.name: model.config for model in self} | configs).items()):
            present = await asyncio.to_thread(repository.versions, config.directory)
            absent = "unloaded on request" if name in self._unloaded else "not loaded"
            statuses = dict.fromkeys(present, Status(State.END, NotFoundError(absent)))
            model = self._models.get(name)
            if model is not None:
                known = model.statuses.items()
                statuses |= {
                    n: status for n, status in known if status.state is not State.END or status.fault
                }
            if not statuses:
                absent = absent if model is None else model.account()
                entries.append((name, None, Status(State.END, NotFoundError(absent))))
            entries += [(name, number, statuses[number]) for number in sorted(statuses)]
        return entries

    async def _finish(self, change: Coroutine[None, None, None]) -> None:
        # A cancelled request must not leave a model half loaded.
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _refresh(self) -> None:
        async with self._refreshing:
            configs = await asyncio.to_thread(self._find)
            for name, config in configs.items():
                if name not in self._unloaded:
                    self._configure(config)
            for name in self._models.keys() - configs.keys():
                self._end(name)
            await asyncio.gather(*(model.refresh() for model in self))
            self.started = True

    async def _load(self, name: str) -> None:
        async with self._refreshing:
            config = await self._config(name)
            self._unloaded.discard(name)
            fault = await self._configure(config).refresh(reload=True)
            if fault:
                raise InvalidRequestError(f"model {name!r} is not loaded: {fault}")

    async def _unload(self, name: str) -> None:
        async with self._refreshing:
            if name not in self._unloaded:
                await self._config(name)
            self._unloaded.add(name)
            if name in self._models:
                self._end(name)
        if name in self.ended:  # Outside of the lock: requests may take long.
            await self.ended[name].unloaded()

    def _configure(self, config: ModelConfig) -> Model:
        name = config.name
        if name not in self._models:
            ended = name in self.ended
            self._models[name] = self.ended.pop(name) if ended else Model(config, self._serving)
        self._models[name].config = config
        return self._models[name]

    def _end(self, name: str) -> None:
        self.ended[name] = self._models.pop(name)
        self.ended[name].end()

    async def _config(self, name: str) -> ModelConfig:
        configs = await asyncio.to_thread(self._find)
        if name not in configs:
            held = ", ".join(sorted(configs)) or "none"
            raise NotFoundError(f"the repository holds no model {quote(name)}; it holds: {held}")
        return configs[name]
