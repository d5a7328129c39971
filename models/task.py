"""What a network is trained for: its outputs, its loss in both frameworks, and the figures that it is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from models.signature import Arrays, Tensor

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray
    from torch import Tensor as TorchTensor

    from models.base import Profile


class Task(Protocol):
    """models/classification.py and models/regression.py are those that there are."""

    @property
    def kind(self) -> str:
        """`classification` or `regression`."""

    @property
    def score(self) -> str:
        """The metric that the gates require a least value of; 1 is perfect."""

    @property
    def watched(self) -> str:
        """The metric that a training shows after each epoch."""

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What every endpoint answers; the first is what the network gives."""

    @property
    def target_row(self) -> tuple[int, ...]:
        """The shape of one row's target."""

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it."""

    def keras_targets(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Targets as the Keras loss takes them."""

    def keras_loss(self) -> keras.losses.Loss:
        """The loss of a batch."""

    def keras_metric(self) -> keras.metrics.Metric:
        """`watched`."""

    def keras_outputs(self, output: Any) -> dict[str, Any]:  # noqa: ANN401
        """The outputs by name, from what the network gives."""

    def torch_loss(self, output: TorchTensor, targets: TorchTensor) -> TorchTensor:
        """The loss of a batch."""

    def torch_metric(self, output: TorchTensor, targets: TorchTensor) -> TorchTensor:
        """`watched` of a batch."""

    def torch_outputs(self, output: TorchTensor) -> tuple[TorchTensor, ...]:
        """The outputs in order, from what the network gives."""

    def metrics(self, output: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """Every figure on some rows."""

    def margin(self, metric: str, profile: Profile) -> float | None:
        """How much less than the published version's a metric may be; None where it does not count."""

    def agreement(self, output: NDArray[Any], reference: NDArray[Any]) -> float | None:
        """The share of rows with the same answer; None where answers are not one or another."""

    def inconsistency(self, outputs: Arrays) -> tuple[str, float] | None:
        """How far outputs contradict each other, and in what; None where they cannot."""

    def told(self, outputs: Arrays) -> str:
        """The first row's answer, as a person says it."""
