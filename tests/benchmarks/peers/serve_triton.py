"""The tritonserver of the nvidia-pytriton wheel with its Python backend, one instance, dynamic batching.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/python_backend/README.html
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from onnx_model import OnnxModel, arguments

CONFIG = """backend: "python"
max_batch_size: 64
input [{{ name: "{name}" data_type: TYPE_FP32 dims: {shape} }}]
output [{outputs}]
instance_group [{{ count: 1 kind: KIND_CPU }}]
dynamic_batching {{}}
"""


class TritonPythonModel:
    """The model inside the backend's stub process; this file is copied there as model.py."""

    def initialize(self, args: dict[str, str]) -> None:
        self._model = OnnxModel()

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all requests that the scheduler has put together."""
        import triton_python_backend_utils as pb

        images = [request.inputs()[0].as_numpy() for request in requests]
        answer = self._model(images[0] if len(images) == 1 else np.concatenate(images))
        responses, start = [], 0
        for image in images:
            end = start + len(image)
            tensors = [pb.Tensor(name, values[start:end]) for name, values in answer.items()]
            responses.append(pb.InferenceResponse(tensors))
            start = end
        return responses


def main() -> None:
    """Lay out a backend folder and a model repository, and become tritonserver."""
    options = arguments()
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        sys.exit("nvidia-pytriton is not installed here")
    package = Path(spec.origin).parent
    triton = package / "tritonserver"
    backend = options.folder / "backends" / "python"
    shutil.copytree(triton / "backends" / "python", backend)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copy2(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    folder = options.folder / "models" / options.name
    (folder / "1").mkdir(parents=True)
    shutil.copy2(__file__, folder / "1" / "model.py")
    # The stub takes no PYTHONPATH: what the model imports has to lie beside it.
    shutil.copy2(Path(__file__).with_name("onnx_model.py"), folder / "1")
    model = OnnxModel()
    outputs = [f'{{ name: "{name}" data_type: TYPE_FP32 dims: [-1] }}' for name in model.outputs]
    config = CONFIG.format(name=model.input, shape=model.shape, outputs=", ".join(outputs))
    (folder / "config.pbtxt").write_text(config)
    os.environ["LD_LIBRARY_PATH"] = str(package.parent / "nvidia_pytriton.libs")
    # The stub finds its packages by the python that comes first.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = str(triton / "bin" / "tritonserver")
    flags = {
        "model-repository": options.folder / "models",
        "backend-directory": options.folder / "backends",
        "http-address": "127.0.0.1",
        "http-port": options.http_port,
        "grpc-address": "127.0.0.1",
        "grpc-port": options.grpc_port,
        "allow-metrics": "false",
        "log-info": "false",
    }
    os.execv(command, [command, *(f"--{name}={value}" for name, value in flags.items())])


if __name__ == "__main__":
    main()
