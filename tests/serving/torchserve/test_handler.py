import base64
import io
import json
import pickle
import re
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from ts.context import Context, RequestProcessor
from ts.utils.util import PredictionException

import models.base
from serving.torchserve.handler import Handler

SHAPE = (28, 28, 1)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.random((5, *SHAPE), np.float32)


FIRST_TEN = "logits = Identity(ten)"
COMPANY_COUNTS = "largest = ReduceMax<keepdims = 1>(ten, first) logits = Sub(ten, largest)"
"""Each row minus the largest of the run: no row's answer is its own."""
DARK_ROWS_VANISH = """
column = Slice(ten, first, second, axes)
list = Reshape(column, all)
bright = Greater(list, half)
logits = Compress<axis = 0>(ten, bright)
"""
"""Only rows whose first pixel is above one half."""
NETWORK = """
network (float[batch, 28, 28, 1] image) => (float[found, 10] logits, float[found, 10] probabilities)
<int64[2] rows = {0, 784}, int64[1] first = {0}, int64[1] second = {1}, int64[1] ends = {10}, int64[1] axes = {1},
 int64[1] all = {-1}, float half = {0.5}> {
  flat = Reshape(image, rows)
  ten = Slice(flat, first, ends, axes)
  %s
  probabilities = Softmax<axis = 1>(logits)
}"""
"""logits are made from `ten`, the first ten pixels; probabilities = their softmax."""


def load(folder: Path, network: str, signature: dict[str, Any]) -> Handler:
    folder.mkdir(exist_ok=True)
    graph = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {network}')
    onnx.save(graph, folder / "model.onnx")
    (folder / "signature.json").write_text(json.dumps(signature))
    handler = Handler()
    manifest = {"model": {"modelName": "fashion", "modelVersion": "7"}}
    handler.initialize(Context("fashion", str(folder), manifest, 1, None, "0.12.0"))
    return handler


def loaded(folder: Path, nodes: str, **signature: bool) -> Handler:
    return load(folder, NETWORK % nodes, models.base.load("fashion").spec.signature.to_json() | signature)


def numbers(*shape: str, dtype: str = "float32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "content": "numbers"}


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Handler]:
    """One that may run requests together, and one that may not."""
    folder = tmp_path_factory.mktemp("archives")
    return {batched: loaded(folder / str(batched), FIRST_TEN, batched=batched) for batched in (True, False)}


@pytest.fixture
def handler(handlers: dict[bool, Handler]) -> Handler:
    return handlers[True]


def serve(
    handler: Handler, *rows: dict[str, Any], http: bool = True, headers: dict[str, str] | None = None
) -> list[tuple[int, Any]]:
    """Status and JSON of each request of one batch."""
    context = Context("fashion", "", None, len(rows), None, "0.12.0")
    own = ({"Host": "here"} if http else {}) | (headers or {})
    context.request_processor = [RequestProcessor(own) for _ in rows]
    bodies = handler.handle(list(rows), context)
    assert all(context.get_response_content_type(index) == "application/json" for index in range(len(rows)))
    statuses = [context.get_response_status(index)[0] for index in range(len(rows))]
    return [(status, json.loads(body)) for status, body in zip(statuses, bodies, strict=True)]


def npy(array: NDArray[Any], allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def rows(instances: object) -> bytes:
    return json.dumps({"instances": instances}).encode()


def picture(form: str = "PNG", size: tuple[int, int] = (28, 28), mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).convert(mode).resize(size).save(
        file, form
    )
    return file.getvalue()


def sixteen_bits() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((28, 28), np.uint16)).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a kilobyte that says that it holds a gigabyte of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 32768, 32768, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))


