"""One or more quantities: mean squared error; judged by R2, mean squared and mean absolute error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from models.signature import BATCH, Arrays, Tensor
from models.task import Task

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray
    from torch import Tensor as TorchTensor

    from models.base import Profile


@dataclass(frozen=True)
class Regression(Task):
    """The network gives `value` float32 [batch, quantities]; targets are float32 [N, quantities]."""

    quantities: tuple[str, ...]

    kind: ClassVar[str] = "regression"
    score: ClassVar[str] = "r2"
    watched: ClassVar[str] = "mae"

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return (Tensor("value", "float32", (BATCH, len(self.quantities))),)

    @property
    def target_row(self) -> tuple[int, ...]:
        return (len(self.quantities),)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"quantities": list(self.quantities)}

    def keras_loss(self) -> keras.losses.Loss:
        import keras

        return keras.losses.MeanSquaredError()

    def keras_metric(self) -> keras.metrics.Metric:
        import keras

        return keras.metrics.MeanAbsoluteError(name=self.watched)

    def keras_outputs(self, output: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"value": output}

    def torch_loss(self, output: TorchTensor, targets: TorchTensor) -> TorchTensor:
        return (output - targets).square().mean()

    def torch_metric(self, output: TorchTensor, targets: TorchTensor) -> TorchTensor:
        return (output - targets).abs().mean()

    def torch_outputs(self, output: TorchTensor) -> tuple[TorchTensor, ...]:
        return (output,)

    def metrics(self, output: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """Return `r2` (the mean of the quantities'), `mse`, `mae`, and `r2/<quantity>` if there are several."""
        error = output.astype(float) - targets
        spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        r2 = 1 - (error**2).sum(axis=0) / spread.clip(1e-12)
        result = {"r2": float(r2.mean()), "mse": float((error**2).mean()), "mae": float(abs(error).mean())}
        each = zip(self.quantities, r2, strict=True) if len(self.quantities) > 1 else ()
        return result | {f"r2/{name}": float(value) for name, value in each}

    def margin(self, metric: str, profile: Profile) -> float | None:
        if metric.startswith("r2/"):
            return profile.class_regression
        return profile.score_regression if metric == "r2" else None

    def told(self, outputs: Arrays) -> str:
        """Return each quantity with its value, as text."""
        values = zip(self.quantities, outputs["value"][0], strict=True)
        return ", ".join(f"{name} {value:.6g}" for name, value in values)
