"""MLServer with a custom runtime, in one process (its documentation's setting for models that need no workers).

https://docs.seldon.ai/mlserver/user-guide/custom
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_model import OnnxModel, arguments


class Runtime(MLModel):
    """The custom runtime."""

    async def load(self) -> bool:
        self._model = OnnxModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = NumpyCodec.decode_input(payload.inputs[0])
        answer = self._model(images)
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, values) for name, values in answer.items()],
        )


if __name__ == "__main__":
    options = arguments()
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": options.http_port,
        "grpc_port": options.grpc_port,
        "metrics_endpoint": None,
        "parallel_workers": 0,
    }
    (options.folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": options.name, "implementation": "serve_mlserver.Runtime"}
    (options.folder / "model-settings.json").write_text(json.dumps(model))
    command = str(Path(sys.executable).with_name("mlserver"))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    os.execv(command, [command, "start", str(options.folder)])