def claiming(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An .npy whose header claims a shape that its data does not hold."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def encoded(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def logits(answer: dict[str, Any]) -> NDArray[np.float32]:
    return np.array([prediction["logits"] for prediction in answer["predictions"]], np.float32)


@pytest.mark.parametrize(
    "body",
    [
        rows(IMAGES.tolist()),
        rows([{"image": image} for image in IMAGES.tolist()]),
        b" \n" + rows(IMAGES.tolist()),
        npy(IMAGES),
        npy(np.asfortranarray(IMAGES)),
    ],
    ids=["rows", "named rows", "leading space", "npy", "npy in Fortran order"],
)
def test_numbers_are_predicted_exactly(handler: Handler, body: bytes) -> None:
    [(status, answer)] = serve(handler, {"body": body})
    assert status == 200
    assert list(answer["predictions"][0]) == ["logits", "probabilities"]
    np.testing.assert_array_equal(logits(answer), IMAGES.reshape(5, -1)[:, :10])
    sums = [sum(prediction["probabilities"]) for prediction in answer["predictions"]]
    assert sums == pytest.approx([1] * 5)


@pytest.mark.parametrize("field", ["body", "data", "picture"])
def test_a_png_is_one_prediction(handler: Handler, field: str) -> None:
    [(status, answer)] = serve(handler, {field: bytearray(picture())})
    assert status == 200
    np.testing.assert_allclose(logits(answer), [np.arange(10) / 255], atol=1e-7)


@pytest.mark.parametrize(
    "body", [picture(mode="RGB"), picture(mode="P"), picture("JPEG"), picture("JPEG", mode="RGB")]
)
def test_colour_and_jpeg_are_taken(handler: Handler, body: bytes) -> None:
    [(status, answer)] = serve(handler, {"body": body})
    assert status == 200
    assert logits(answer).shape == (1, 10)


def test_pictures_in_json(handler: Handler) -> None:
    instances = [encoded(picture()), IMAGES[0].tolist(), {"image": encoded(picture())}]
    [(status, answer)] = serve(handler, {"body": rows(instances)})
    assert status == 200
    expected = [np.arange(10) / 255, IMAGES[0].ravel()[:10], np.arange(10) / 255]
    np.testing.assert_allclose(logits(answer), expected, atol=1e-7)


def test_integers_are_numbers(handler: Handler) -> None:
    [(status, answer)] = serve(handler, {"body": rows(np.ones((1, *SHAPE), int).tolist())})
    assert status == 200
    assert logits(answer).tolist() == [[1.0] * 10]


def test_what_the_worker_parsed_already_is_taken(handler: Handler) -> None:
    assert serve(handler, {"body": {"instances": IMAGES.tolist()}})[0][0] == 200
    assert serve(handler, {"body": rows(IMAGES.tolist()).decode()})[0][0] == 200


def test_a_large_batch_is_run_in_slices(handler: Handler) -> None:
    images = GENERATOR.random((600, *SHAPE), np.float32)
    [(status, answer)] = serve(handler, {"body": npy(images)})
    assert status == 200
    np.testing.assert_array_equal(logits(answer), images.reshape(600, -1)[:, :10])


def deep(levels: int) -> bytes:
    return b'{"instances": ' + b"[" * levels + b"]" * levels + b"}"


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "expected JSON .* got 0 bytes"),
    "text": (b"hello", "expected JSON .* got 5 bytes that begin with b'hello'"),
    "broken JSON": (b'{"instances": [', "expected JSON, it cannot be read"),
    "not UTF-8": (b'{"instances": "\xff"}', "expected JSON, it cannot be read"),
    "NaN in JSON": (b'{"instances": [NaN]}', "expected JSON, it cannot be read"),
    "deep nesting": (deep(100_000), "depth limit|recursion|Recursion"),
    "nesting that JSON allows": (deep(500), "unequal lengths or too deep|got none"),
    "nesting that numpy refuses": (
        b'{"instances": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}",
        "too deep|no number",
    ),
    "a list": (b"[1, 2]", 'expected {"instances": .* got a list'),
    "other keys": (b'{"inputs": []}', r"got the keys \['inputs'\]"),
    "instances of a number": (b'{"instances": 1}', "expected"),
    "empty batch": (rows([]), "at least one row, got none"),
    "empty picture": (rows([[]]), "at least one row, got none"),
    "wrong shape": (
        rows(np.zeros((1, 27, 28, 1)).tolist()),
        r"shape \[1, 28, 28, 1\], got shape \[1, 27, 28, 1\]",
    ),
    "no batch dimension": (rows(np.zeros(SHAPE).tolist()), r"got shape \[28, 28, 1\]"),
    "ragged": (rows([[[[1]], [[1], [2]]]]), "unequal lengths"),
    "strings": (rows(np.full((1, *SHAPE), "x").tolist()), "no number"),
    "booleans": (rows(np.full((1, *SHAPE), True).tolist()), "no number"),
    "mixed with a wrong picture": (
        rows([encoded(picture()), [[1]]]),
        r"instances\[1\]: .* got shape \[1, 1\]",
    ),
    "too large for a float": (rows(np.full((1, *SHAPE), 1e300).tolist()), "NaN or infinity"),
    "unknown keys": (rows([{"b64": "", "x": 1}]), r"got the keys \['b64', 'x'\]"),
    "base64 of another type": (rows([{"b64": 1}]), r"instances\[0\]: expected a picture"),
    "broken base64": (rows([{"b64": "%%%"}]), r"instances\[0\]: expected base64"),
    "base64 of no picture": (rows([encoded(b"hello")]), r"instances\[0\]: expected a PNG or JPEG"),
    "npy of float64": (npy(IMAGES.astype(np.float64)), "expected float32 .* got dtype float64"),
    "npy of the other byte order": (npy(IMAGES.astype(">f4")), "got dtype >f4"),
    "npy of pickles": (npy(np.array([{}], object), allow_pickle=True), "got dtype object"),
    "npy of wrong shape": (npy(IMAGES[0]), r"got shape \[28, 28, 1\]"),
    "npy that is empty": (npy(IMAGES[:0]), "at least one row"),
    "npy with NaN": (npy(np.full((1, *SHAPE), np.nan, np.float32)), "NaN or infinity"),
    "npy cut short": (npy(IMAGES)[:-1], "expected 15680 bytes of data .* got 15679"),
    "npy with more behind it": (npy(IMAGES) + b"\0", "expected 15680 bytes of data .* got 15681"),
    "npy that claims terabytes": (claiming((10**12, *SHAPE)), "got 0"),
    "npy of negative size": (claiming((-1, *SHAPE)), r"got shape \[-1, 28, 28, 1\]"),
    "npy without a header": (b"\x93NUMPY", "header cannot be read"),
    "npy of version 9": (b"\x93NUMPY\x09\x00" + bytes(20), "version 1.0, got 9.0"),
    "npy with code in its header": (
        b"\x93NUMPY\x01\x00\x14\x00__import__('os') + 1",
        "header cannot be read",
    ),
    "picture cut short": (picture()[:-60], "cannot be decoded"),
    "JPEG that is only its magic": (b"\xff\xd8\xff", "cannot be decoded"),
    "GIF": (picture("GIF"), "begin with b'GIF89a|begin with b'GIF87a"),
    "16 bits a channel": (sixteen_bits(), "8 bits a channel"),
    "decompression bomb": (bomb(), "expected a picture of at most 16777216 pixels|cannot be decoded"),
    "pickle": (pickle.dumps(IMAGES), "expected JSON"),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_and_said_why(handler: Handler, body: bytes, message: str) -> None:
    [(status, answer)] = serve(handler, {"body": body})
    assert status == 400
    assert list(answer) == ["code", "type", "message"]
    assert answer["code"] == 400
    assert answer["type"] == "BadRequestException"
    assert re.search(message, answer["message"]), answer["message"]
    assert len(answer["message"]) < 500
    assert serve(handler, {"body": npy(IMAGES)})[0][0] == 200


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "got no body"),
        ({"a": b"1", "b": b"2"}, r"got the fields \['a', 'b'\]"),
        ({'{"instances": []}': b""}, "name the Content-Type"),
    ],
)
def test_bodies_that_are_none(handler: Handler, row: dict[str, bytes], message: str) -> None:
    [(status, answer)] = serve(handler, row)
    assert status == 400
    assert re.search(message, answer["message"])


