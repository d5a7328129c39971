"""A task: the outputs of a network, its loss in both frameworks, and the metrics that judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from models.signature import Arrays, Tensor

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray
    from torch import Tensor as TorchTensor

    from models.base import Profile


class Task:
    """The base of `Classification`, `Regression` and `Inference`."""

    kind: ClassVar[str]
    score: ClassVar[str] = ""
    """The metric that the gates require a minimum of; 1 is perfect."""
    watched: ClassVar[str] = ""
    """The metric that a training shows after each epoch."""

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs of every endpoint; the network itself gives the first."""
        raise NotImplementedError

    @property
    def target_row(self) -> tuple[int, ...]:
        """The shape of one row's target."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """Return the form of the manifest."""
        return {"kind": self.kind}

    def keras_targets(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Return targets as the Keras loss takes them."""
        return targets

    def keras_loss(self) -> keras.losses.Loss:
        """The loss of a batch."""
        raise NotImplementedError

    def keras_metric(self) -> keras.metrics.Metric:
        """Return the metric `watched`."""
        raise NotImplementedError

    def keras_outputs(self, output: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the outputs by name, from the network's own."""
        raise NotImplementedError

    def torch_loss(self, output: TorchTensor, targets: TorchTensor) -> TorchTensor:
        """The loss of a batch."""
        raise NotImplementedError

    def torch_metric(self, output: TorchTensor, targets: TorchTensor) -> TorchTensor:
        """Return the metric `watched` of a batch."""
        raise NotImplementedError

    def torch_outputs(self, output: Any) -> tuple[TorchTensor, ...]:  # noqa: ANN401
        """Return the outputs in order, from the network's own."""
        raise NotImplementedError

    def metrics(self, output: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """Return every metric of some rows."""
        return {}

    def margin(self, metric: str, profile: Profile) -> float | None:
        """Return the amount by which a metric may be below the published version's; None if it does not count."""
        return None

    def agreement(self, output: NDArray[Any], reference: NDArray[Any]) -> float | None:
        """Return the share of rows with the same answer; None if answers are not discrete."""
        return None

    def inconsistency(self, outputs: Arrays) -> tuple[str, float] | None:
        """Return the largest contradiction between outputs and its name; None if the task has none."""
        return None

    def told(self, outputs: Arrays) -> str:
        """Return the first row's answer as text."""
        raise NotImplementedError
