"""TensorProtos of every dtype and form, such as no honest client sends, and tensors in JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.server.errors import ServerError
from serving.server.tensors.signature import Array
from serving.server.tfs.json import write

LIMIT = 100_000
DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "bool", "complex64", "complex128", "object"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)


def proto(dtype: str, dims: list[int], content: bytes = b"", **values: list[Any]) -> Any:
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    made = TensorProto(dtype=types_pb2.DataType.Value(f"DT_{dtype}"), tensor_content=content, **values)
    for size in dims:
        made.tensor_shape.dim.add().size = size
    return made


def read(message: Any) -> Array:
    from serving.server.tfs.tensors import from_proto  # Which imports TensorFlow: that takes seconds.

    return from_proto("x", message, LIMIT)


def tensor(dtype: str, shape: tuple[int, ...]) -> Array:
    import tensorflow as tf

    if dtype == "object":
        strings: Array = np.full(shape, b"\xff\x00", object)
        return strings
    numbers = np.random.default_rng(0).integers(0, 100, shape)
    return np.asarray(numbers.astype(tf.as_dtype(dtype).as_numpy_dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 1)])
def test_every_dtype_and_form_is_what_tensorflow_makes_of_it(dtype: str, shape: tuple[int, ...]) -> None:
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    from serving.server.tfs.tensors import to_proto

    given = tensor(dtype, shape)
    made = [TensorProto(), tf.make_tensor_proto(given)]
    to_proto(given, made[0])
    for one in made:
        for back in (read(TensorProto.FromString(one.SerializeToString())), tf.make_ndarray(one)):
            assert (back.dtype, back.shape) == (given.dtype, given.shape)
            np.testing.assert_array_equal(back, given)


def test_the_last_value_stands_for_those_that_are_missing() -> None:
    assert read(proto("INT32", [4], int_val=[1, 2])).tolist() == [1, 2, 2, 2]
    assert read(proto("FLOAT", [2])).tolist() == [0, 0]
    assert read(proto("STRING", [3], string_val=[b"a"])).tolist() == [b"a"] * 3


@pytest.mark.parametrize(
    ("dtype", "dims", "values"),
    [
        ("FLOAT", [0, 2**62], {}),
        ("FLOAT", [2**31, 2**31, 2**31], {}),
        ("FLOAT", [-1], {}),
        ("FLOAT", [1] * 40, {"float_val": [1]}),
        ("FLOAT", [1], {"float_val": [1, 2]}),
        ("FLOAT", [2], {"content": b"1234"}),
        ("STRING", [2**20], {"string_val": [b"a"]}),
        ("STRING", [90], {"string_val": [b"a" * 2000]}),
        ("INT8", [1], {"int_val": [300]}),
        ("UINT8", [1], {"int_val": [-1]}),
        ("HALF", [1], {"half_val": [70_000]}),
        ("COMPLEX64", [2], {"scomplex_val": [1, 2, 3]}),
        ("RESOURCE", [1], {}),
        ("FLOAT_REF", [1], {"float_val": [1]}),
        ("INVALID", [], {}),
    ],
)
def test_what_is_no_tensor_is_refused(dtype: str, dims: list[int], values: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="input 'x'"):
        read(proto(dtype, dims, **values))


def test_what_is_not_finite_is_written_in_rows_of_several_outputs() -> None:
    y = np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)
    text = write({"y": y, "z": y[:, 0]}, rows=True)
    assert (
        text == b'{\n    "predictions": [{"y":[1.5,NaN],"z":1.5},{"y":[Infinity,-Infinity],"z":Infinity}]\n}'
    )
