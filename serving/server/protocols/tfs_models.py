"""How TensorFlow Serving names models, versions and labels, and what it says where they are not served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from serving.server.dataplane import DataPlane
from serving.server.errors import InvalidRequestError, NotFoundError, ServerError, UnavailableError
from serving.server.versions import State, Status, Version


@dataclass(frozen=True)
class ModelSpec:
    """What a request is about: a model and, at most one of them, a version's number or label."""

    name: str
    number: int | None = None
    label: str = ""

    def __str__(self) -> str:
        return f"Latest({self.name})" if self.number is None else f"Specific({self.name}, {self.number})"


@contextmanager
def leased(plane: DataPlane, protocol: str, spec: ModelSpec) -> Iterator[Version]:
    """Hold the version that a request is about. Raises what `DataPlane.serve` raises, in the original's words."""
    if not spec.name:
        raise InvalidRequestError("ModelSpec has no name specified.")
    with ExitStack() as stack:
        try:
            version = stack.enter_context(plane.serve(protocol, spec.name, spec.number, spec.label))
        except (NotFoundError, UnavailableError) as error:
            raise _missing(plane, spec, error) from error
        yield version


def statuses(plane: DataPlane, spec: ModelSpec) -> list[tuple[int, Status]]:
    """The versions that a status request is about, newest first. Raises `NotFoundError`."""
    number = spec.number
    try:
        model = plane.models.model(spec.name)
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


def _missing(plane: DataPlane, spec: ModelSpec, error: ServerError) -> ServerError:
    known: dict[int, Status] = {}
    try:
        known = plane.models.model(spec.name).statuses
    except UnavailableError:
        return error  # The server is starting: the original would not listen yet.
    except NotFoundError:
        pass
    loading = any(status.state in (State.START, State.LOADING) for status in known.values())
    if loading and isinstance(error, UnavailableError):
        return error
    faults = [
        str(status.fault)
        for number, status in known.items()
        if status.fault and spec.number in (None, number)
    ]
    return NotFoundError(
        f"Servable not found for request: {spec}" + "".join(f"; {fault}" for fault in faults)
    )


def _could_not_find(spec: ModelSpec) -> str:
    which = "any versions" if spec.number is None else f"version {spec.number}"
    return f"Could not find {which} of model {spec.name}"
