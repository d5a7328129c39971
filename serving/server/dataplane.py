"""The data plane, shared by all protocols: lease a version, check a request against its signature, run it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass, field

from serving.server import pictures
from serving.server.errors import DeadlineError, InvalidRequestError, TooLargeError, quote
from serving.server.metrics import Metrics, RequestRecord
from serving.server.repository.models import Models
from serving.server.repository.versions import Version
from serving.server.tensors.signature import (
    DEFAULT_SIGNATURE,
    Array,
    Signature,
    Tensors,
    TensorSpec,
    signature_of,
)


@dataclass(slots=True)
class Call:
    """An inference: input tensors by name, a signature, and the wanted outputs (empty: all)."""

    inputs: Tensors
    outputs: tuple[str, ...] = ()
    signature: str = DEFAULT_SIGNATURE
    pictures: bool = True
    """True if a float32 [-1, H, W, C] input may be encoded pictures."""
    timeout: float | None = None
    """The client's time limit in seconds."""


@dataclass
class DataPlane:
    models: Models
    metrics: Metrics
    decoders: Executor
    """Runs the decoding of pictures."""
    platform: str
    """The runtime's name in model metadata."""
    max_rows: int = 1024
    """Maximum rows of a request."""
    stopping: bool = field(default=False, init=False)

    @property
    def ready(self) -> bool:
        """Return True if the server is ready for requests."""
        return not self.stopping and self.models.ready

    def account(self) -> str:
        """Return the reason why the server is not ready."""
        return "the server is stopping" if self.stopping else self.models.account()

    def lease(
        self, record: RequestRecord, protocol: str, model: str, number: int | None = None, label: str = ""
    ) -> Version:
        """Return a version, by number, label or neither (the current one), to be used as a context; fill in the record.

        Raises `NotFoundError`, `UnavailableError` or, for an unknown label, `InvalidRequestError`.
        """
        record.protocol = protocol
        found = self.models.model(model)
        record.model = model
        version = found.version(number, label)
        record.version, record.statistics = str(version.number), version.statistics
        return version

    async def infer(self, version: Version, call: Call, record: RequestRecord) -> Tensors:
        """Return the wanted outputs, in their order.

        Raises `InvalidRequestError` if the call does not fit the signature, `TooLargeError` for too many rows,
        `DeadlineError`, and as the queue and the runtime do.
        """
        signature = signature_of(version.signatures, call.signature)
        outputs = _wanted(signature, call.outputs)
        signature.check_names(call.inputs)
        inputs = dict(call.inputs)
        encoded: list[TensorSpec] = []
        for spec in signature.inputs:
            if (array := inputs.get(spec.name)) is None:
                continue
            if call.pictures and array.dtype.hasobject and spec.picture_size is not None:
                encoded.append(spec)
            else:
                spec.check(array, version.finite)
            if array.ndim and len(array) > self.max_rows and spec.batched:
                rows = f"input {spec.name!r} has {len(array)} rows"
                raise TooLargeError(f"{rows}: at most {self.max_rows} in one request")
        try:
            async with asyncio.timeout(call.timeout):
                for spec in encoded:
                    inputs[spec.name] = await self._decode(spec, inputs[spec.name])
                return await version.queues[call.signature].run(inputs, outputs, record)
        except TimeoutError:
            allowed = f"the {call.timeout:g} s that the request allows"
            raise DeadlineError(f"no response within {allowed}; allow more, or send less at once") from None

    async def _decode(self, spec: TensorSpec, array: Array) -> Array:
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]  # [N, 1], the only form of some clients
        if array.ndim != 1 or array.size == 0:
            raise spec.refused(f"expected encoded pictures, shape [-1]; got {list(array.shape)}")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.decoders, pictures.decode, list(array), spec)


def _wanted(signature: Signature, wanted: tuple[str, ...]) -> tuple[str, ...]:
    known = signature.output_names
    if not wanted or wanted == known:
        return known
    for name in wanted:
        if name not in known:
            raise InvalidRequestError(f"unknown output {quote(name)}; the model has {', '.join(known)}")
    return tuple(dict.fromkeys(wanted))
