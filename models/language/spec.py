"""The numbers of the model: a tiny transformer encoder that tells the language of a short text by its bytes."""

from models.base import ModelSpec, Profile
from models.classification import Classification
from models.data import OwnData
from models.signature import Tensor

BYTES, LENGTH = 256, 48
WIDTH, HEADS, BLOCKS, HIDDEN = 64, 4, 2, 128
# Keras's default is 1e-3, PyTorch's 1e-5.
NORM_EPSILON = 1e-5
MASKED = -1e4
"""The summand of the scores of padding; float16 can represent it."""

LANGUAGES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "pl": "Polish",
    "fi": "Finnish",
    "hu": "Hungarian",
    "tr": "Turkish",
    "el": "Greek",
    "ru": "Russian",
}

SPEC = ModelSpec(
    name=__name__.split(".")[-2],
    inputs=(Tensor("text", "int32", ("batch", LENGTH), content="text"),),
    task=Classification(classes=tuple(LANGUAGES.values())),
    data=OwnData("wordfreq-3.1.1"),
    # With int8 activations a third of the answers are others.
    precisions=("float32", "float16"),
    profiles={
        "smoke": Profile(
            epochs=1,
            epoch_rows=12_800,
            batch_size=64,
            peak_learning_rate=3e-3,
            minimum_score=0.75,
            training_loss=1e-2,
            score_difference=0.03,
            score_regression=0.05,
            class_regression=0.3,
        ),
        "quick": Profile(epochs=2, peak_learning_rate=4e-3, minimum_score=0.85),
        "full": Profile(epochs=10, peak_learning_rate=4e-3, minimum_score=0.88),
    },
)
