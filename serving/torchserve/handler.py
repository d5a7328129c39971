"""The handler that TorchServe's worker runs; it is packed into the .mar and imports nothing of Tandem.

A request's body is one of three, told apart by its first bytes:

    {"instances": [picture, ...]}   TF Serving's row form; a picture is numbers of the signature's shape,
                                    or {"b64": <base64 of a PNG or JPEG>}, bare or under the input's name
    an .npy array                   float32 [N, *shape]
    a PNG or JPEG                   one picture

The answer is {"predictions": [{"logits": [...], "probabilities": [...]}, ...]}. Bad input answers 400 with
{"code", "type", "message"}, as TorchServe's own errors do, and never touches its neighbours in a batch.

TorchServe wants exactly one class in this file, so the error is TorchServe's own `PredictionException`.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray
from PIL import Image
from ts.context import Context
from ts.utils.util import PredictionException

NPY_MAGIC = b"\x93NUMPY"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
FORMS = 'expected JSON {"instances": [...]}, an .npy array, or a PNG or JPEG picture'
MAX_PIXELS = 16_777_216
"""A picture of 4096 x 4096: what a few kilobytes may unpack to."""
SLICE = 256
"""Pictures a run: a batch of thousands would cost gigabytes in the first layers."""

Images = NDArray[np.float32]


class Handler:
    """What `signature.json` beside it says: input name and shape of a picture, output names."""

    def initialize(self, context: Context) -> None:
        """Load the signature and the model, and run once, so that the first request finds all warm."""
        folder = Path(context.system_properties["model_dir"])
        signature = json.loads((folder / "signature.json").read_text())
        self.input_name: str = signature["input"]
        self.shape: tuple[int, ...] = tuple(signature["shape"])
        self.output_names: list[str] = signature["outputs"]
        self.load(folder)
        self.infer(np.zeros((1, *self.shape), np.float32))
        # The worker logs two lines a request, and TorchServe reads them one by one through a pipe.
        logging.getLogger().setLevel(logging.WARNING)

    def load(self, folder: Path) -> None:
        """Open `model.onnx` on one thread: TorchServe scales by workers."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def infer(self, images: Images) -> list[NDArray[np.float32]]:
        """float32 [N, *shape] -> the outputs, each [N, classes]."""
        outputs: list[NDArray[np.float32]] = self.session.run(self.output_names, {self.input_name: images})
        return outputs

    def handle(self, rows: list[dict[str, Any]], context: Context) -> list[bytes]:
        """Answer a batch. Raises `PredictionException` for a refused gRPC request that is alone in it."""
        parsed = [self.parse(row) for row in rows]
        good = [images for images in parsed if not isinstance(images, PredictionException)]
        answers = iter(self.predict(good))
        bodies: list[bytes] = []
        for index, images in enumerate(parsed):
            if isinstance(images, PredictionException):
                # TorchServe answers a gRPC call with OK whatever its status here says; only an exception,
                # which would fail a whole batch, becomes a gRPC error.
                if len(rows) == 1 and not _is_http(context.get_all_request_header(index)):
                    raise images
                context.set_response_status(images.error_code, "Bad Request", index)
                error = {"code": images.error_code, "type": "BadRequestException", "message": images.message}
                bodies.append(orjson.dumps(error))
            else:
                bodies.append(next(answers))
            context.set_response_content_type(index, "application/json")
        return bodies

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

    def predict(self, requests: list[Images]) -> list[bytes]:
        """Run all requests' pictures together; one JSON body a request."""
        if not requests:
            return []
        images = np.concatenate(requests) if len(requests) > 1 else requests[0]
        slices = [self.infer(images[start : start + SLICE]) for start in range(0, len(images), SLICE)]
        outputs = [np.ascontiguousarray(np.concatenate(arrays)) for arrays in zip(*slices, strict=True)]
        predictions = [
            dict(zip(self.output_names, values, strict=True)) for values in zip(*outputs, strict=True)
        ]
        bodies, start = [], 0
        for request in requests:
            answer = {"predictions": predictions[start : start + len(request)]}
            bodies.append(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
            start += len(request)
        return bodies

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


def _is_http(headers: dict[str, Any]) -> bool:
    return any(name.lower() == "host" for name in headers)


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
