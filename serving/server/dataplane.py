"""What every protocol asks for: check a request against the model's signature, run it, count it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from serving.server import exchange, pictures
from serving.server.eager import have_task
from serving.server.errors import (
    DEADLINE_PASSED,
    DeadlineError,
    InvalidRequestError,
    ServerError,
    TooLargeError,
)
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
    is_floating,
)
from serving.server.versions import Version

TIMED = ("OK", "INTERNAL", "DEADLINE_EXCEEDED")
"""The codes of requests whose duration tells of the server: it refuses in no time, and clients leave when they will."""


@dataclass(frozen=True)
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
    stopping: bool = field(default=False, init=False)

    @property
    def ready(self) -> bool:
        """Whether the server should get requests."""
        return not self.stopping and self.models.ready

    def account(self) -> str:
        """Why the server is not ready."""
        return "the server is stopping" if self.stopping else self.models.account()

    @contextmanager
    def serve(
        self, protocol: str, model: str, version: int | None = None, label: str = ""
    ) -> Iterator[Version]:
        """Hold a version loaded for one request, and count the request with what became of it.

        The version is asked for by its number, by its label, or by neither: the current one.
        Raises `NotFoundError` or `UnavailableError`.
        """
        start = time.perf_counter()
        code, found, number = "INTERNAL", "", ""
        leased: Version | None = None
        try:
            served = self.models.model(model)
            found = model
            with served.version(version, label).lease() as leased:
                number = str(leased.number)
                yield leased
            code = "OK"
        except ServerError as error:
            code = error.code.name
            raise
        except asyncio.CancelledError as error:
            code = "DEADLINE_EXCEEDED" if DEADLINE_PASSED in error.args else "CANCELLED"
            raise
        finally:
            seconds = time.perf_counter() - start
            self.metrics.request(found, number, protocol, code, seconds, code in TIMED)
            if leased is not None:
                leased.statistics.request(seconds, code == "OK")
            seen = exchange.current.get()
            if seen is not None:
                seen.protocol, seen.model, seen.version, seen.code = protocol, found, number, code

    async def infer(self, version: Version, call: Call) -> Tensors:
        """Answer a call with the outputs wanted, in the order wanted.

        Raises `InvalidRequestError` where the call does not fit the signature, `TooLargeError` where it has
        too many rows, `DeadlineError`, and what the runtime raises.
        """
        if call.timeout is None:
            return await self._infer(version, call)
        late = DeadlineError(
            f"no answer within the {call.timeout:g} s that the request allows; allow more, or send less at once"
        )
        start = time.perf_counter()
        await have_task()
        try:
            async with asyncio.timeout(call.timeout):
                outputs = await self._infer(version, call)
        except TimeoutError:
            raise late from None
        if time.perf_counter() - start > call.timeout:  # A run on the event loop itself is not interrupted.
            raise late
        return outputs

    async def _infer(self, version: Version, call: Call) -> Tensors:
        signature = signature_of(version, call.signature)
        _check_names(signature, call.inputs)
        outputs = _outputs(signature, call.outputs)
        inputs: Tensors = {}
        for spec in signature.inputs:
            inputs[spec.name] = await self._fit(spec, call.inputs[spec.name], call)
        return await version.batcher.run(call.signature, inputs, outputs)

    async def _fit(self, spec: TensorSpec, array: Array, call: Call) -> Array:
        if array.ndim and len(array) > self.max_rows and spec.batched:
            raise TooLargeError(
                f"input {spec.name!r} has {len(array)} rows: at most {self.max_rows} in one request"
            )
        if call.pictures and array.dtype == np.object_ and spec.channels_of_picture is not None:
            encoded = _encoded(spec, array)
            # Decoding takes milliseconds that the event loop does not have.
            return await asyncio.get_running_loop().run_in_executor(
                self.decoders, pictures.decode, encoded, spec
            )
        check(spec, array, call.finite)
        return array


def signature_of(version: Version, key: str) -> Signature:
    """A signature by its key. Raises `InvalidRequestError`."""
    if key not in version.signatures:
        known = ", ".join(sorted(version.signatures))
        raise InvalidRequestError(f"model {version.model} has no signature {key!r}; it has: {known}")
    return version.signatures[key]


def check(spec: TensorSpec, array: Array, finite: bool = True) -> None:
    """Raise `InvalidRequestError` unless the tensor has the dtype and the shape; and, where they are asked for,
    some rows and finite values.
    """
    if dtype_of(array) != spec.dtype:
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
    if is_floating(array) and not np.isfinite(array).all():
        raise InvalidRequestError(f"input {spec.name!r}: expected finite numbers, got NaN or infinity")


def _check_names(signature: Signature, inputs: Tensors) -> None:
    expected = signature.input_names
    if inputs.keys() != set(expected):
        raise InvalidRequestError(
            f"expected input{'s' if len(expected) > 1 else ''} {', '.join(expected) or '(none)'}, "
            f"got {', '.join(inputs) or 'none'}"
        )


def _outputs(signature: Signature, wanted: Sequence[str]) -> tuple[str, ...]:
    known = signature.output_names
    for name in wanted:
        if name not in known:
            raise InvalidRequestError(f"unknown output {name!r}; the model has {', '.join(known)}")
    return tuple(dict.fromkeys(wanted)) or known


def _encoded(spec: TensorSpec, array: Array) -> list[bytes]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # [N, 1], which some clients must send
    if array.ndim != 1 or array.size == 0:
        raise InvalidRequestError(
            f"input {spec.name!r}: expected encoded pictures, shape [-1]; got {list(array.shape)}"
        )
    return list(array)
