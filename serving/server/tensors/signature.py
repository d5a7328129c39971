"""The inputs and outputs of a model: names, dtypes and shapes, the same for all runtimes and protocols."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes  # noqa: F401 - teaches numpy the dtype bfloat16
import numpy as np
from numpy.typing import NDArray

from serving.server.errors import InvalidRequestError, ServerError, quote

Array = NDArray[np.generic]
"""A tensor. Strings are arrays of dtype object that hold `bytes`."""
Tensors = dict[str, Array]
"""Tensors by name."""

BYTES = "bytes"
DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: `dtype` is numpy's name of it, or "bytes"; -1 in `shape` stands for any size.

    `shape` is None if the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    def check(self, array: Array, finite: bool = False) -> None:
        """Raise `InvalidRequestError` unless the tensor has this dtype and shape.

        `finite`: it must also have at least one row, no NaN and no infinity.
        """
        if dtype_of(array) != self.dtype:
            raise self.refused(f"expected dtype {self.dtype}, got {dtype_of(array)}")
        shape = list(array.shape)
        if self.shape is not None and (
            len(shape) != len(self.shape)
            or any(want not in (-1, got) for want, got in zip(self.shape, shape, strict=True))
        ):
            raise self.refused(f"expected shape {list(self.shape)} (-1: any), got {shape}")
        if finite and array.size == 0:
            raise self.refused(f"expected at least one row, got shape {shape}")
        if finite and is_floating(array) and not np.isfinite(array).all():
            raise self.refused("expected finite numbers, got NaN or infinity")

    def refused(self, why: str) -> InvalidRequestError:
        """Return the error for a value that does not fit this input."""
        return InvalidRequestError(f"input {self.name!r}: {why}")

    @cached_property
    def batched(self) -> bool:
        """Return True if the first dimension is free."""
        return self.shape is not None and self.shape[:1] == (-1,)

    @cached_property
    def picture_size(self) -> tuple[int, int, int] | None:
        """(H, W, C) if this is a batch of float32 pictures [-1, H, W, C] with C of 1, 3 or 4; else None."""
        if self.dtype != "float32" or self.shape is None or not self.batched or len(self.shape) != 4:
            return None
        _, height, width, channels = self.shape
        return (height, width, channels) if channels in (1, 3, 4) else None


@dataclass(frozen=True)
class Signature:
    """One way to call a model, its tensors in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional: frozenset[str] = frozenset()
    """Inputs that have a default in the graph."""
    left_out: tuple[str, ...] = ()
    """Outputs that are no tensors and are not served: "name (type)"."""

    def check_names(self, given: Collection[str]) -> None:
        """Raise `InvalidRequestError` unless these are names of inputs, and all required ones."""
        if not self.required <= set(given) <= self.names:
            names = self.input_names
            raise InvalidRequestError(
                f"expected input{'s' if len(names) > 1 else ''} {', '.join(names) or '(none)'}, "
                f"got {quote(', '.join(given)) if given else 'none'}"
            )

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.inputs)

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.outputs)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the inputs."""
        return frozenset(self.input_names)

    @cached_property
    def required(self) -> frozenset[str]:
        """The names of required inputs."""
        return self.names - self.optional

    @cached_property
    def batched(self) -> bool:
        """Return True if every tensor's first dimension is free, so that requests can share a run."""
        return all(spec.batched for spec in (*self.inputs, *self.outputs))


Signatures = Mapping[str, Signature]


def signature_of(
    signatures: Signatures, key: str, error: type[ServerError] = InvalidRequestError
) -> Signature:
    """Return a signature by its key. Raises `error`."""
    if key not in signatures:
        raise error(f"the model has no signature {quote(key)}; it has: {', '.join(sorted(signatures))}")
    return signatures[key]


def default_key(signatures: Signatures) -> str:
    """Return the key of the signature to call where none is named: `serving_default`, or the first by name."""
    return DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else min(signatures)


def strings(values: Sequence[bytes]) -> Array:
    """Return a flat tensor of strings."""
    array: Array = np.empty(len(values), object)
    array[:] = values
    return array


def size_of(tensors: Tensors) -> int:
    """Return the bytes of tensors, with those of their strings."""
    arrays = tensors.values()
    texts = (text for array in arrays if array.dtype.hasobject for text in array.ravel().tolist())
    return sum(array.nbytes for array in arrays) + sum(len(text) for text in texts)


def shapes(tensors: Tensors) -> str:
    """Return the shapes of tensors for a message: "a [1, 2], b [3]"."""
    return ", ".join(f"{name} {list(array.shape)}" for name, array in tensors.items())


def dtype_of(array: Array) -> str:
    """Return the name of an array's dtype, as in `TensorSpec.dtype`."""
    return BYTES if array.dtype.hasobject else array.dtype.name


def is_floating(array: Array) -> bool:
    """Return True if an array may hold NaN or infinity."""
    return array.dtype.kind == "f" or dtype_of(array) == "bfloat16"


def example(signature: Signature) -> Tensors | None:
    """Return one row of zeros for a warm-up run; None if an input holds strings or has an unknown rank."""
    needed = [spec for spec in signature.inputs if spec.name in signature.required]
    if any(spec.dtype == BYTES or spec.shape is None for spec in needed):
        return None
    return {spec.name: np.zeros([max(size, 1) for size in spec.shape or ()], spec.dtype) for spec in needed}
