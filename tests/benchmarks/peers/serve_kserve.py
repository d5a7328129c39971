"""KServe's SDK with a custom model.

https://kserve.github.io/website/docs/model-serving/predictive-inference/frameworks/custom-predictor/custom-predictor
"""

from __future__ import annotations

import logging

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid
from onnx_model import OnnxModel, arguments


class Predictor(Model):
    """The custom model."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._model = OnnxModel()
        self.ready = True

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        answer = self._model(payload.inputs[0].as_numpy())
        outputs = []
        for name, values in answer.items():
            output = InferOutput(name, list(values.shape), "FP32")
            output.set_data_from_numpy(values, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(
            payload.id or generate_uuid(),
            self.name,
            outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    options = arguments()
    server = ModelServer(
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        workers=1,
        enable_latency_logging=False,
    )
    # As they are, these write three lines a request.
    for name in ("uvicorn.access", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start([Predictor(options.name)])
