"""Every model that a server serves, as the configuration or the repository names them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from serving.server.errors import NotFoundError, UnavailableError
from serving.server.metrics import Metrics
from serving.server.policies import ModelConfig
from serving.server.versions import Limits, LoadVersion, Model


class Models:
    """Every model that the server serves."""

    def __init__(
        self,
        find: Callable[[], dict[str, ModelConfig]],
        load: LoadVersion,
        threads: ThreadPoolExecutor,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._find = find
        self._load = load
        self._threads = threads
        self._metrics = metrics
        self._limits = limits
        self._models: dict[str, Model] = {}
        self._looked = False
        self._refreshing = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether there are models and every one answers."""
        return self._looked and bool(self._models) and all(model.ready for model in self._models.values())

    def model(self, name: str) -> Model:
        """A model by its name. Raises `NotFoundError`."""
        if name not in self._models:
            if not self._looked:
                raise UnavailableError("the server is starting: no model is loaded yet")
            raise NotFoundError(
                f"model {name!r} is not served; served: {', '.join(sorted(self._models)) or 'none'}"
            )
        return self._models[name]

    def available(self, name: str, version: int) -> bool:
        """Whether a version of a model answers now."""
        return name in self._models and version in self._models[name].loaded

    def account(self) -> str:
        """Why not every model answers."""
        if not self._models:
            return "no model was found" if self._looked else "the server is starting: no model is loaded yet"
        return "; ".join(model.account() for model in self._models.values() if not model.ready)

    async def refresh(self) -> None:
        """Look at every model's folder once. Raises what `find` raises."""
        async with self._refreshing:
            configs = await asyncio.to_thread(self._find)
            for name, config in configs.items():
                if name in self._models:
                    self._models[name].config = config
                else:
                    self._models[name] = Model(config, self._load, self._threads, self._metrics, self._limits)
            gone = [self._models.pop(name) for name in list(self._models) if name not in configs]
            await asyncio.gather(*(model.close() for model in gone))
            await asyncio.gather(*(model.refresh() for model in self._models.values()))
            self._looked = True

    async def close(self) -> None:
        """Unload everything."""
        await asyncio.gather(*(model.close() for model in self._models.values()))
