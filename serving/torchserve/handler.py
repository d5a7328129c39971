"""The handler that TorchServe's worker runs; it is packed into the .mar and imports nothing of Tandem.

A request's body is one of these, told apart by its first bytes:

    {"instances": [row, ...]}   TF Serving's row form: {<input>: numbers of its shape, ...}, or the numbers alone where
                                there is one input; a picture may be {"b64": <base64 of a PNG or JPEG>}
    an .npy array               [N, *shape], of a model with one input
    {"inputs": {<input>: ...}}  instead of rows, where the model is not batched; the answer is {"outputs": {...}}
    a PNG or JPEG               one picture, of a model whose one input is a picture

The answer is {"predictions": [{<output>: [...], ...}, ...]}. Bad input answers 400, and a model
that fails 500, with {"code", "type", "message"}, as TorchServe's own errors do; neither touches its neighbours in a
batch. A request with the header `describe: True`, as in TorchServe's own handlers, is told which version answers.

`signature.json` says whether requests may share a run ("batched": the gate has shown that company changes no answer),
and which form of the network lies in the archive: "exported" and "aot" are run by PyTorch, "onnx" by ONNX Runtime.
Answers name it in the header `x-runtime`. `golden.json` holds an input and its right answer: a version that answers
otherwise here is not served.

TorchServe wants exactly one class in this file, so the error is TorchServe's own `PredictionException`.
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
"""A picture of 4096 x 4096: what a few kilobytes may unpack to."""
SLICE = 256
"""Rows a run where the model may be batched: thousands would cost gigabytes in the first layers."""

KINDS = {
    "f": ("iuf", "number"),
    "i": ("iu", "whole number"),
    "u": ("iu", "whole number"),
    "b": ("b", "truth value"),
}
"""By a dtype's kind: the kinds of JSON's values that are taken for it, and what they are called."""

Array = NDArray[Any]
Inputs = dict[str, Array]
Answer: TypeAlias = bytes | PredictionException


class Handler:
    """What `signature.json` beside it says: dtype and shape of each input, names of the outputs, batched or not."""

    def initialize(self, context: Context) -> None:
        """Load the signature and the model, and run once, so that the first request finds all warm."""
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
        # The worker logs two lines a request, and TorchServe reads them one by one through a pipe.
        logging.getLogger().setLevel(logging.WARNING)
        # Else requests wait 100 ms now and then while Python looks through torch's objects for garbage.
        gc.freeze()

    def load(self, folder: Path, form: str) -> None:
        """Open the network on one thread: TorchServe scales by workers."""
        torch.set_num_threads(1)
        if form == "exported":
            self.network = torch.export.load(folder / "model.pt2").module()
        elif form == "aot":
            # They say that the package is for fewer instructions than this CPU has, and that there is no g++ to ask.
            for name in ("torch.export", "torch._inductor"):
                logging.getLogger(name).setLevel(logging.ERROR)
            self.network = torch._inductor.aoti_load_package(str(folder / "model.pt2"))
        elif form == "onnx":
            self.network = self.load_onnx(str(folder / "model.onnx"))
        else:
            raise ValueError(f"expected the form exported, aot or onnx, the archive says {form!r}")

    def load_onnx(self, path: str) -> Callable[..., list[torch.Tensor]]:
        """ONNX Runtime's session as PyTorch would call it."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def network(*tensors: torch.Tensor) -> list[torch.Tensor]:
            inputs = {name: tensor.numpy() for name, tensor in zip(self.inputs, tensors, strict=True)}
            return [torch.from_numpy(output) for output in session.run(self.output_names, inputs)]

        return network

    def infer(self, inputs: Inputs) -> list[Array]:
        """The inputs, N rows each -> the outputs, N rows each."""
        with torch.inference_mode():
            outputs = self.network(*(torch.tensor(inputs[name]) for name in self.inputs))
            return [output.numpy() for output in outputs]

    def outputs(self, inputs: Inputs) -> Inputs:
        """The outputs of a run by name, in C order."""
        arrays = [np.array(output, order="C") for output in self.infer(inputs)]
        return dict(zip(self.output_names, arrays, strict=True))

    def check_processor(self, wanted: dict[str, Any]) -> None:
        """Raise `RuntimeError` where code was compiled for a CPU that this one is not: it would end the process."""
        here = (platform.machine(), torch.backends.cpu.get_cpu_capability())
        if wanted and (here[0] != wanted["machine"] or here[1] not in wanted["capabilities"]):
            raise RuntimeError(
                f"its code is compiled for {wanted['march']} ({wanted['machine']} with "
                f"{' or '.join(wanted['capabilities'])}), this CPU offers {here[0]} with {here[1]}"
            )

    def check_golden(self, golden: dict[str, Any]) -> None:
        """Raise `RuntimeError` where the answer to the golden sample is not the source framework's."""
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
        """Answer a batch. Raises `PredictionException` for a failed gRPC request that is alone in it."""
        headers = [context.get_all_request_header(index) for index in range(len(rows))]
        answers = self.answer(rows, [_header(own, "describe") == "True" for own in headers])
        bodies: list[bytes] = []
        for index, answer in enumerate(answers):
            if isinstance(answer, PredictionException):
                # TorchServe answers a gRPC call with OK whatever its status here says; only an exception,
                # which would fail a whole batch, becomes a gRPC error.
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
        """One JSON body a request, or why there is none."""
        parsed = [
            orjson.dumps(self.description) if describe else _tried(self.parse, row)
            for row, describe in zip(rows, described, strict=True)
        ]
        predictions = iter(self.predict([inputs for inputs in parsed if isinstance(inputs, dict)]))
        return [next(predictions) if isinstance(answer, dict) else answer for answer in parsed]

    def parse(self, row: dict[str, Any]) -> Inputs:
        """One request's inputs. Raises `PredictionException` where they are none."""
        inputs = self.decode(_body(row))
        if not self.alone and not _rows(inputs):
            raise _bad("expected at least one row, got none")
        if not all(np.isfinite(array).all() for array in inputs.values()):
            raise _bad("expected finite numbers, got NaN or infinity")
        return inputs

    def predict(self, requests: list[Inputs]) -> list[Answer]:
        """Run the requests' rows, together where the model may be batched; one JSON body a request."""
        if self.batched and len(requests) > 1:
            # Each by itself too where their common run fails: only one of them may be why.
            with suppress(PredictionException):
                together = {name: np.concatenate([own[name] for own in requests]) for name in self.inputs}
                rows = iter(self.run(together))
                return [self.encode([next(rows) for _ in range(_rows(own))]) for own in requests]
        return [_tried(lambda inputs: self.encode(self.run(inputs)), inputs) for inputs in requests]

    def encode(self, rows: list[Inputs]) -> bytes:
        """The body of an answer."""
        answer: dict[str, Any] = {"predictions": rows}
        if self.alone:
            # orjson takes no array without a dimension.
            answer = {"outputs": {n: array if array.ndim else array.item() for n, array in rows[0].items()}}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def run(self, inputs: Inputs) -> list[Inputs]:
        """The outputs of each row by name; of the one call where the model is not batched.

        Raises `PredictionException` where it fails.
        """
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
        except Exception as error:  # noqa: BLE001 - a runtime raises what it likes
            raise PredictionException(f"model {self.model} failed: {_short(error)}", 500) from None
        return found

    def decode(self, body: bytes) -> Inputs:
        """Tell a body's form by its first bytes. Raises `PredictionException` where it is none of ours."""
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
        """Read the header ourselves: numpy would reserve whatever it claims, and `object` means pickle."""
        file = io.BytesIO(body)
        try:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise _bad(f"expected .npy version 1.0 or 2.0, got {version[0]}.{version[1]}")
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran_order, dtype = read(file)
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
        """TF Serving's row form."""
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
        """The inputs of a model that is not batched."""
        values = document.get("inputs") if isinstance(document, dict) else None
        if self.only and values is not None and not isinstance(values, dict):
            values = {self.only: values}
        if not isinstance(values, dict) or set(values) != set(self.inputs):
            raise _bad(
                f'expected {{"inputs": {{...}}}} with the keys {sorted(self.inputs)}, got {_kind(document)}'
            )
        return {name: self.to_array([values[name]], f"inputs.{name}", name, 1)[0] for name in self.inputs}

    def decode_instance(self, instance: object, where: str) -> Inputs:
        """One element of `instances`: one row of each input."""
        if isinstance(instance, dict) and set(instance) == set(self.inputs):
            return {name: self.decode_value(instance[name], where, name) for name in self.inputs}
        if self.only:
            return {self.only: self.decode_value(instance, where, self.only)}
        raise _bad(f"{where}: expected the keys {sorted(self.inputs)}, got {_kind(instance)}")

    def decode_value(self, value: object, where: str, name: str) -> Array:
        """One row of an input, [1, *shape]."""
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
        """Nested lists of numbers to `count` rows of an input."""
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
        """PNG or JPEG to float32 [*shape], 0..1, resized where it does not fit.

        Its size is checked before its pixels are unpacked.
        """
        height, width, channels = self.shapes[self.picture]
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    size = f"{picture.width}x{picture.height}"
                    raise _bad(f"{where}expected a picture of at most {MAX_PIXELS} pixels, got {size}")
                if picture.mode.startswith(("I", "F")):
                    raise _bad(f"{where}expected 8 bits a channel, got mode {picture.mode}")
                converted = picture.convert("L" if channels == 1 else "RGB")
                # As every other target does; a picture that fits comes through unchanged.
                resized = converted.resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(resized, np.float32)
        except PredictionException:
            raise
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise what they like on damaged files
            message = f"{where}expected a PNG or JPEG picture, it cannot be decoded: {_short(error)}"
            raise _bad(message) from None
        return (pixels / np.float32(255)).reshape(height, width, channels)


