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
import binascii
import gc
import io
import json
import logging
import platform
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from PIL import Image
from ts.context import Context
from ts.utils.util import PredictionException

NPY_MAGIC = b"\x93NUMPY"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
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
        model = (context.manifest or {}).get("model", {})
        self.description = {
            "model": self.model,
            "version": model.get("modelVersion"),
            "batched": self.batched,
            "runtime": self.runtime,
        }
        self.check_processor(signature.get("instruction_set", {}))
        self.load(folder, signature.get("form", "onnx"))
        if (golden := folder / "golden.json").exists():
            self.check_golden(json.loads(golden.read_text()))
        else:
            first = () if self.alone else (1,)
            sizes = {
                n: (*first, *(2 if isinstance(s, str) else s for s in own)) for n, own in self.shapes.items()
            }
            self.infer({n: np.zeros(sizes[n], tensor["dtype"]) for n, tensor in self.inputs.items()})
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
            outputs = session.run(self.output_names, inputs)
            return [torch.from_numpy(output) for output in outputs]

        return network

    def infer(self, inputs: Inputs) -> list[Array]:
        """The inputs, N rows each -> the outputs, N rows each."""
        with torch.inference_mode():
            return [
                output.numpy() for output in self.network(*(torch.tensor(inputs[n]) for n in self.inputs))
            ]

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
        found = dict(
            zip(
                self.output_names,
                self.infer({n: _array(own) for n, own in golden["inputs"].items()}),
                strict=True,
            )
        )
        for name, tensor in golden["outputs"].items():
            expected = _array(tensor)
            left, right = found[name].astype(np.float64), expected.astype(np.float64)
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

    def answer(self, rows: list[dict[str, Any]], described: list[bool]) -> list[bytes | PredictionException]:
        """One JSON body a request, or why there is none."""
        parsed = [
            orjson.dumps(self.description) if describe else self.parse(row)
            for row, describe in zip(rows, described, strict=True)
        ]
        predictions = iter(self.predict([inputs for inputs in parsed if isinstance(inputs, dict)]))
        return [next(predictions) if isinstance(answer, dict) else answer for answer in parsed]

    def parse(self, row: dict[str, Any]) -> Inputs | PredictionException:
        """One request's inputs, or why they are none."""
        try:
            inputs = self.decode(_body(row))
            if not self.alone and not _rows(inputs):
                raise _bad("expected at least one row, got none")
            if not all(np.isfinite(array).all() for array in inputs.values()):
                raise _bad("expected finite numbers, got NaN or infinity")
        except PredictionException as error:
            return error
        return inputs

    def predict(self, requests: list[Inputs]) -> list[bytes | PredictionException]:
        """Run the requests' rows, together where the model may be batched; one JSON body a request."""
        if self.batched and len(requests) > 1:
            together = self.run(
                {n: np.concatenate([request[n] for request in requests]) for n in self.inputs}
            )
            if not isinstance(together, PredictionException):
                counts = [_rows(request) for request in requests]
                ends = np.cumsum(counts)
                return [
                    self.encode(together[end - count : end]) for count, end in zip(counts, ends, strict=True)
                ]
        # Each by itself too where their common run has failed: only one of them may be why.
        alone = [self.run(request) for request in requests]
        return [rows if isinstance(rows, PredictionException) else self.encode(rows) for rows in alone]

    def encode(self, rows: list[dict[str, Array]]) -> bytes:
        """The body of an answer."""
        scalars = (
            {name: array if array.ndim else array.item() for name, array in rows[0].items()}
            if self.alone
            else {}
        )
        answer = {"outputs": scalars} if self.alone else {"predictions": rows}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def run(self, inputs: Inputs) -> list[dict[str, Array]] | PredictionException:
        """The outputs of each row by name, or why the model has none."""
        if self.alone:
            try:
                arrays = [np.array(output, order="C") for output in self.infer(inputs)]
                return [dict(zip(self.output_names, arrays, strict=True))]
            except Exception as error:  # noqa: BLE001 - a runtime raises what it likes
                return PredictionException(f"model {self.model} failed: {_short(error)}", 500)
        count = _rows(inputs)
        size = SLICE if self.batched else count
        rows = []
        try:
            for start in range(0, count, size):
                part = {name: array[start : start + size] for name, array in inputs.items()}
                outputs = dict(zip(self.output_names, self.infer(part), strict=True))
                for name, output in outputs.items():
                    if output.shape[:1] != (_rows(part),):
                        raise ValueError(f"{_rows(part)} rows gave {name} of shape {list(output.shape)}")
                columns = map(np.ascontiguousarray, outputs.values())
                rows += [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]
        except Exception as error:  # noqa: BLE001 - a runtime raises what it likes
            return PredictionException(f"model {self.model} failed: {_short(error)}", 500)
        return rows

    def decode(self, body: bytes) -> Inputs:
        """Tell a body's form by its first bytes. Raises `PredictionException` where it is none of ours."""
        if body.startswith(NPY_MAGIC) and self.only:
            return {self.only: self.decode_npy(body)}
        if body.startswith((PNG_MAGIC, JPEG_MAGIC)) and self.picture:
            return {self.picture: self.decode_picture(body)[np.newaxis]}
        if body.lstrip()[:1] in (b"{", b"["):
            return self.decode_json(body)
        raise _bad(f"{self.forms()}, got {len(body)} bytes that begin with {body[:8]!r}")

    def forms(self) -> str:
        """What a body may be."""
        own = [", an .npy array"] if self.only else []
        own += [", or a PNG or JPEG picture"] if self.picture else []
        return 'expected JSON {"instances": [...]}' + "".join(own)

    def decode_npy(self, body: bytes) -> Array:
        """Read the header ourselves: numpy would reserve whatever it claims, and `object` means pickle."""
        file = io.BytesIO(body)
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise _bad(f"expected .npy version 1.0 or 2.0, got {version[0]}.{version[1]}")
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
        array = np.frombuffer(data, dtype)
        return array.reshape(shape, order="F" if fortran_order else "C")

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
            found = f"the keys {sorted(document)[:5]}" if isinstance(document, dict) else _kind(document)
            raise _bad(f'expected {{"instances": [row, ...]}}, got {found}')
        if self.only and not any(isinstance(instance, dict) for instance in instances):
            return {self.only: self.to_array(instances, "instances", self.only, len(instances))}
        rows = [self.decode_instance(instance, f"instances[{i}]") for i, instance in enumerate(instances)]
        if not rows:
            return {name: _none(self.shapes[name], self.inputs[name]["dtype"]) for name in self.inputs}
        return {name: np.concatenate([row[name] for row in rows]) for name in self.inputs}

    def decode_columns(self, document: Any) -> Inputs:  # noqa: ANN401
        """The inputs of a model that is not batched."""
        values = document.get("inputs") if isinstance(document, dict) else None
        if self.only and values is not None and not isinstance(values, dict):
            values = {self.only: values}
        if not isinstance(values, dict) or set(values) != set(self.inputs):
            raise _bad(
                f'expected {{"inputs": {{...}}}} with the keys {sorted(self.inputs)}, got {_kind(document)[:80]}'
            )
        return {name: self.to_array([values[name]], f"inputs.{name}", name, 1)[0] for name in self.inputs}

    def decode_instance(self, instance: object, where: str) -> Inputs:
        """One element of `instances`: one row of each input."""
        if isinstance(instance, dict) and set(instance) == set(self.inputs):
            return {name: self.decode_value(instance[name], where, name) for name in self.inputs}
        if self.only:
            return {self.only: self.decode_value(instance, where, self.only)}
        found = f"the keys {sorted(instance)[:5]}" if isinstance(instance, dict) else _kind(instance)
        raise _bad(f"{where}: expected the keys {sorted(self.inputs)}, got {found}")

    def decode_value(self, value: object, where: str, name: str) -> Array:
        """One row of an input, [1, *shape]."""
        if not isinstance(value, dict):
            return self.to_array([value], where, name, 1)
        text = value.get("b64")
        if set(value) != {"b64"} or not isinstance(text, str) or self.picture != name:
            form = 'a picture or {"b64": "..."}' if self.picture == name else "numbers"
            raise _bad(f"{where}: expected {form}, got the keys {sorted(value)[:5]}")
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
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
            array = None if any(isinstance(size, str) for size in shape) else _flat(values, shape)
            if array is None or array.dtype.kind not in "iufb":
                array = np.asarray(values)
        except (ValueError, OverflowError):
            raise _bad(f"{expected}, got lists of unequal lengths or too deep") from None
        if not array.size and not self.alone:
            return _none(row, dtype)
        if array.size and array.dtype.kind not in allowed:
            raise _bad(f"{expected}, got something that is no {what}")
        if not _fits(array.shape, shape):
            raise _bad(f"{expected}, got shape {list(array.shape if told == shape else array.shape[1:])}")
        if (
            array.size
            and dtype.kind in "iu"
            and (array.max() > np.iinfo(dtype).max or array.min() < np.iinfo(dtype).min)
        ):
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


