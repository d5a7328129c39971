"""Networks of an archive: PyTorch's exported program, AOTInductor's library, ONNX Runtime's session."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Network = Callable[..., Sequence[torch.Tensor]]


def load(folder: Path, form: str, inputs: Sequence[str], outputs: Sequence[str]) -> Network:
    """Return the network of `folder`, to run on one thread: TorchServe scales by workers."""
    torch.set_num_threads(1)
    if form == "exported":
        return torch.export.load(folder / "model.pt2").module()
    if form == "aot":
        # Else they warn that the CPU has further instructions, and that there is no g++.
        for name in ("torch.export", "torch._inductor"):
            logging.getLogger(name).setLevel(logging.ERROR)
        return torch._inductor.aoti_load_package(str(folder / "model.pt2"))
    if form == "onnx":
        return _load_onnx(str(folder / "model.onnx"), inputs, outputs)
    raise ValueError(f"expected the form exported, aot or onnx, the archive says {form!r}")


def _load_onnx(path: str, inputs: Sequence[str], outputs: Sequence[str]) -> Network:
    """Return ONNX Runtime's session as a function of PyTorch's tensors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def network(*tensors: torch.Tensor) -> list[torch.Tensor]:
        values = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
        return [torch.from_numpy(output) for output in session.run(outputs, values)]

    return network


def require_processor(wanted: dict[str, Any]) -> None:
    """Raise `RuntimeError` if code was compiled for another CPU: it would crash."""
    here = (platform.machine(), torch.backends.cpu.get_cpu_capability())
    if wanted and (here[0] != wanted["machine"] or here[1] not in wanted["capabilities"]):
        raise RuntimeError(
            f"its code is compiled for {wanted['march']} ({wanted['machine']} with "
            f"{' or '.join(wanted['capabilities'])}), this CPU offers {here[0]} with {here[1]}"
        )
