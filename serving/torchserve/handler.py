"""The handler of TorchServe's worker; it is packed into the .mar and imports nothing of Tandem.

A request's body has one of these forms, recognized by its first bytes:

    {"instances": [row, ...]}   TF Serving's row form: {<input>: numbers of its shape, ...}, or the numbers alone of
                                the only input; a picture may be {"b64": <base64 of a PNG or JPEG>}
    an .npy array               [N, *shape], for a model with one input
    {"inputs": {<input>: ...}}  for a model that is not batched; the response is {"outputs": {...}}
    a PNG or JPEG               one picture, for a model whose only input is a picture

The response is {"predictions": [{<output>: [...], ...}, ...]}. Errors are {"code", "type", "message"}, as TorchServe's
own: 400 for bad input, 500 for a failed model, without effect on other requests of a batch. The header `describe: True`
asks for the version, as in TorchServe's own handlers.

`signature.json` has "batched", as the gate has proved it, and the form of the network: "exported" and "aot" are run by
PyTorch, "onnx" by ONNX Runtime, named in the header `x-runtime`. A version whose outputs differ from `golden.json` is
refused.

TorchServe requires exactly one class in this file, so errors are its own `PredictionException`.
"""

from __future__ import annotations

import base64
import gc
import io
import json
import logging
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from PIL import Image
from ts.context import Context
from ts.utils.util import PredictionException

NPY_MAGIC = b"\x93NUMPY"
PICTURE_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
FAILURES = {
    400: ("Bad Request", "BadRequestException"),
    500: ("Internal Server Error", "InternalServerException"),
}
FORMS = 'expected JSON {"instances": [...]}, an .npy array, or a PNG or JPEG picture'
MAX_PIXELS = 16_777_216
"""4096 x 4096, which a few kilobytes may unpack to."""
SLICE = 256
"""Rows of a run of a batched model: thousands would need gigabytes."""

KINDS = {
    "f": ("iuf", "number"),
    "i": ("iu", "whole number"),
    "u": ("iu", "whole number"),
    "b": ("b", "truth value"),
}
"""The accepted kinds of JSON values by a dtype's kind, and their name in messages."""

Array = NDArray[Any]
Inputs = dict[str, Array]
Answer: TypeAlias = bytes | PredictionException


