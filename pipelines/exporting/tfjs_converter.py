"""TensorFlow.js's converter, in a process of its own: `python -m pipelines.exporting.tfjs_converter FROM TO`.

The package imports libraries that the conversion of a SavedModel never calls, and that conflict with ours; mocks
replace them, which would disturb any other work of the process.
"""

from __future__ import annotations

import sys
from unittest.mock import MagicMock

UNUSED = (
    "tensorflow_decision_forests",
    "tensorflow_hub",
    "tf_keras",
    "tensorflowjs.converters.jax_conversion",
)


def convert(saved_model: str, folder: str) -> None:
    """Convert the signature `serving_default` to a graph model with float32 weights."""
    for name in UNUSED:
        sys.modules[name] = MagicMock()
    from tensorflowjs.converters.tf_saved_model_conversion_v2 import convert_tf_saved_model

    convert_tf_saved_model(saved_model, folder, signature_def="serving_default")


if __name__ == "__main__":
    convert(*sys.argv[1:])
