"""The model as every peer runs it, and the command line that every program beside this file has.

These programs run in the peers' own environments: they import nothing of this project but this file.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

MODEL = "BENCHMARK_MODEL"
"""The variable that tells a worker process where the .onnx file is."""

Floats = npt.NDArray[np.float32]


class OnnxModel:
    """One session: 1 intra-op thread, no spinning, as Tandem's own server has it."""

    def __init__(self, path: str = "") -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            path or os.environ[MODEL], options, providers=["CPUExecutionProvider"]
        )
        (image,) = self._session.get_inputs()
        self.input: str = image.name
        self.shape: list[int] = image.shape[1:]
        """Of one picture."""
        self.outputs = [argument.name for argument in self._session.get_outputs()]

    def __call__(self, images: Floats) -> dict[str, Floats]:
        """Every output [N, classes] by name, of images float32 [N, H, W, C]."""
        return dict(zip(self.outputs, self._session.run(self.outputs, {self.input: images}), strict=True))


def arguments() -> argparse.Namespace:
    """`model` (the .onnx file), its `name`, `http_port`, `grpc_port`, `folder` (empty, to write in).

    Sets `MODEL`, which processes that are started from here inherit.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    os.environ[MODEL] = str(options.model)
    return options