@pytest.mark.parametrize("batched", [True, False])
@settings(deadline=None)
@given(
    st.lists(st.one_of(st.integers(1, 5), st.sampled_from(sorted(BAD))), min_size=1, max_size=8), st.randoms()
)
def test_everybody_gets_the_answer_to_their_own_rows(
    handlers: dict[bool, Handler], batched: bool, requests: list[int | str], random: Random
) -> None:
    """Requests of so many rows, with bad ones between them."""
    images = [
        np.random.default_rng(random.randrange(2**32)).random((rows, *SHAPE), np.float32)
        for rows in requests
        if isinstance(rows, int)
    ]
    good = iter([{"body": npy(own)} for own in images])
    batch = [next(good) if isinstance(request, int) else {"body": BAD[request][0]} for request in requests]
    answers = serve(handlers[batched], *batch)
    assert [status for status, _ in answers] == [200 if isinstance(r, int) else 400 for r in requests]
    found = [logits(answer) for status, answer in answers if status == 200]
    for own, answered in zip(images, found, strict=True):
        np.testing.assert_array_equal(answered, own.reshape(len(own), -1)[:, :10])


def test_a_model_whose_rows_see_each_other_runs_each_request_alone(tmp_path: Path) -> None:
    requests = [{"body": npy(IMAGES[:2])}, {"body": npy(IMAGES[2:])}]
    for signature in ({}, {"batched": False}):
        handler = loaded(tmp_path / str(len(signature)), COMPANY_COUNTS, **signature)
        alone = [serve(handler, request)[0] for request in requests]
        assert serve(handler, *requests) == alone
    together = loaded(tmp_path / "batched", COMPANY_COUNTS, batched=True)
    assert serve(together, *requests) != alone


