"""Golden samples: inputs with the source framework's outputs, stored with an artifact.

Another library, instruction set or driver can change outputs that the gates have checked, so servers check them again
when they load a version. `golden.json` lies beside the artifact, and the manifest lists it:

    {"tolerance": 1e-5, "inputs": {<name>: <tensor>}, "outputs": {<name>: <tensor>}}

A tensor is {"dtype": numpy's name, "shape": [...], "data": base64 of its little-endian bytes in C order}; of dtype
"bytes", `data` is a list of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.repository import GOLDEN

TEXT = "OSU"
"""The kinds of numpy's dtypes for text."""
Tensors = Mapping[str, NDArray[Any]]


class GoldenError(Exception):
    """A version's outputs for its golden sample differ from its source framework's."""


@dataclass(frozen=True)
class Golden:
    """Inputs and outputs of one call; `tolerance` is relative to an output's largest value if that is above 1."""

    inputs: Tensors
    outputs: Tensors
    tolerance: float

    def check(self, answers: Tensors) -> None:
        """Raise `GoldenError` with the difference and its limit if `answers` differ from `outputs`."""
        for name, expected in self.outputs.items():
            found = np.asarray(answers[name])
            if found.shape != expected.shape:
                raise GoldenError(
                    f"golden sample: expected {name} of shape {list(expected.shape)}, got {list(found.shape)}"
                )
            apart = difference(found, expected)
            limit = self.tolerance * largest(expected)
            if apart > limit:
                raise GoldenError(
                    f"golden sample: {name} differs by {apart:.3g} from the source framework's answer, "
                    f"the limit is {limit:.3g}"
                )


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest absolute difference of two arrays; infinite if shapes, texts, or places of NaN differ."""
    if found.shape != expected.shape:
        return float("inf")
    if found.dtype.kind in TEXT or expected.dtype.kind in TEXT:
        return 0.0 if texts(found) == texts(expected) else float("inf")
    left, right = found.astype(np.float64), expected.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(left - right))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))


def largest(expected: NDArray[Any]) -> float:
    """Return the largest absolute value, at least 1: the scale of differences."""
    if expected.dtype.kind in TEXT:
        return 1.0
    values = np.abs(expected.astype(np.float64))
    return max(1.0, float(values[np.isfinite(values)].max(initial=0)))


def texts(array: NDArray[Any]) -> list[bytes]:
    """Return an array's texts as a flat list of bytes."""
    return [value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()]


def write(folder: Path, golden: Golden) -> None:
    """Write `golden.json`."""
    document = {
        "tolerance": golden.tolerance,
        "inputs": {name: _encode(array) for name, array in golden.inputs.items()},
        "outputs": {name: _encode(array) for name, array in golden.outputs.items()},
    }
    (folder / GOLDEN).write_text(json.dumps(document, indent=1) + "\n")


def read(folder: Path) -> Golden | None:
    """Read a version's golden sample; None if it has none. Raises `GoldenError` if it is invalid."""
    path = folder / GOLDEN
    try:
        document = json.loads(path.read_text())
        inputs, outputs = (
            {name: _decode(tensor) for name, tensor in document[key].items()} for key in ("inputs", "outputs")
        )
        return Golden(inputs, outputs, float(document["tolerance"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GoldenError(f"{path} cannot be read as a golden sample: {error}") from error


def _encode(array: NDArray[Any]) -> dict[str, Any]:
    if array.dtype.kind in TEXT:
        encoded = [base64.b64encode(text).decode() for text in texts(array)]
        return {"dtype": "bytes", "shape": list(array.shape), "data": encoded}
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decode(tensor: Mapping[str, Any]) -> NDArray[Any]:
    if tensor["dtype"] == "bytes":
        decoded = np.empty(len(tensor["data"]), object)
        decoded[:] = [base64.b64decode(text) for text in tensor["data"]]
        return decoded.reshape(tensor["shape"])
    dtype = np.dtype(tensor["dtype"])
    array = np.frombuffer(base64.b64decode(tensor["data"]), dtype.newbyteorder("<"))
    return array.reshape(tensor["shape"]).astype(dtype)
