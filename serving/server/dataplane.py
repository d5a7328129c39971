"""What every protocol asks for: check a request against the model's signature, run it, count it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from serving.server import exchange, pictures
from serving.server.eager import have_task
from serving.server.errors import DeadlineError, InvalidRequestError, TooLargeError, UnavailableError
from serving.server.lease import Lease
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.observer import Observer
from serving.server.signature import (
    DEFAULT_SIGNATURE,
    Array,
    Signature,
    Tensors,
    TensorSpec,
    dtype_of,
)
from serving.server.versions import Version


@dataclass(slots=True)
class Call:
    """One inference: tensors by name, for a signature, with the outputs wanted (none named: all)."""

    inputs: Tensors
    outputs: tuple[str, ...] = ()
    signature: str = DEFAULT_SIGNATURE
    pictures: bool = True
    """Whether encoded pictures may stand in for a float32 [-1, H, W, C] input."""
    finite: bool = True
    """Whether NaN, infinity and empty tensors are refused."""
    timeout: float | None = None
    """Seconds after which the answer is of no use any more."""


@dataclass
class DataPlane:
    """The floor below the protocols."""

    models: Models
    metrics: Metrics
    decoders: Executor
    """Where pictures are decoded."""
    platform: str
    """The runtime behind, as model metadata names it."""
    max_rows: int = 1024
    """Rows in one request."""
    observer: Observer = field(default_factory=Observer)
    picture_bytes: int = 512 << 20
    """Of the tensors that pictures become, of all requests together; one alone may have more."""
    stopping: bool = field(default=False, init=False)
    _held: int = field(default=0, init=False)

    @property
    def ready(self) -> bool:
        """Whether the server should get requests."""
        return not self.stopping and self.models.ready

    def account(self) -> str:
        """Why the server is not ready."""
        return "the server is stopping" if self.stopping else self.models.account()

    def serve(self, protocol: str, model: str, version: int | None = None, label: str = "") -> Lease:
        """A context in which a version is held loaded for one request, which is counted with what becomes of it.

        The version is asked for by its number, by its label, or by neither: the current one.
        Entering it raises `NotFoundError` or `UnavailableError`.
        """
        return Lease(self.models, self.metrics, protocol, model, version, label)

    def infer(self, version: Version, call: Call) -> Awaitable[Tensors]:
        """Answer a call with the outputs wanted, in the order wanted.

        The call of a client that is alone is answered without suspending where its run is sure to be short.
        Raises `InvalidRequestError` where the call does not fit the signature, `TooLargeError` where it has
        too many rows, `DeadlineError`, and what the runtime raises.
        """
        if call.timeout is None:
            return self._infer(version, call)
        return self._infer_within(call.timeout, version, call)

    async def _infer_within(self, timeout: float, version: Version, call: Call) -> Tensors:
        late = DeadlineError(
            f"no answer within the {timeout:g} s that the request allows; allow more, or send less at once"
        )
        start = time.perf_counter()
        await have_task()
        try:
            async with asyncio.timeout(timeout):
                outputs = await self._infer(version, call)
        except TimeoutError:
            raise late from None
        if time.perf_counter() - start > timeout:  # A run on the event loop itself is not interrupted.
            raise late
        return outputs

    async def _infer(self, version: Version, call: Call) -> Tensors:
        _check_deadline()
        signature = signature_of(version, call.signature)
        if call.inputs.keys() != signature.names:
            raise _wrong_names(signature, call.inputs)
        outputs = _outputs(signature, call.outputs)
        inputs: Tensors = {}
        decoded = 0
        try:
            for spec in signature.inputs:
                array = call.inputs[spec.name]
                if array.ndim and len(array) > self.max_rows and spec.batched:
                    raise TooLargeError(
                        f"input {spec.name!r} has {len(array)} rows: at most {self.max_rows} in one request"
                    )
                if call.pictures and array.dtype.hasobject and spec.channels_of_picture is not None:
                    # Decoding takes milliseconds that the event loop does not have.
                    array = await asyncio.get_running_loop().run_in_executor(
                        self.decoders, pictures.decode, _encoded(spec, array), spec
                    )
                    decoded += array.nbytes
                    self._hold(array.nbytes)
                else:
                    check(spec, array, call.finite)
                inputs[spec.name] = array
            answer = await version.batcher.run(call.signature, inputs, outputs)
        finally:
            self._held -= decoded
        _check_deadline()  # Nothing interrupts a run on the event loop itself.
        return answer

    def _hold(self, size: int) -> None:
        self._held += size
        if self.picture_bytes < self._held > size:
            raise UnavailableError(f"decoded pictures fill {self.picture_bytes} bytes already; try again")


def signature_of(version: Version, key: str) -> Signature:
    """A signature by its key. Raises `InvalidRequestError`."""
    signature = version.signatures.get(key)
    if signature is None:
        known = ", ".join(sorted(version.signatures))
        raise InvalidRequestError(f"model {version.model} has no signature {key!r}; it has: {known}")
    return signature


def check(spec: TensorSpec, array: Array, finite: bool = True) -> None:
    """Raise `InvalidRequestError` unless the tensor has the dtype and the shape; and, where they are asked for,
    some rows and finite values.
    """
    if array.dtype is not spec.numpy and dtype_of(array) != spec.dtype:
        raise InvalidRequestError(f"input {spec.name!r}: expected dtype {spec.dtype}, got {dtype_of(array)}")
    if not spec.admits(array.shape):
        raise InvalidRequestError(
            f"input {spec.name!r}: expected shape {list(spec.shape or ())} (-1: any), got {list(array.shape)}"
        )
    if not finite:
        return
    if array.size == 0:
        raise InvalidRequestError(
            f"input {spec.name!r}: expected at least one row, got shape {list(array.shape)}"
        )
    # `all` takes twice as long, and so does a sum, which overflows.
    if spec.floating and b"\0" in np.isfinite(array).tobytes():
        raise InvalidRequestError(f"input {spec.name!r}: expected finite numbers, got NaN or infinity")


def _check_deadline() -> None:
    due = exchange.deadline.get()
    if due is not None and time.monotonic() > due[0]:
        raise DeadlineError(due[1])


def _wrong_names(signature: Signature, inputs: Tensors) -> InvalidRequestError:
    expected = signature.input_names
    return InvalidRequestError(
        f"expected input{'s' if len(expected) > 1 else ''} {', '.join(expected) or '(none)'}, "
        f"got {', '.join(inputs) or 'none'}"
    )


def _outputs(signature: Signature, wanted: tuple[str, ...]) -> tuple[str, ...]:
    known = signature.output_names
    if not wanted or wanted == known:
        return known
    for name in wanted:
        if name not in known:
            raise InvalidRequestError(f"unknown output {name!r}; the model has {', '.join(known)}")
    return tuple(dict.fromkeys(wanted))


def _encoded(spec: TensorSpec, array: Array) -> list[bytes]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # [N, 1], which some clients must send
    if array.ndim != 1 or array.size == 0:
        raise InvalidRequestError(
            f"input {spec.name!r}: expected encoded pictures, shape [-1]; got {list(array.shape)}"
        )
    return list(array)
