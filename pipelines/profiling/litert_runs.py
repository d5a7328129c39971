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
from pipelines.profiling.record import WARM, Clock, Profiled, ProfilingError, dearest, write_trace

TRIED = "2.3."
"""The C API changes with LiteRT: these are the versions that have it as it stands here."""
LIBRARY = ctypes.CDLL(str(next(Path(ai_edge_litert.__file__).parent.glob("libLiteRt.*"))))
CPU, WRITE = 1, 1
RUN, OPS = 1, (2, 4, 8)
"""Kinds of events: LiteRT's own work; operators, the last two of a delegate."""
NOTE = "LiteRT tells how long each op of XNNPACK took, not when it began: the trace lays them end to end."


class Layout(ctypes.Structure):
    """LiteRtLayout."""

    _fields_ = (("rank", c_uint32), ("sizes", c_int32 * 8), ("strides", c_uint32 * 8))


class TensorType(ctypes.Structure):
    """LiteRtRankedTensorType."""

    _fields_ = (("element", c_int), ("layout", Layout))


class Event(ctypes.Structure):
    """ProfiledEventData, in microseconds; a delegate's operators have no start."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start", c_uint64),
        ("elapsed", c_uint64),
        ("memory", c_uint64 * 6),
        ("node", c_uint64),
        ("more", c_uint64 * 2),
    )


def profile(artifact: Path, batches: Sequence[Arrays], folder: Path) -> Profiled:
    """Time, then trace, a run of each batch."""
    version = metadata.version("ai-edge-litert")
    if not version.startswith(TRIED):
        raise ProfilingError(f"its op profile was tried with ai-edge-litert {TRIED}x, and here is {version}")
    if any(array.dtype.hasobject for array in batches[0].values()):
        raise ProfilingError("its op profile takes numbers, and the model takes strings")
    with _quiet():
        model = CompiledModel(artifact, batches[0])
    for _ in range(WARM):
        model.run(batches[0])
    clock = Clock()
    for batch in batches:
        with clock("forward"):
            model.run(batch)
    call("LiteRtStartProfiler", model.profiler)
    for batch in batches:
        model.run(batch)
    call("LiteRtStopProfiler", model.profiler)
    events = list(model.events())
    write_trace(folder / "trace.json", events)
    ops = ((name, elapsed / 1e6) for kind, name, _, elapsed in events if kind == "ops")
    runs_on, steps = f"ai-edge-litert {version}, 1 thread", len(batches)
    return Profiled("litert", runs_on, clock.each(steps), dearest(ops, steps), NOTE)


class CompiledModel:
    """LiteRtCompiledModel with buffers for inputs of these shapes. It is freed as the process ends."""

    def __init__(self, artifact: Path, inputs: Arrays) -> None:
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
        self.names = [self._name(place) for place in range(self._count("Inputs"))]
        for place, name in enumerate(self.names):
            shape = inputs[name].shape
            sizes = (c_int * len(shape))(*shape)
            call("LiteRtCompiledModelResizeInputTensorNonStrict", self.model, 0, place, sizes, len(shape))
        layouts = (Layout * self._count("Outputs"))()
        call("LiteRtGetCompiledModelOutputTensorLayouts", self.model, 0, len(layouts), layouts, 1)
        self.outputs = self._buffers("Output", layouts)
        layouts = (Layout * len(self.names))()
        for place, layout in enumerate(layouts):
            call("LiteRtGetCompiledModelInputTensorLayout", self.model, 0, place, byref(layout))
        self.inputs = self._buffers("Input", layouts)

    def run(self, batch: Arrays) -> None:
        """Give LiteRT the batch, and run it."""
        for name, buffer in zip(self.names, self.inputs, strict=True):
            array, address = np.ascontiguousarray(batch[name]), c_void_p()
            handle = c_void_p(buffer)
            call("LiteRtLockTensorBuffer", handle, byref(address), WRITE)
            ctypes.memmove(address, array.ctypes.data, array.nbytes)
            call("LiteRtUnlockTensorBuffer", handle)
        count = len(self.inputs), len(self.outputs)
        call("LiteRtRunCompiledModel", self.model, 0, count[0], self.inputs, count[1], self.outputs)

    def events(self) -> Iterator[tuple[str, str, int, int]]:
        """Thread, name, start and duration of what the profiler saw."""
        count, end = c_int(), 0
        call("LiteRtGetNumProfilerEvents", self.profiler, byref(count))
        seen = (Event * count.value)()
        call("LiteRtGetProfilerEvents", self.profiler, count.value, seen)
        for event in seen:
            if event.kind == RUN:
                end = event.start
                yield "runs", event.tag.decode(), event.start, event.elapsed
            elif event.kind in OPS:
                start = event.start or end
                end = start + event.elapsed
                yield "ops", f"{event.tag.decode()} {event.node}", start, event.elapsed

    def _name(self, place: int) -> str:
        name = c_char_p()
        call("LiteRtGetSignatureInputName", self.signature, place, byref(name))
        return (name.value or b"").decode()

    def _count(self, kind: str) -> int:
        found = c_size_t()
        call(f"LiteRtGetNumSignature{kind}", self.signature, byref(found))
        return found.value

    def _buffers(self, kind: str, layouts: ctypes.Array[Layout]) -> ctypes.Array[c_void_p]:
        buffers = (c_void_p * len(layouts))()
        for place, layout in enumerate(layouts):
            own = TensorType()
            tensor = made(f"LiteRtGetSignature{kind}TensorByIndex", self.signature, place)
            call("LiteRtGetRankedTensorType", tensor, byref(own))
            own.layout = layout
            needed = made(f"LiteRtGetCompiledModel{kind}BufferRequirements", self.model, 0, place)
            managed = "LiteRtCreateManagedTensorBufferFromRequirements"
            buffers[place] = made(managed, self.environment, byref(own), needed)
        return buffers


def call(name: str, *arguments: Any) -> None:  # noqa: ANN401
    """Call a function of the C API. Raises `ProfilingError` with its status."""
    given = [c_size_t(own) if isinstance(own, int) else own for own in arguments]
    if status := getattr(LIBRARY, name)(*given):
        raise ProfilingError(f"{name} failed with status {status}")


def made(name: str, *arguments: Any) -> c_void_p:  # noqa: ANN401
    """The handle that a function of the C API gives."""
    handle = c_void_p()
    call(name, *arguments, byref(handle))
    return handle


@contextmanager
def _quiet() -> Iterator[None]:
    """Without LiteRT's lines on stderr about accelerators that this machine has not."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
