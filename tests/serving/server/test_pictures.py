"""Rows of every kind to the model's tensor."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from serving.server.errors import InvalidRequestError, TooLargeError
from serving.server.pictures import decode
from serving.server.tensors.signature import TensorSpec

GRAY = TensorSpec("image", "float32", (-1, 28, 28, 1))
COLOR = TensorSpec("image", "float32", (-1, 28, 28, 3))
ANY_SIZE = TensorSpec("image", "float32", (-1, -1, -1, 1))


def png(picture: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def test_every_gray_value_is_kept_exactly() -> None:
    pixels = np.arange(784).reshape(28, 28).astype(np.uint8)
    decoded = decode([png(Image.fromarray(pixels))] * 2, GRAY)
    assert decoded.shape == (2, 28, 28, 1)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded[1, :, :, 0], pixels.astype(np.float32) / np.float32(255))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    pixels = np.full((28, 28), 32768, np.uint16)
    np.testing.assert_allclose(decode([png(Image.fromarray(pixels))], GRAY), 0.5, atol=1e-3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_any_mode_becomes_the_model_s_channels(mode: str) -> None:
    picture = Image.new("RGB", (28, 28), (255, 255, 255)).convert(mode)
    np.testing.assert_allclose(decode([png(picture)], GRAY), 1, atol=1e-6)
    assert decode([png(picture)], COLOR).shape == (1, 28, 28, 3)


def test_another_size_is_resized() -> None:
    picture = Image.new("L", (56, 40), 51)
    np.testing.assert_allclose(decode([png(picture, "JPEG")], GRAY), np.full((1, 28, 28, 1), 0.2), atol=0.01)


def test_where_the_model_takes_any_size_pictures_of_one_request_must_agree() -> None:
    small, large = png(Image.new("L", (3, 2))), png(Image.new("L", (4, 2)))
    assert decode([small], ANY_SIZE).shape == (1, 2, 3, 1)
    with pytest.raises(InvalidRequestError, match=r"of one size.* got 3x2, 4x2"):
        decode([small, large], ANY_SIZE)


NO_PICTURES = {
    "empty": b"",
    "text": b"hello",
    "cut off": png(Image.effect_noise((28, 28), 80))[:400],
    "a GIF": png(Image.new("L", (9, 9)), "GIF"),
    "cut JPEG": b"\xff\xd8\xff\xe0",
}


@pytest.mark.parametrize("case", NO_PICTURES)
def test_what_is_no_picture_is_refused(case: str) -> None:
    with pytest.raises(
        InvalidRequestError, match="picture 1 of input 'image' is no picture: expected PNG or"
    ):
        decode([png(Image.new("L", (28, 28))), NO_PICTURES[case]], GRAY)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    bomb = png(Image.new("1", (6_000, 6_000)))
    assert len(bomb) < 20_000
    with pytest.raises(InvalidRequestError, match="6000x6000: at most"):
        decode([bomb], GRAY)


@pytest.mark.parametrize(("spec", "count"), [(GRAY, 17), (ANY_SIZE, 2)], ids=["one size", "any size"])
def test_many_large_pictures_are_too_much_for_one_request(spec: TensorSpec, count: int) -> None:
    """Each is within the limit; together they would take seconds, or gigabytes where the model takes any size."""
    blank = png(Image.new("1", (4096, 4096)))
    assert len(blank) * count < 100_000
    with pytest.raises(TooLargeError, match=f"the {count} pictures up to this have .*send fewer"):
        decode([blank] * count, spec)
