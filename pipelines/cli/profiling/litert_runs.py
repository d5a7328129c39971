"""Runs of a LiteRT artifact, by LiteRT's own op profile.

Its Python binding has none. Its C API has (litert/c/litert_profiler.h), whose library is in the same wheel.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from importlib import metadata
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np

from models.signature import Arrays
from pipelines.cli.profiling.record import Op, ProfilingError, dearest, write_trace

TRIED = "2.3."
"""The versions whose C API was tried; it changes with LiteRT."""
LIBRARY = ctypes.CDLL(str(next(Path(ai_edge_litert.__file__).parent.glob("libLiteRt.*"))))
CPU, HOST_MEMORY, WRITE = 1, 1, 1
RUN, OPS = 1, (2, 4, 8)
"""Kinds of events: LiteRT's own work; operators, the last two of a delegate."""
NOTE = "LiteRT tells how long each op of XNNPACK took, not when it began: the trace lays them end to end."


class TensorType(ctypes.Structure):
    """LiteRtRankedTensorType; above the rank's seven bits is one for strides."""

    _fields_ = (("element", c_int), ("rank", c_uint32), ("sizes", c_int32 * 8), ("strides", c_uint32 * 8))


class Event(ctypes.Structure):
    """ProfiledEventData, in microseconds; a delegate's operators have no start."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start", c_uint64),
        ("elapsed", c_uint64),
        ("others", c_uint64 * 9),
    )


def trace(artifact: Path, batches: Sequence[Arrays], outputs: Arrays, folder: Path) -> list[Op]:
    """Trace a run of each batch on one thread; `outputs` are those of one batch. Returns the ops."""
    version = metadata.version("ai-edge-litert")
    if not version.startswith(TRIED):
        raise ProfilingError(f"its op profile was tried with ai-edge-litert {TRIED}x, and here is {version}")
    with _quiet():
        model = CompiledModel(artifact, batches[0], outputs)
    model.run(batches[0])
    call("LiteRtStartProfiler", model.profiler)
    for batch in batches:
        model.run(batch)
    call("LiteRtStopProfiler", model.profiler)
    events = list(model.events())
    write_trace(folder / "trace.json", events)
    return dearest(
        ((name, elapsed / 1e6) for kind, name, _, elapsed in events if kind == "ops"), len(batches)
    )


class CompiledModel:
    """LiteRtCompiledModel with buffers for arrays of these shapes. It is freed as the process ends."""

    def __init__(self, artifact: Path, inputs: Arrays, outputs: Arrays) -> None:
        self.environment = made("LiteRtCreateEnvironment", 0, None)
        model = made("LiteRtCreateModelFromFile", self.environment, str(artifact).encode())
        options = made("LiteRtCreateOptions")
        call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        # LiteRT keeps both.
        self.text = ctypes.create_string_buffer(b"enable_profiling = true\n")
        self.free = ctypes.CFUNCTYPE(None, c_void_p)(lambda _text: None)
        own = made("LiteRtCreateOpaqueOptions", b"runtime_options_string", self.text, self.free)
        call("LiteRtAddOpaqueOptions", options, own)
        self.model = made("LiteRtCreateCompiledModel", self.environment, model, options)
        self.profiler = made("LiteRtCompiledModelGetProfiler", self.model)
        self.signature = made("LiteRtGetModelSignature", model, 0)
        self.inputs, self.outputs = self._buffers("Input", inputs), self._buffers("Output", outputs)
        for place, name in enumerate(self.inputs):
            shape = inputs[name].shape
            sizes = (c_int * len(shape))(*shape)
            call("LiteRtCompiledModelResizeInputTensorNonStrict", self.model, 0, place, sizes, len(shape))

    def run(self, batch: Arrays) -> None:
        """Copy the batch into LiteRT's buffers, and run it."""
        for name, buffer in self.inputs.items():
            array, address = np.ascontiguousarray(batch[name]), c_void_p()
            call("LiteRtLockTensorBuffer", buffer, byref(address), WRITE)
            ctypes.memmove(address, array.ctypes.data, array.nbytes)
            call("LiteRtUnlockTensorBuffer", buffer)
        buffers: list[Any] = []
        for own in (self.inputs.values(), self.outputs.values()):
            buffers += [len(own), (c_void_p * len(own))(*(buffer.value for buffer in own))]
        call("LiteRtRunCompiledModel", self.model, 0, *buffers)

    def events(self) -> Iterator[tuple[str, str, int, int]]:
        """Yield thread, name, start and duration of each event."""
        count, end, place = c_int(), 0, 0
        call("LiteRtGetNumProfilerEvents", self.profiler, byref(count))
        seen = (Event * count.value)()
        call("LiteRtGetProfilerEvents", self.profiler, count.value, seen)
        for event in seen:
            if event.kind == RUN:
                end, place = event.start, 0
                yield "runs", event.tag.decode(), event.start, event.elapsed
            elif event.kind in OPS:
                start = event.start or end
                end = start + event.elapsed
                # In a network that is delegated in several parts, each of them counts its ops by itself.
                yield "ops", f"{event.tag.decode()} {place}", start, event.elapsed
                place += 1

    def _buffers(self, kind: str, arrays: Arrays) -> dict[str, c_void_p]:
        """Make buffers by name, in the signature's order. LiteRT may not know an output's shape before a run."""
        buffers, count = {}, c_size_t()
        call(f"LiteRtGetNumSignature{kind}s", self.signature, byref(count))
        for place in range(count.value):
            name, own = c_char_p(), TensorType()
            call(f"LiteRtGetSignature{kind}Name", self.signature, place, byref(name))
            tensor = made(f"LiteRtGetSignature{kind}TensorByIndex", self.signature, place)
            call("LiteRtGetRankedTensorType", tensor, byref(own))
            array = arrays[(name.value or b"").decode()]
            own.rank, own.sizes = array.ndim, (c_int32 * 8)(*array.shape)
            size, managed = array.nbytes, "LiteRtCreateManagedTensorBuffer"
            buffers[(name.value or b"").decode()] = made(
                managed, self.environment, HOST_MEMORY, byref(own), size
            )
        return buffers


def call(name: str, *arguments: Any) -> None:  # noqa: ANN401
    """Call a function of the C API. Raises `ProfilingError` with its status."""
    given = [c_size_t(own) if isinstance(own, int) else own for own in arguments]
    if status := getattr(LIBRARY, name)(*given):
        raise ProfilingError(f"{name} failed with status {status}")


def made(name: str, *arguments: Any) -> c_void_p:  # noqa: ANN401
    """Return the handle that a function of the C API makes."""
    handle = c_void_p()
    call(name, *arguments, byref(handle))
    return handle


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress LiteRT's lines on stderr about accelerators that this machine lacks."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
