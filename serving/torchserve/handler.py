"""The handler that TorchServe's worker runs; it is packed into the .mar and imports nothing of Tandem.

A request's body is one of three, told apart by its first bytes:

    {"instances": [picture, ...]}   TF Serving's row form; a picture is numbers of the signature's shape,
                                    or {"b64": <base64 of a PNG or JPEG>}, bare or under the input's name
    an .npy array                   float32 [N, *shape]
    a PNG or JPEG                   one picture

The answer is {"predictions": [{"logits": [...], "probabilities": [...]}, ...]}. Bad input answers 400, and a model
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
"""Pictures a run where the model may be batched: thousands would cost gigabytes in the first layers."""

Images = NDArray[np.float32]


class Handler:
    """What `signature.json` beside it says: input name and shape of a picture, output names, batched or not."""

    def initialize(self, context: Context) -> None:
        """Load the signature and the model, and run once, so that the first request finds all warm."""
        folder = Path(context.system_properties["model_dir"])
        signature = json.loads((folder / "signature.json").read_text())
        self.input_name: str = signature["input"]
        self.shape: tuple[int, ...] = tuple(signature["shape"])
        self.output_names: list[str] = signature["outputs"]
        self.batched: bool = signature.get("batched", False)
        self.runtime: str = signature.get("runtime", "ONNX Runtime")
        self.model: str = context.model_name
        self.network: Callable[[torch.Tensor], Sequence[torch.Tensor]]
        model = (context.manifest or {}).get("model", {})
        self.description = {
            "model": self.model,
            "version": model.get("modelVersion"),
            "batched": self.batched,
            "runtime": self.runtime,
        }
        self.check_processor(signature.get("instruction_set", {}))
        self.load(folder, signature.get("form", "onnx"))
        self.infer(np.zeros((1, *self.shape), np.float32))
        if (golden := folder / "golden.json").exists():
            self.check_golden(json.loads(golden.read_text()))
        # The worker logs two lines a request, and TorchServe reads them one by one through a pipe.
        logging.getLogger().setLevel(logging.WARNING)

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

    def load_onnx(self, path: str) -> Callable[[torch.Tensor], list[torch.Tensor]]:
        """ONNX Runtime's session as PyTorch would call it."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def network(images: torch.Tensor) -> list[torch.Tensor]:
            outputs = session.run(self.output_names, {self.input_name: images.numpy()})
            return [torch.from_numpy(output) for output in outputs]

        return network

    def infer(self, images: Images) -> list[NDArray[np.float32]]:
        """float32 [N, *shape] -> the outputs, each [N, classes]."""
        with torch.inference_mode():
            return [output.numpy() for output in self.network(torch.tensor(images))]

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
            zip(self.output_names, self.infer(_array(golden["inputs"][self.input_name])), strict=True)
        )
        for name, tensor in golden["outputs"].items():
            expected = _array(tensor)
            difference = float(np.nan_to_num(np.abs(found[name] - expected), nan=np.inf).max())
            limit = golden["tolerance"] * max(1.0, float(np.abs(expected).max()))
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
        predictions = iter(self.predict([images for images in parsed if isinstance(images, np.ndarray)]))
        return [next(predictions) if isinstance(answer, np.ndarray) else answer for answer in parsed]

    def parse(self, row: dict[str, Any]) -> Images | PredictionException:
        """One request's pictures, float32 [N, *shape], or why they are none."""
        try:
            images = self.decode(_body(row))
            if not len(images):
                raise _bad(f"expected at least one picture of shape {list(self.shape)}, got none")
            if not np.isfinite(images).all():
                raise _bad("expected finite numbers, got NaN or infinity")
        except PredictionException as error:
            return error
        return images

    def predict(self, requests: list[Images]) -> list[bytes | PredictionException]:
        """Run the requests' pictures, together where the model may be batched; one JSON body a request."""
        if self.batched and len(requests) > 1:
            together = self.run(np.concatenate(requests))
            if not isinstance(together, PredictionException):
                ends = np.cumsum([len(request) for request in requests])
                return [
                    _encode(together[end - len(request) : end])
                    for request, end in zip(requests, ends, strict=True)
                ]
        # Each by itself too where their common run has failed: only one of them may be why.
        alone = [self.run(request) for request in requests]
        return [rows if isinstance(rows, PredictionException) else _encode(rows) for rows in alone]

    def run(self, images: Images) -> list[dict[str, NDArray[np.float32]]] | PredictionException:
        """The outputs of each picture by name, or why the model has none."""
        size = SLICE if self.batched else len(images)
        rows = []
        try:
            for start in range(0, len(images), size):
                part = images[start : start + size]
                outputs = dict(zip(self.output_names, self.infer(part), strict=True))
                for name, output in outputs.items():
                    if output.shape[:1] != (len(part),):
                        raise ValueError(f"{len(part)} pictures gave {name} of shape {list(output.shape)}")
                columns = map(np.ascontiguousarray, outputs.values())
                rows += [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]
        except Exception as error:  # noqa: BLE001 - a runtime raises what it likes
            return PredictionException(f"model {self.model} failed: {_short(error)}", 500)
        return rows

    def decode(self, body: bytes) -> Images:
        """Tell a body's form by its first bytes. Raises `PredictionException` where it is none of ours."""
        if body.startswith(NPY_MAGIC):
            return self.decode_npy(body)
        if body.startswith((PNG_MAGIC, JPEG_MAGIC)):
            return self.decode_picture(body)[np.newaxis]
        if body.lstrip()[:1] in (b"{", b"["):
            return self.decode_json(body)
        raise _bad(f"{FORMS}, got {len(body)} bytes that begin with {body[:8]!r}")

    def decode_npy(self, body: bytes) -> Images:
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
        expected = f"expected float32 [N, {', '.join(map(str, self.shape))}]"
        if dtype != np.float32:
            raise _bad(f"{expected}, got dtype {dtype}")
        if tuple(shape[1:]) != self.shape or len(shape) != len(self.shape) + 1 or shape[0] < 0:
            raise _bad(f"{expected}, got shape {list(shape)}")
        data = body[file.tell() :]
        size = shape[0] * int(np.prod(self.shape)) * dtype.itemsize
        if len(data) != size:
            raise _bad(f"expected {size} bytes of data for shape {list(shape)}, got {len(data)}")
        array = np.frombuffer(data, np.float32)
        return array.reshape(shape, order="F" if fortran_order else "C")

    def decode_json(self, body: bytes) -> Images:
        """TF Serving's row form."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise _bad(f"expected JSON, it cannot be read: {_short(error)}") from None
        instances = document.get("instances") if isinstance(document, dict) else None
        if not isinstance(instances, list):
            found = f"the keys {sorted(document)[:5]}" if isinstance(document, dict) else _kind(document)
            raise _bad(f'expected {{"instances": [picture, ...]}}, got {found}')
        if any(isinstance(instance, dict) for instance in instances):
            pictures = [self.decode_instance(instance, index) for index, instance in enumerate(instances)]
            return np.stack(pictures)
        return self.to_array(instances, "instances", (len(instances), *self.shape))

    def decode_instance(self, instance: object, index: int) -> Images:
        """One element of `instances`, float32 [*shape]."""
        where = f"instances[{index}]"
        if isinstance(instance, dict) and set(instance) == {self.input_name}:
            instance = instance[self.input_name]
        if not isinstance(instance, dict):
            return self.to_array(instance, where, self.shape)
        text = instance.get("b64")
        if set(instance) != {"b64"} or not isinstance(text, str):
            raise _bad(
                f'{where}: expected a picture or {{"b64": "..."}}, got the keys {sorted(instance)[:5]}'
            )
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _bad(f"{where}: expected base64, {_short(error)}") from None
        return self.decode_picture(content, f"{where}: ")

    def to_array(self, values: object, where: str, shape: tuple[int, ...]) -> Images:
        """Nested lists of numbers to float32 of this shape."""
        expected = f"{where}: expected numbers of shape {list(shape)}"
        try:
            array = _flat(values, shape)
            if array is None or array.dtype.kind not in "iuf":
                array = np.asarray(values)
        except (ValueError, OverflowError):
            raise _bad(f"{expected}, got lists of unequal lengths or too deep") from None
        if not array.size:
            return np.zeros((0, *self.shape), np.float32)
        if array.dtype.kind not in "iuf":
            raise _bad(f"{expected}, got something that is no number")
        if array.shape != shape:
            raise _bad(f"{expected}, got shape {list(array.shape)}")
        with np.errstate(over="ignore"):
            return array.astype(np.float32)

    def decode_picture(self, content: bytes, where: str = "") -> Images:
        """PNG or JPEG to float32 [*shape], 0..1, resized where it does not fit.

        Its size is checked before its pixels are unpacked.
        """
        height, width, channels = self.shape
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
        return (pixels / np.float32(255)).reshape(self.shape)


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


def _header(headers: dict[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _encode(predictions: list[dict[str, NDArray[np.float32]]]) -> bytes:
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


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
