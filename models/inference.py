"""The task of an imported artifact: it answers, and nothing says which answer is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from models.signature import Arrays, Tensor
from models.task import Task

MOST_TOLD = 8
"""Values of an output in a printed answer."""


@dataclass(frozen=True)
class Inference(Task):
    """The outputs are the artifact's own. It has no loss: it is not trained here."""

    tensors: tuple[Tensor, ...]

    kind: ClassVar[str] = "inference"

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self.tensors

    def keras_outputs(self, output: Any) -> dict[str, Any]:  # noqa: ANN401
        values = self.torch_outputs(tuple(output.values()) if isinstance(output, dict) else output)
        return {tensor.name: value for tensor, value in zip(self.tensors, values, strict=True)}

    def torch_outputs(self, output: Any) -> tuple[Any, ...]:  # noqa: ANN401
        return tuple(output) if isinstance(output, list | tuple) else (output,)

    def told(self, outputs: Arrays) -> str:
        """Return the first values of each output, as text."""
        texts = []
        for tensor in self.tensors:
            values = outputs[tensor.name].ravel()
            shown = " ".join(map(_shown, values[:MOST_TOLD].tolist()))
            texts.append(f"{tensor.name} {shown}{' ...' if values.size > MOST_TOLD else ''}")
        return "; ".join(texts)


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return f"{value:.6g}" if isinstance(value, float) else str(value)