class Handler:
    """The handler, by the `signature.json` beside it: inputs, outputs, batched or not."""

    def initialize(self, context: Context) -> None:
        """Load the signature and the model, check the golden sample, and warm up."""
        folder = Path(context.system_properties["model_dir"])
        signature = json.loads((folder / "signature.json").read_text())
        self.inputs: dict[str, dict[str, Any]] = signature["inputs"]
        self.alone = all(tensor["shape"][:1] != ["batch"] for tensor in self.inputs.values())
        start = 0 if self.alone else 1
        self.shapes = {name: tuple(tensor["shape"][start:]) for name, tensor in self.inputs.items()}
        self.only = next(iter(self.inputs)) if len(self.inputs) == 1 else ""
        self.picture = self.only if self.only and self.inputs[self.only]["content"] == "picture" else ""
        self.output_names = list(signature["outputs"])
        self.batched: bool = signature.get("batched", False)
        self.runtime: str = signature.get("runtime", "ONNX Runtime")
        self.model: str = context.model_name
        self.network: Callable[..., Sequence[torch.Tensor]]
        self.description = {
            "model": self.model,
            "version": (context.manifest or {}).get("model", {}).get("modelVersion"),
            "batched": self.batched,
            "runtime": self.runtime,
        }
        self.check_processor(signature.get("instruction_set", {}))
        self.load(folder, signature.get("form", "onnx"))
        if (golden := folder / "golden.json").exists():
            self.check_golden(json.loads(golden.read_text()))
        else:
            rows = {name: [2 if isinstance(s, str) else s for s in row] for name, row in self.shapes.items()}
            first = [] if self.alone else [1]
            self.infer({n: np.zeros(first + rows[n], own["dtype"]) for n, own in self.inputs.items()})
        # Else the worker logs two lines for each request.
        logging.getLogger().setLevel(logging.WARNING)
        # Else collections of garbage traverse torch's objects for 100 ms.
        gc.freeze()

    def load(self, folder: Path, form: str) -> None:
        """Load the network, to run on one thread: TorchServe scales by workers."""
        torch.set_num_threads(1)
        if form == "exported":
            self.network = torch.export.load(folder / "model.pt2").module()
        elif form == "aot":
            # Else they warn that the CPU has further instructions, and that there is no g++.
            for name in ("torch.export", "torch._inductor"):
                logging.getLogger(name).setLevel(logging.ERROR)
            self.network = torch._inductor.aoti_load_package(str(folder / "model.pt2"))
        elif form == "onnx":
            self.network = self.load_onnx(str(folder / "model.onnx"))
        else:
            raise ValueError(f"expected the form exported, aot or onnx, the archive says {form!r}")

    def load_onnx(self, path: str) -> Callable[..., list[torch.Tensor]]:
        """Return ONNX Runtime's session as a function of PyTorch's tensors."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def network(*tensors: torch.Tensor) -> list[torch.Tensor]:
            inputs = {name: tensor.numpy() for name, tensor in zip(self.inputs, tensors, strict=True)}
            return [torch.from_numpy(output) for output in session.run(self.output_names, inputs)]

        return network

    def infer(self, inputs: Inputs) -> list[Array]:
        """Return the outputs, with as many rows as the inputs."""
        with torch.inference_mode():
            outputs = self.network(*(torch.tensor(inputs[name]) for name in self.inputs))
            return [output.numpy() for output in outputs]

    def outputs(self, inputs: Inputs) -> Inputs:
        """Return the outputs of a run by name, in C order."""
        arrays = [np.array(output, order="C") for output in self.infer(inputs)]
        return dict(zip(self.output_names, arrays, strict=True))

    def check_processor(self, wanted: dict[str, Any]) -> None:
        """Raise `RuntimeError` if code was compiled for another CPU: it would crash."""
        here = (platform.machine(), torch.backends.cpu.get_cpu_capability())
        if wanted and (here[0] != wanted["machine"] or here[1] not in wanted["capabilities"]):
            raise RuntimeError(
                f"its code is compiled for {wanted['march']} ({wanted['machine']} with "
                f"{' or '.join(wanted['capabilities'])}), this CPU offers {here[0]} with {here[1]}"
            )

    def check_golden(self, golden: dict[str, Any]) -> None:
        """Raise `RuntimeError` if the outputs for the golden sample are not the source framework's."""
        found = self.outputs({name: _array(tensor) for name, tensor in golden["inputs"].items()})
        for name, tensor in golden["outputs"].items():
            left, right = found[name].astype(np.float64), _array(tensor).astype(np.float64)
            same = (left == right) | (np.isnan(left) & np.isnan(right))
            apart = np.where(same, 0.0, np.nan_to_num(np.abs(left - right), nan=np.inf))
            difference = float(apart.max(initial=0))
            limit = golden["tolerance"] * max(1.0, float(np.abs(right[np.isfinite(right)]).max(initial=0)))
            if difference > limit:
                raise RuntimeError(
                    f"golden sample: {name} differs by {difference:.3g} from the source framework's answer, "
                    f"the limit is {limit:.3g}"
                )

    def handle(self, rows: list[dict[str, Any]], context: Context) -> list[bytes]:
        """Answer a batch. Raises `PredictionException` for a failed gRPC request alone in its batch."""
        headers = [context.get_all_request_header(index) for index in range(len(rows))]
        answers = self.answer(rows, [_header(own, "describe") == "True" for own in headers])
        bodies: list[bytes] = []
        for index, answer in enumerate(answers):
            if isinstance(answer, PredictionException):
                # TorchServe ignores the status set here for gRPC; only an exception, which fails the batch, becomes
                # a gRPC error.
                if len(rows) == 1 and _header(headers[index], "host") is None:
                    raise answer
                phrase, kind = FAILURES[answer.error_code]
                context.set_response_status(answer.error_code, phrase, index)
                error = {"code": answer.error_code, "type": kind, "message": answer.message}
                bodies.append(orjson.dumps(error))
            else:
                bodies.append(answer)
            context.set_response_content_type(index, "application/json")
            context.set_response_header(index, "x-runtime", self.runtime)
        return bodies

    def answer(self, rows: list[dict[str, Any]], described: list[bool]) -> list[Answer]:
        """Return the JSON body or the error of each request."""
        parsed = [
            orjson.dumps(self.description) if describe else _tried(self.parse, row)
            for row, describe in zip(rows, described, strict=True)
        ]
        predictions = iter(self.predict([inputs for inputs in parsed if isinstance(inputs, dict)]))
        return [next(predictions) if isinstance(answer, dict) else answer for answer in parsed]

    def parse(self, row: dict[str, Any]) -> Inputs:
        """Return the inputs of a request. Raises `PredictionException`."""
        inputs = self.decode(_body(row))
        if not self.alone and not _rows(inputs):
            raise _bad("expected at least one row, got none")
        if not all(np.isfinite(array).all() for array in inputs.values()):
            raise _bad("expected finite numbers, got NaN or infinity")
        return inputs

    def predict(self, requests: list[Inputs]) -> list[Answer]:
        """Run the requests, together if the model is batched; returns the body or the error of each."""
        if self.batched and len(requests) > 1:
            # If the common run fails, each runs alone: only one may be at fault.
            with suppress(PredictionException):
                together = {name: np.concatenate([own[name] for own in requests]) for name in self.inputs}
                rows = iter(self.run(together))
                return [self.encode([next(rows) for _ in range(_rows(own))]) for own in requests]
        return [_tried(lambda inputs: self.encode(self.run(inputs)), inputs) for inputs in requests]

    def encode(self, rows: list[Inputs]) -> bytes:
        """Return the body of a response."""
        answer: dict[str, Any] = {"predictions": rows}
        if self.alone:
            # orjson accepts no array without dimensions.
            answer = {"outputs": {n: array if array.ndim else array.item() for n, array in rows[0].items()}}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def run(self, inputs: Inputs) -> list[Inputs]:
        """Return the outputs of each row; of the call if the model has no batch. Raises `PredictionException`."""
        found: list[Inputs] = []
        try:
            if self.alone:
                return [self.outputs(inputs)]
            size = SLICE if self.batched else _rows(inputs)
            for start in range(0, _rows(inputs), size):
                part = {name: array[start : start + size] for name, array in inputs.items()}
                outputs = self.outputs(part)
                for name, output in outputs.items():
                    if output.shape[:1] != (_rows(part),):
                        raise ValueError(f"{_rows(part)} rows gave {name} of shape {list(output.shape)}")
                found += [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
        except Exception as error:  # noqa: BLE001 - runtimes raise any exception
            raise PredictionException(f"model {self.model} failed: {_short(error)}", 500) from None
        return found

    def decode(self, body: bytes) -> Inputs:
        """Recognize the form of a body and decode it. Raises `PredictionException`."""
        if body.startswith(NPY_MAGIC) and self.only:
            return {self.only: self.decode_npy(body)}
        if body.startswith(PICTURE_MAGIC) and self.picture:
            return {self.picture: self.decode_picture(body)[np.newaxis]}
        if body.lstrip()[:1] in (b"{", b"["):
            return self.decode_json(body)
        others = ", an .npy array" * bool(self.only) + ", or a PNG or JPEG picture" * bool(self.picture)
        found = f"{len(body)} bytes that begin with {body[:8]!r}"
        raise _bad(f'expected JSON {{"instances": [...]}}{others}, got {found}')

    def decode_npy(self, body: bytes) -> Array:
        """Check the header before the data: numpy would allocate any claimed size, and unpickle objects."""
        file = io.BytesIO(body)
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise _bad(f"expected .npy version 1.0, got {version[0]}.{version[1]}")
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise _bad(f"expected an .npy array, its header cannot be read: {_short(error)}") from None
        wanted, row = self.inputs[self.only]["dtype"], self.shapes[self.only]
        sizes = row if self.alone else ("N", *row)
        expected = f"expected {wanted} [{', '.join(map(str, sizes))}]"
        if dtype != wanted:
            raise _bad(f"{expected}, got dtype {dtype}")
        if not _fits(shape, sizes):
            raise _bad(f"{expected}, got shape {list(shape)}")
        data = body[file.tell() :]
        size = int(np.prod(shape)) * dtype.itemsize
        if len(data) != size:
            raise _bad(f"expected {size} bytes of data for shape {list(shape)}, got {len(data)}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")

    def decode_json(self, body: bytes) -> Inputs:
        """Decode TF Serving's row form."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise _bad(f"expected JSON, it cannot be read: {_short(error)}") from None
        if self.alone:
            return self.decode_columns(document)
        instances = document.get("instances") if isinstance(document, dict) else None
        if not isinstance(instances, list):
            raise _bad(f'expected {{"instances": [row, ...]}}, got {_kind(document)}')
        if self.only and not any(isinstance(instance, dict) for instance in instances):
            return {self.only: self.to_array(instances, "instances", self.only, len(instances))}
        rows = [self.decode_instance(instance, f"instances[{i}]") for i, instance in enumerate(instances)]
        if not rows:
            raise _bad("expected at least one row, got none")
        return {name: np.concatenate([row[name] for row in rows]) for name in self.inputs}

    def decode_columns(self, document: Any) -> Inputs:  # noqa: ANN401
        """Decode the inputs of a model that is not batched."""
        values = document.get("inputs") if isinstance(document, dict) else None
        if self.only and values is not None and not isinstance(values, dict):
            values = {self.only: values}
        if not isinstance(values, dict) or set(values) != set(self.inputs):
            raise _bad(
                f'expected {{"inputs": {{...}}}} with the keys {sorted(self.inputs)}, got {_kind(document)}'
            )
        return {name: self.to_array([values[name]], f"inputs.{name}", name, 1)[0] for name in self.inputs}

    def decode_instance(self, instance: object, where: str) -> Inputs:
        """Decode an element of `instances`: one row of each input."""
        if isinstance(instance, dict) and set(instance) == set(self.inputs):
            return {name: self.decode_value(instance[name], where, name) for name in self.inputs}
        if self.only:
            return {self.only: self.decode_value(instance, where, self.only)}
        raise _bad(f"{where}: expected the keys {sorted(self.inputs)}, got {_kind(instance)}")

    def decode_value(self, value: object, where: str, name: str) -> Array:
        """Decode one row of an input: [1, *shape]."""
        if not isinstance(value, dict):
            return self.to_array([value], where, name, 1)
        text = value.get("b64")
        if set(value) != {"b64"} or not isinstance(text, str) or self.picture != name:
            form = 'a picture or {"b64": "..."}' if self.picture == name else "numbers"
            raise _bad(f"{where}: expected {form}, got {_kind(value)}")
        try:
            content = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise _bad(f"{where}: expected base64, {_short(error)}") from None
        return self.decode_picture(content, f"{where}: ")[np.newaxis]

    def to_array(self, values: list[Any], where: str, name: str, count: int) -> Array:
        """Convert nested lists of numbers to `count` rows of an input."""
        row, dtype = self.shapes[name], np.dtype(self.inputs[name]["dtype"])
        shape = (count, *row)
        told = shape if where == "instances" else row
        allowed, what = KINDS[dtype.kind]
        expected = f"{where}: expected {what}s of shape {list(told)}"
        try:
            array = np.asarray(values)
        except (ValueError, OverflowError):
            raise _bad(f"{expected}, got lists of unequal lengths or too deep") from None
        if not array.size and not self.alone:
            raise _bad("expected at least one row, got none")
        if array.size and array.dtype.kind not in allowed:
            raise _bad(f"{expected}, got something that is no {what}")
        if not _fits(array.shape, shape):
            raise _bad(f"{expected}, got shape {list(array.shape if told == shape else array.shape[1:])}")
        limits = np.iinfo(dtype) if dtype.kind in "iu" and array.size else None
        if limits and (array.max() > limits.max or array.min() < limits.min):
            raise _bad(f"{expected}, got one that is too large for {dtype}")
        with np.errstate(over="ignore"):
            return array.astype(dtype)

    def decode_picture(self, content: bytes, where: str = "") -> Array:
        """Decode a PNG or JPEG to float32 [*shape], 0..1, and resize it; the size is checked before decoding."""
        height, width, channels = self.shapes[self.picture]
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    size = f"{picture.width}x{picture.height}"
                    raise _bad(f"{where}expected a picture of at most {MAX_PIXELS} pixels, got {size}")
                if picture.mode.startswith(("I", "F")):
                    raise _bad(f"{where}expected 8 bits a channel, got mode {picture.mode}")
                converted = picture.convert("L" if channels == 1 else "RGB")
                # As in all targets; a picture of this size stays unchanged.
                resized = converted.resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(resized, np.float32)
        except PredictionException:
            raise
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise any exception
            message = f"{where}expected a PNG or JPEG picture, it cannot be decoded: {_short(error)}"
            raise _bad(message) from None
        return (pixels / np.float32(255)).reshape(height, width, channels)


def _tried(function: Callable[[Any], Any], argument: object) -> Any:  # noqa: ANN401
    """Return the function's result, or the `PredictionException` that it raises."""
    try:
        return function(argument)
    except PredictionException as error:
        return error


def _array(tensor: dict[str, Any]) -> Array:
    data = base64.b64decode(tensor["data"])
    return np.frombuffer(data, np.dtype(tensor["dtype"]).newbyteorder("<")).reshape(tensor["shape"])


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Return True if a shape has the wanted sizes; a name stands for any size."""
    return len(shape) == len(wanted) and all(
        own >= 0 if isinstance(size, str) else own == size for own, size in zip(shape, wanted, strict=True)
    )


def _header(headers: dict[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _rows(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _body(row: dict[str, Any]) -> bytes:
    """Return the body of a request, which TorchServe names `body` or `data`, or the only field of a form."""
    name = next((own for own in ("body", "data") if own in row), "")
    if not name and len(row) != 1:
        raise _bad(f"{FORMS} as the body, got {f'the fields {sorted(row)[:5]}' if row else 'no body'}")
    value = row[name or next(iter(row))]
    if not name and not value:
        raise _bad(f"{FORMS}, got a form; name the Content-Type (for JSON: application/json)")
    # With `decode_input_request`, the worker has parsed JSON and text.
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _bad(message: str) -> PredictionException:
    return PredictionException(message, 400)


def _short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return f"the keys {sorted(value)[:5]}"[:200]
    names = {list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(type(value), repr(value))
