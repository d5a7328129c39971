"""The handler of TorchServe's worker; it is packed into the .mar and imports nothing else of Tandem.

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
PyTorch, "onnx" by ONNX Runtime, named in the header `x-runtime`.

TorchServe requires exactly one class in this module, so errors are its own `PredictionException`.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import orjson
import torch
from ts.context import Context
from ts.utils.util import PredictionException

from .bodies import Array, Decoder, Inputs, bad_request, body_of, short
from .networks import Network, load, require_processor

FAILURES = {
    400: ("Bad Request", "BadRequestException"),
    500: ("Internal Server Error", "InternalServerException"),
}
SLICE = 256
"""Rows of a run of a batched model: thousands would need gigabytes."""

Answer: TypeAlias = bytes | PredictionException


class Handler:
    """The handler, by the `signature.json` in its archive: inputs, outputs, batched or not."""

    def initialize(self, context: Context) -> None:
        """Load the signature and the model, and warm up."""
        folder = Path(context.system_properties["model_dir"])
        signature = json.loads((folder / "signature.json").read_text())
        self.decoder = Decoder(signature["inputs"])
        self.output_names = list(signature["outputs"])
        self.batched: bool = signature.get("batched", False)
        self.runtime: str = signature.get("runtime", "ONNX Runtime")
        self.model: str = context.model_name
        self.network: Network
        self.description = {
            "model": self.model,
            "version": (context.manifest or {}).get("model", {}).get("modelVersion"),
            "batched": self.batched,
            "runtime": self.runtime,
        }
        require_processor(signature.get("instruction_set", {}))
        self.load(folder, signature.get("form", "onnx"))
        self.infer(self.decoder.zeros())
        # Else the worker logs two lines for each request.
        logging.getLogger().setLevel(logging.WARNING)
        # Else collections of garbage traverse torch's objects for 100 ms.
        gc.freeze()

    def load(self, folder: Path, form: str) -> None:
        self.network = load(folder, form, list(self.decoder.inputs), self.output_names)

    def infer(self, inputs: Inputs) -> list[Array]:
        """Return the outputs, with as many rows as the inputs."""
        with torch.inference_mode():
            outputs = self.network(*(torch.tensor(inputs[name]) for name in self.decoder.inputs))
            return [output.numpy() for output in outputs]

    def outputs(self, inputs: Inputs) -> Inputs:
        """Return the outputs of a run by name, in C order."""
        arrays = [np.array(output, order="C") for output in self.infer(inputs)]
        return dict(zip(self.output_names, arrays, strict=True))

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
        inputs = self.decoder.decode(body_of(row))
        if not self.decoder.alone and not _rows(inputs):
            raise bad_request("expected at least one row, got none")
        if not all(np.isfinite(array).all() for array in inputs.values()):
            raise bad_request("expected finite numbers, got NaN or infinity")
        return inputs

    def predict(self, requests: list[Inputs]) -> list[Answer]:
        """Run the requests, together if the model is batched; returns the body or the error of each."""
        if self.batched and len(requests) > 1:
            # If they do not fit together, or their run fails, each runs alone: only one may be at fault.
            with suppress(PredictionException, ValueError):
                together = {
                    name: np.concatenate([own[name] for own in requests]) for name in self.decoder.inputs
                }
                rows = iter(self.run(together))
                return [self.encode([next(rows) for _ in range(_rows(own))]) for own in requests]
        return [_tried(lambda inputs: self.encode(self.run(inputs)), inputs) for inputs in requests]

    def encode(self, rows: list[Inputs]) -> bytes:
        """Return the body of a response."""
        answer: dict[str, Any] = {"predictions": rows}
        if self.decoder.alone:
            # orjson accepts no array without dimensions.
            answer = {"outputs": {n: array if array.ndim else array.item() for n, array in rows[0].items()}}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def run(self, inputs: Inputs) -> list[Inputs]:
        """Return the outputs of each row; of the call if the model has no batch. Raises `PredictionException`."""
        found: list[Inputs] = []
        try:
            if self.decoder.alone:
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
            raise PredictionException(f"model {self.model} failed: {short(error)}", 500) from None
        return found


def _tried(function: Callable[[Any], Any], argument: object) -> Any:  # noqa: ANN401
    """Return the function's result, or the `PredictionException` that it raises."""
    try:
        return function(argument)
    except PredictionException as error:
        return error


def _header(headers: dict[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _rows(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))
