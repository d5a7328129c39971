"""What an imported artifact is for: it answers, and nothing is known of what is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from models.signature import Arrays, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.base import Profile

MOST_TOLD = 8
"""Values of an output that a person is shown."""


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Inference:
    """The outputs are the artifact's own. It has no loss: it is not trained here."""

    tensors: tuple[Tensor, ...]

    kind: ClassVar[str] = "inference"
    score: ClassVar[str] = ""
    watched: ClassVar[str] = ""
    target_row: ClassVar[tuple[int, ...]] = ()

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self.tensors

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def keras_outputs(self, output: Any) -> dict[str, Any]:  # noqa: ANN401
        values = output.values() if isinstance(output, dict) else output
        values = list(values) if isinstance(output, dict | list | tuple) else [values]
        return {tensor.name: value for tensor, value in zip(self.tensors, values, strict=True)}

    def torch_outputs(self, output: Any) -> tuple[Any, ...]:  # noqa: ANN401
        return tuple(output) if isinstance(output, list | tuple) else (output,)

    def untrained(self, *_: Any) -> Any:  # noqa: ANN401
        """Raises `TypeError`."""
        raise TypeError("an imported artifact is not trained here")

    keras_targets = keras_loss = keras_metric = torch_loss = torch_metric = untrained

    def metrics(self, output: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        return {}

    def margin(self, metric: str, profile: Profile) -> float | None:
        return None

    def agreement(self, output: NDArray[Any], reference: NDArray[Any]) -> float | None:
        return None

    def inconsistency(self, outputs: Arrays) -> tuple[str, float] | None:
        return None

    def told(self, outputs: Arrays) -> str:
        """The first values of each output."""
        found = []
        for tensor in self.tensors:
            values = outputs[tensor.name].ravel()
            shown = " ".join(map(_shown, values[:MOST_TOLD].tolist()))
            found.append(f"{tensor.name} {shown}{' ...' if values.size > MOST_TOLD else ''}")
        return "; ".join(found)