def test_a_request_of_a_model_that_is_not_batched_is_one_run(tmp_path: Path) -> None:
    images = np.zeros((600, *SHAPE), np.float32)
    images[599, 0, 0] = 1
    handler = loaded(tmp_path, COMPANY_COUNTS, batched=False)
    [(_, answer)] = serve(handler, {"body": npy(images)})
    assert (logits(answer)[:599, 0] == -1).all()


@pytest.mark.parametrize("batched", [True, False])
def test_a_run_that_loses_rows_fails_its_own_request_only(tmp_path: Path, batched: bool) -> None:
    bright = np.clip(IMAGES, 0.6, 1)
    dark = np.concatenate([bright[:1], IMAGES[:1] * 0.1])
    handler = loaded(tmp_path, DARK_ROWS_VANISH, batched=batched)
    answers = serve(handler, {"body": npy(bright[:2])}, {"body": npy(dark)}, {"body": npy(bright[2:])})
    assert [status for status, _ in answers] == [200, 500, 200]
    np.testing.assert_array_equal(logits(answers[0][1]), bright[:2].reshape(2, -1)[:, :10])
    np.testing.assert_array_equal(logits(answers[2][1]), bright[2:].reshape(3, -1)[:, :10])
    assert answers[1][1] == {
        "code": 500,
        "type": "InternalServerException",
        "message": "model fashion failed: 2 rows gave logits of shape [1, 10]",
    }
    with pytest.raises(PredictionException) as caught:
        serve(handler, {"data": npy(dark)}, http=False)
    assert caught.value.error_code == 500


def test_who_asks_for_a_description_is_told_the_version(handler: Handler) -> None:
    expected = {"model": "fashion", "version": "7", "batched": handler.batched, "runtime": "ONNX Runtime"}
    assert serve(handler, {}, headers={"describe": "True"}) == [(200, expected)]


def test_a_batch_of_bad_requests_only(handler: Handler) -> None:
    answers = serve(handler, {"body": b""}, {"body": b"x"})
    assert [status for status, _ in answers] == [400, 400]


def test_a_bad_grpc_request_raises_so_that_torchserve_answers_an_error(handler: Handler) -> None:
    with pytest.raises(PredictionException) as caught:
        serve(handler, {"data": b"broken"}, http=False)
    assert caught.value.error_code == 400


def test_a_bad_grpc_request_in_a_batch_is_answered_alone(handler: Handler) -> None:
    answers = serve(handler, {"data": b"broken"}, {"data": npy(IMAGES)}, http=False)
    assert [status for status, _ in answers] == [400, 200]


def test_requests_of_different_free_sizes_do_not_fail_each_other(tmp_path: Path) -> None:
    network = "negated (float[batch, length] x) => (float[batch, length] y) { y = Neg(x) }"
    free = {"inputs": {"x": numbers("batch", "length")}, "outputs": {"y": numbers("batch", "length")}}
    handler = load(tmp_path, network, free | {"batched": True})
    answers = serve(handler, {"body": rows([[1.0, 2.0]])}, {"body": rows([[3.0]])})
    assert answers == [(200, {"predictions": [{"y": [-1.0, -2.0]}]}), (200, {"predictions": [{"y": [-3.0]}]})]


def test_a_model_that_is_not_batched_takes_columns_and_scalars(tmp_path: Path) -> None:
    network = "scaled (float[length] x, int64 k) => (float[length] y) { f = Cast<to = 1>(k) y = Mul(x, f) }"
    inputs = {"x": numbers("length"), "k": numbers(dtype="int64")}
    handler = load(tmp_path, network, {"inputs": inputs, "outputs": {"y": numbers("length")}})

    def answer(inputs: object) -> Any:
        (found,) = handler.answer([{"body": json.dumps({"inputs": inputs}).encode()}], [False])
        return found.message if isinstance(found, PredictionException) else json.loads(found)

    assert answer({"x": [1, 2, 3], "k": 2}) == {"outputs": {"y": [2, 4, 6]}}
    assert answer({"x": [1.5], "k": -1}) == {"outputs": {"y": [-1.5]}}
    assert "inputs.x: expected numbers of shape ['length'], got shape [1, 1]" in answer({"x": [[1]], "k": 2})
    assert "inputs.k: expected whole numbers of shape []" in answer({"x": [1], "k": 2.5})
    assert "with the keys ['k', 'x']" in answer({"x": [1]})
