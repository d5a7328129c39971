"""BentoML with a service of one worker.

https://docs.bentoml.com/en/latest/build-with-bentoml/services.html
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import numpy.typing as npt
from bentoml.validators import DType
from onnx_model import Floats, OnnxModel, arguments

Images = Annotated[npt.NDArray[np.float32], DType("float32")]


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Fashion:
    """{"image": nested lists} -> {output: nested lists}."""

    def __init__(self) -> None:
        self._model = OnnxModel()

    @bentoml.api
    def predict(self, image: Images) -> dict[str, list[list[float]]]:
        answer: dict[str, Floats] = self._model(image)
        return {name: values.tolist() for name, values in answer.items()}


if __name__ == "__main__":
    options = arguments()
    os.environ |= {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(options.folder)}
    command = str(Path(sys.executable).with_name("bentoml"))
    here = str(Path(__file__).parent)
    service = f"{Path(__file__).stem}:{Fashion.name}"
    flags = ["--host", "127.0.0.1", "--port", str(options.http_port), "--working-dir", here]
    os.execv(command, [command, "serve", service, *flags])
