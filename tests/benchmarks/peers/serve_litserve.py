"""LitServe with a LitAPI: one API server, one worker, its fast queue.

https://lightning.ai/docs/litserve
"""

from __future__ import annotations

import litserve as ls
import numpy as np
from onnx_model import Floats, OnnxModel, arguments


class Api(ls.LitAPI):
    """{"image": nested lists} -> {output: nested lists}."""

    def setup(self, device: str) -> None:
        self._model = OnnxModel()

    def decode_request(self, request: dict[str, object]) -> Floats:
        return np.array(request["image"], np.float32)

    def predict(self, x: Floats) -> dict[str, Floats]:
        return self._model(x)

    def encode_response(self, output: dict[str, Floats]) -> dict[str, object]:
        return {name: values.tolist() for name, values in output.items()}


if __name__ == "__main__":
    options = arguments()
    server = ls.LitServer(Api(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=options.http_port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
