"""How TensorFlow Serving names models, versions and labels, and what it says where they are not served."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import InvalidRequestError, NotFoundError, ServerError, UnavailableError
from serving.server.repository.versions import Status, Version
from serving.server.tensors.signature import Tensors
from serving.server.tfs.metrics import TfsMetrics


@dataclass(frozen=True)
class ModelSpec:
    """What a request is about: a model and, at most one of them, a version's number or label."""

    name: str
    number: int | None = None
    label: str = ""

    def __str__(self) -> str:
        return f"Latest({self.name})" if self.number is None else f"Specific({self.name}, {self.number})"


@dataclass(frozen=True)
class Served:
    """What the fronts share: the data plane, the protocol's name in our metrics, and the original's metrics."""

    plane: DataPlane
    protocol: str
    entrypoint: str
    """What the original's metrics call the protocol."""
    metrics: TfsMetrics
    batching: bool = False
    """Whether requests share runs, and so need a first dimension."""

    @contextmanager
    def lease(self, spec: ModelSpec, api: str) -> Iterator[Version]:
        """Hold the version that a request is about, and count the request.

        Raises what `DataPlane.serve` raises, in the original's words.
        """
        if not spec.name:
            raise InvalidRequestError("ModelSpec has no name specified.")
        start = time.perf_counter()
        with ExitStack() as stack:
            try:
                version = stack.enter_context(
                    self.plane.serve(self.protocol, spec.name, spec.number, spec.label)
                )
            except (NotFoundError, UnavailableError) as error:
                raise _missing(self.plane, spec, error) from error
            code = "UNKNOWN"
            try:
                yield version
                code = "OK"
            except ServerError as error:
                code = error.code.name
                raise
            finally:
                self.metrics.request(spec.name, code)
                self.metrics.latency(spec.name, api, self.entrypoint, time.perf_counter() - start)

    async def infer(self, version: Version, call: Call, api: str) -> Tensors:
        """As `DataPlane.infer`, timed."""
        if self.batching and not call.outputs:  # The original runs what asks for some outputs by itself.
            _check_first_dimension(call.inputs)
        start = time.perf_counter()
        try:
            return await self.plane.infer(version, call)
        finally:
            self.metrics.run(version.model, api, time.perf_counter() - start)


def statuses(plane: DataPlane, spec: ModelSpec) -> list[tuple[int, Status]]:
    """The versions that a status request is about, newest first. Raises `NotFoundError`."""
    number = spec.number
    model = plane.models.ended(spec.name)
    try:
        model = model or plane.models.model(spec.name)
    except NotFoundError:
        raise NotFoundError(_could_not_find(spec)) from None
    if spec.label:
        if spec.label not in model.config.labels:
            raise InvalidRequestError(f"Unrecognized servable version label: {spec.label}")
        number = model.config.labels[spec.label]
    known = model.statuses
    wanted = sorted(known, reverse=True) if number is None else [n for n in known if n == number]
    if not wanted:
        raise NotFoundError(_could_not_find(spec))
    return [(n, known[n]) for n in wanted]


def _check_first_dimension(inputs: Tensors) -> None:
    if any(array.ndim == 0 for array in inputs.values()):
        scalars = ", ".join(sorted(name for name, array in inputs.items() if array.ndim == 0))
        raise InvalidRequestError(
            f"Batching Run() input tensors must have at least one dimension, got a scalar for: {scalars}"
        )
    if len({len(array) for array in inputs.values()}) > 1:
        sizes = ", ".join(f"{name} {len(array)}" for name, array in sorted(inputs.items()))
        raise InvalidRequestError(
            f"Batching Run() input tensors must have equal 0th-dimension size, got: {sizes}"
        )


def _missing(plane: DataPlane, spec: ModelSpec, error: ServerError) -> ServerError:
    if not plane.models.started:
        return error  # The original would not listen yet.
    known: dict[int, Status] = {}
    with suppress(NotFoundError):
        model = plane.models.model(spec.name)
        known = model.statuses
        spec = replace(spec, number=model.config.labels.get(spec.label, spec.number))
    if spec.label and spec.number is None:
        return InvalidRequestError(f"Unrecognized servable version label: {spec.label}")
    faults = [
        f"; {status.fault}"
        for number, status in known.items()
        if status.fault is not None and spec.number in (None, number)
    ]
    return NotFoundError(f"Servable not found for request: {spec}{''.join(faults)}")


def _could_not_find(spec: ModelSpec) -> str:
    which = "any versions" if spec.number is None else f"version {spec.number}"
    return f"Could not find {which} of model {spec.name}"
