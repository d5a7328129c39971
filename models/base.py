"""What a model is to the rest of Tandem: a spec, the same network in two frameworks, and a bridge between them."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import models

if TYPE_CHECKING:
    # The command line reads this file, and has no time to import numpy.
    import keras
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

Weights: TypeAlias = "dict[str, NDArray[np.float32]]"
"""Weights in neither framework's form: `<layer>/<role>` to array. Kernels are [height, width, in, out],
dense matrices [in, out]; roles are kernel, bias, scale, offset, mean, variance."""

FRAMEWORKS = ("tensorflow", "pytorch")


class ModelError(Exception):
    """A model's folder is missing, or does not hold what a model needs."""


@dataclass(frozen=True)
class Tolerances:
    """How far an artifact may be from its source framework."""

    logits: float = 1e-5
    """Largest absolute difference of float32 logits."""
    float16_agreement: float = 0.998
    """Least share of pictures that a float16 artifact must put into the same class."""
    int8_agreement: float = 0.97
    quantized_accuracy_drop: float = 0.01
    """Most accuracy that a quantized artifact may lose."""


@dataclass(frozen=True)
class Profile:
    """How long to train, and what the result must reach on the test pictures."""

    epochs: int
    peak_learning_rate: float
    minimum_accuracy: float
    batch_size: int = 128
    epoch_pictures: int | None = None
    """How many of the training pictures an epoch takes, drawn by seed; None takes all."""
    weight_decay: float = 1e-2
    shift: int = 0
    """Training pictures are moved by up to this many pixels each way: slower to learn, better in the end."""
    label_smoothing: float = 0.1
    """Keeps logits small, so that rounding in another runtime stays small beside them (Szegedy et al. 2016)."""
    training_loss: float = 1e-3
    """Largest relative difference of the two frameworks' losses in the first 50 steps: rounding grows with the rate."""
    framework_accuracy: float = 0.01
    """Largest difference of the two frameworks' test accuracies. Half of it is what is aimed at; chance alone
    moves the difference of two trainings by a quarter of a point (10,000 pictures, 600 answered differently)."""
    regression: float = 0.01
    """Most accuracy that a version may lose against the published one."""
    class_regression: float = 0.05
    """The same for a single class."""


@dataclass(frozen=True)
class PictureSet:
    """Labelled pictures in the four IDX files of MNIST's format (http://yann.lecun.com/exdb/mnist/).

    `sha256` maps each file's name, without .gz, to the digest of its *uncompressed* bytes: sources compress
    differently. `debian_package` and `urls` say where the files may come from; each url is a folder that
    holds `<file>.gz`.
    """

    name: str
    sha256: dict[str, str]
    debian_package: str = ""
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a model that is not code.

    The input is float32 [N, *image_shape] (NHWC), values 0..1; `mean` and `std` normalize it inside the
    graph, so that no caller can get it wrong.
    """

    name: str
    data: PictureSet
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: float
    std: float
    widths: tuple[int, ...]
    batch_norm_momentum: float
    batch_norm_epsilon: float
    profiles: dict[str, Profile]
    maximum_parameters: int
    tolerances: Tolerances = field(default_factory=Tolerances)
    input_name: str = "image"
    output_names: tuple[str, str] = ("logits", "probabilities")

    def profile(self, name: str) -> Profile:
        """Raises `ModelError` where the spec has no such profile."""
        try:
            return self.profiles[name]
        except KeyError:
            raise ModelError(
                f"model {self.name} has no profile {name!r}; it has {', '.join(self.profiles)}"
            ) from None


@dataclass(frozen=True)
class Model:
    """A folder of models/, loaded lazily: neither framework is imported before its network is asked for."""

    spec: ModelSpec
    package: str

    @property
    def folder(self) -> Path:
        """Where its sources lie."""
        source = importlib.import_module(self.package).__file__
        assert source is not None
        return Path(source).parent

    def build_keras(self) -> keras.Model:
        """The Keras network: image -> logits, with random weights."""
        network: keras.Model = self._module("keras_model").build(self.spec)
        return network

    def build_torch(self) -> nn.Module:
        """The PyTorch network: image -> logits, with random weights."""
        network: nn.Module = self._module("torch_model").build(self.spec)
        return network

    def initial_weights(self, seed: int) -> Weights:
        """The weights that both networks start from."""
        weights: Weights = self._module("weights").initial(self.spec, seed)
        return weights

    def from_keras(self, network: keras.Model) -> Weights:
        """Read a Keras network's weights."""
        weights: Weights = self._module("weights").from_keras(self.spec, network)
        return weights

    def to_keras(self, weights: Weights, network: keras.Model) -> None:
        """Set a Keras network's weights. Raises `ModelError` where names or shapes do not fit."""
        self._module("weights").to_keras(self.spec, weights, network)

    def from_torch(self, network: nn.Module) -> Weights:
        """Read a PyTorch network's weights."""
        weights: Weights = self._module("weights").from_torch(self.spec, network)
        return weights

    def to_torch(self, weights: Weights, network: nn.Module) -> None:
        """Set a PyTorch network's weights. Raises `ModelError` where names or shapes do not fit."""
        self._module("weights").to_torch(self.spec, weights, network)

    def _module(self, name: str) -> Any:  # noqa: ANN401
        return importlib.import_module(f"{self.package}.{name}")


def names() -> list[str]:
    """The models that exist: the packages in models/."""
    return sorted(module.name for module in pkgutil.iter_modules(models.__path__) if module.ispkg)


def load(name: str) -> Model:
    """Load a model by the name of its folder. Raises `ModelError` where there is none."""
    if name not in names():
        raise ModelError(f"there is no model {name!r} in models/; there are: {', '.join(names())}")
    spec = importlib.import_module(f"models.{name}.spec").SPEC
    if not isinstance(spec, ModelSpec):
        raise ModelError(
            f"models/{name}/spec.py: expected SPEC to be a ModelSpec, it is {type(spec).__name__}"
        )
    if spec.name != name:
        raise ModelError(f"models/{name}/spec.py: expected the name {name!r}, it says {spec.name!r}")
    return Model(spec, f"models.{name}")


def count_parameters(weights: Weights) -> int:
    """Trained numbers, without the batch norms' running statistics."""
    return sum(array.size for name, array in weights.items() if not name.endswith(("/mean", "/variance")))