def _tried(function: Callable[[Any], Any], argument: object) -> Any:  # noqa: ANN401
    """What it returns, or the `PredictionException` that it raises."""
    try:
        return function(argument)
    except PredictionException as error:
        return error


def _array(tensor: dict[str, Any]) -> Array:
    data = base64.b64decode(tensor["data"])
    return np.frombuffer(data, np.dtype(tensor["dtype"]).newbyteorder("<")).reshape(tensor["shape"])


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """A name stands for any size."""
    return len(shape) == len(wanted) and all(
        own >= 0 if isinstance(size, str) else own == size for own, size in zip(shape, wanted, strict=True)
    )


def _header(headers: dict[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _rows(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _body(row: dict[str, Any]) -> bytes:
    """The request's body: TorchServe calls it `body` or `data`; a form's only field is taken too."""
    name = next((own for own in ("body", "data") if own in row), "")
    if not name and len(row) != 1:
        raise _bad(f"{FORMS} as the body, got {f'the fields {sorted(row)[:5]}' if row else 'no body'}")
    value = row[name or next(iter(row))]
    if not name and not value:
        raise _bad(f"{FORMS}, got a form; name the Content-Type (for JSON: application/json)")
    # Where `decode_input_request` is on, the worker has parsed JSON and text before us.
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
