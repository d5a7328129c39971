from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.base import Model, Weights
from pipelines.exporting import keras_graph
from pipelines.exporting.savedmodel import EXPORTER
from tests.pictures import Images
from tests.pipelines.exporting.conftest import Answers, Made

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def artifact(made: Made) -> Path:
    return made("tf-serving")


@pytest.fixture(scope="module")
def signatures(made: Made) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(made("tf-serving")))
    # The signatures hold what they call only weakly.
    return {name: (loaded, function) for name, function in loaded.signatures.items()}


def encoded(array: NDArray[np.uint8], kind: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def as_pillow(contents: bytes) -> Images:
    with Image.open(BytesIO(contents)) as picture:
        grey = picture.convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    return np.asarray(grey, np.float32)[np.newaxis, :, :, np.newaxis] / np.float32(255)


def test_it_holds_each_weight_once(artifact: Path, weights: Weights) -> None:
    written = sum(file.stat().st_size for file in artifact.glob("variables/*.data-*"))
    assert written < 1.1 * sum(array.nbytes for array in weights.values())


def test_it_answers_as_keras_does(answers_as_keras: Answers, artifact: Path) -> None:
    answers_as_keras(EXPORTER, artifact, 1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_it_refuses_what_is_not_finite(signatures: Any, pictures: Images, value: float) -> None:
    import tensorflow as tf

    bad = pictures[:2].copy()
    bad[1, 3, 4, 0] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match="image: expected finite numbers"):
        signatures["serving_default"][1](image=tf.constant(bad))


def test_its_signatures_are_the_contract(signatures: Any) -> None:
    assert sorted(signatures) == ["encoded", "serving_default"]
    default, by_bytes = signatures["serving_default"][1], signatures["encoded"][1]
    ((name, spec),) = default.structured_input_signature[1].items()
    assert (name, spec.shape.as_list(), spec.dtype.name) == ("image", [None, 28, 28, 1], "float32")
    ((name, spec),) = by_bytes.structured_input_signature[1].items()
    assert (name, spec.shape.as_list(), spec.dtype.name) == ("image_bytes", [None], "string")
    for signature in (default, by_bytes):
        shapes = {key: spec.shape.as_list() for key, spec in signature.structured_outputs.items()}
        assert shapes == {"logits": [None, 10], "probabilities": [None, 10]}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_encoded_pictures_are_read_as_pillow_reads_them(
    signatures: Any, kind: str, shape: tuple[int, ...]
) -> None:
    import tensorflow as tf

    contents = encoded(np.random.default_rng(3).integers(0, 256, shape, np.uint8), kind)
    outputs = signatures["encoded"][1](image_bytes=tf.constant([contents]))
    expected = signatures["serving_default"][1](image=tf.constant(as_pillow(contents)))
    np.testing.assert_allclose(outputs["logits"], expected["logits"], atol=1e-5, rtol=0)


def test_a_picture_of_another_size_is_resized(signatures: Any) -> None:
    import tensorflow as tf

    ramp = np.add.outer(np.arange(120), np.arange(90)).astype(np.uint8)
    contents = encoded(ramp, "PNG")
    outputs = signatures["encoded"][1](image_bytes=tf.constant([contents, encoded(ramp[:28, :28], "PNG")]))
    expected = signatures["serving_default"][1](image=tf.constant(as_pillow(contents)))
    np.testing.assert_allclose(outputs["probabilities"][:1], expected["probabilities"], atol=5e-3, rtol=0)


def test_no_pictures_decode_to_no_rows(model: Model) -> None:
    """The rest is TensorFlow's: on some processors its convolution of no rows has another shape."""
    import tensorflow as tf

    picture = model.spec.signature.picture
    assert picture is not None
    assert keras_graph.decode(picture, tf.constant([], tf.string)).shape == (0, 28, 28, 1)


def test_what_is_no_picture_is_refused(signatures: Any) -> None:
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        signatures["encoded"][1](image_bytes=tf.constant([b"no picture"]))
