"""How TensorFlow Serving's requests name models, versions and labels, and reach them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from serving.server.dataplane import DataPlane
from serving.server.errors import InvalidRequestError, NotFoundError, UnavailableError, quote
from serving.server.records import RequestRecord
from serving.server.repository.versions import Status, Version


@dataclass(frozen=True)
class ModelSpec:
    """What a request is about: a model and, at most one of them, a version's number or label."""

    name: str
    number: int | None = None
    label: str = ""


@contextmanager
def lease(
    plane: DataPlane, record: RequestRecord, protocol: str, operation: str, spec: ModelSpec
) -> Iterator[Version]:
    """As `DataPlane.lease`, but a version that does not load is a `NotFoundError`, as in the original."""
    if not spec.name:
        raise InvalidRequestError("expected a model's name in the ModelSpec, got none")
    record.operation = operation
    with ExitStack() as stack:
        try:
            version = stack.enter_context(plane.lease(record, protocol, spec.name, spec.number, spec.label))
        except UnavailableError as error:
            if not plane.models.started:
                raise
            raise NotFoundError(str(error)) from error
        yield version


def statuses(plane: DataPlane, spec: ModelSpec) -> list[tuple[int, Status]]:
    """The versions that a status request is about, newest first.

    Raises `NotFoundError` or, for a label that is none, `InvalidRequestError`.
    """
    model = plane.models.ended(spec.name) or plane.models.model(spec.name)
    number = model.number_of(spec.label) if spec.label else spec.number
    known = model.statuses
    wanted = sorted(known, reverse=True) if number is None else [n for n in known if n == number]
    if not wanted:
        which = "any version" if number is None else f"version {number}"
        raise NotFoundError(f"could not find {which} of model {quote(spec.name)}")
    return [(n, known[n]) for n in wanted]
