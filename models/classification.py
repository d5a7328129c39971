"""One of several classes: softmax and cross entropy; judged by accuracy, overall and per class, and macro F1."""

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
class Classification(Task):
    """The network gives `logits` float32 [batch, classes]; targets are int64 [N]."""

    classes: tuple[str, ...]
    label_smoothing: float = 0.1
    """Keeps logits small, so that rounding in another runtime stays small beside them (Szegedy et al. 2016)."""

    kind: ClassVar[str] = "classification"
    score: ClassVar[str] = "accuracy"
    watched: ClassVar[str] = "accuracy"

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        shape = (BATCH, len(self.classes))
        return Tensor("logits", "float32", shape), Tensor("probabilities", "float32", shape)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"classes": list(self.classes)}

    def keras_targets(self, targets: NDArray[Any]) -> NDArray[Any]:
        """One-hot, float32 [N, classes]: Keras smooths no others."""
        import numpy as np

        return np.asarray(np.eye(len(self.classes), dtype=np.float32)[targets])

    def keras_loss(self) -> keras.losses.Loss:
        import keras

        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=self.label_smoothing)

    def keras_metric(self) -> keras.metrics.Metric:
        import keras

        return keras.metrics.CategoricalAccuracy(name=self.watched)

    def keras_outputs(self, output: Any) -> dict[str, Any]:  # noqa: ANN401
        import tensorflow as tf

        return {"logits": output, "probabilities": tf.nn.softmax(output)}

    def torch_loss(self, output: TorchTensor, targets: TorchTensor) -> TorchTensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(output, targets, label_smoothing=self.label_smoothing)

    def torch_metric(self, output: TorchTensor, targets: TorchTensor) -> TorchTensor:
        return (output.argmax(1) == targets).float().mean()

    def torch_outputs(self, output: TorchTensor) -> tuple[TorchTensor, ...]:
        return output, output.softmax(dim=1)

    def metrics(self, output: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """Return `accuracy`, `macro_f1`, and `accuracy/<class>` for each class with rows."""
        chosen = output.argmax(axis=1)
        result, f1 = {"accuracy": float((chosen == targets).mean())}, []
        for index, name in enumerate(self.classes):
            actual, predicted = targets == index, chosen == index
            both = float((actual & predicted).sum())
            if actual.any():
                result[f"accuracy/{name}"] = both / float(actual.sum())
            if actual.any() or predicted.any():
                f1.append(2 * both / float(actual.sum() + predicted.sum()))
        return result | {"macro_f1": sum(f1) / max(1, len(f1))}

    def margin(self, metric: str, profile: Profile) -> float | None:
        return profile.class_regression if "/" in metric else profile.score_regression

    def agreement(self, output: NDArray[Any], reference: NDArray[Any]) -> float | None:
        return float((output.argmax(axis=1) == reference.argmax(axis=1)).mean())

    def inconsistency(self, outputs: Arrays) -> tuple[str, float] | None:
        return "probabilities' distance from a sum of 1", float(
            abs(outputs["probabilities"].sum(axis=1) - 1).max()
        )

    def told(self, outputs: Arrays) -> str:
        """Return the class and its probability, as text."""
        row = outputs["probabilities"][0]
        return f"{self.classes[int(row.argmax())]:16}{row.max():.6f}"