def _array(tensor: dict[str, Any]) -> NDArray[Any]:
    data = base64.b64decode(tensor["data"])
    return np.frombuffer(data, np.dtype(tensor["dtype"]).newbyteorder("<")).reshape(tensor["shape"])


def _flat(values: Any, shape: tuple[int, ...]) -> NDArray[Any] | None:  # noqa: ANN401
    """Nested lists of exactly this shape; None for others. numpy alone takes three times as long."""
    try:
        for size in shape[1:]:
            if set(map(len, values)) != {size}:
                return None
            values = list(chain.from_iterable(values))
    except TypeError:
        return None
    return np.array(values).reshape(shape)


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """A name stands for any size."""
    return len(shape) == len(wanted) and all(
        own >= 0 if isinstance(size, str) else own == size for own, size in zip(shape, wanted, strict=True)
    )


def _none(row: Sequence[int | str], dtype: Any) -> Array:  # noqa: ANN401
    """No rows of an input."""
    return np.zeros((0, *(0 if isinstance(size, str) else size for size in row)), dtype)


def _header(headers: dict[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _rows(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _body(row: dict[str, Any]) -> bytes:
    """The request's body: TorchServe calls it `body` or `data`; a form's only field is taken too."""
    for name in ("body", "data"):
        if name in row:
            return _bytes(row[name])
    if len(row) == 1:
        value = next(iter(row.values()))
        if value:
            return _bytes(value)
        raise _bad(f"{FORMS}, got a form; name the Content-Type (for JSON: application/json)")
    raise _bad(f"{FORMS} as the body, got {f'the fields {sorted(row)[:5]}' if row else 'no body'}")


def _bytes(value: object) -> bytes:
    # Where `decode_input_request` is on, the worker has parsed JSON and text before us.
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _bad(message: str) -> PredictionException:
    return PredictionException(message, 400)


def _short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _kind(document: object) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(type(document), repr(document))
