"""The way from a model's networks or file to each target: direct, by a converter, or closed, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from models.artifact import FORMATS
from models.base import FRAMEWORKS, Model
from models.signature import DTYPES, STRING, Signature
from pipelines.exporting.base import ExportError
from serving import targets

CONVERTERS = {"tensorflow": "onnx2tf", "pytorch": "tf2onnx"}
"""The converter that makes a framework's targets from a model of the other."""
NATIVE = {
    "tensorflow": "tf-serving",
    "saved_model": "tf-serving",
    "keras": "tf-serving",
    "tflite": "litert",
    "pytorch": "torchserve",
    "pt2": "torchserve",
    "onnx": "onnxruntime",
}
"""The target that runs an origin without conversion; the others need one, which may fail."""
PROGRAMS = ("pytorch", "pt2")
"""Origins that PyTorch runs in TorchServe; of the others, ONNX Runtime runs the graph there."""
NO_SAVED_MODEL = "no converter makes a SavedModel of a .tflite file; import what it was made from"


@dataclass(frozen=True)
class Road:
    """The origin of a target's weights, and the converter that makes its artifact ("" if none is needed)."""

    origin: str
    converter: str = ""


@dataclass(frozen=True)
class Roads:
    """The open targets with their roads, and the closed ones with their reasons."""

    open: Mapping[str, Road]
    closed: Mapping[str, str]
    form: str
    """The form that TorchServe runs: one of `torchserve.FORMS`."""

    @property
    def origins(self) -> dict[str, str]:
        """By open target: the framework whose weights it has, or the format of the file that it is made from."""
        return {target: road.origin for target, road in self.open.items()}

    def without(self, reasons: Mapping[str, str]) -> Roads:
        """Return the roads with these targets closed, by their reasons."""
        left = {target: road for target, road in self.open.items() if target not in reasons}
        return Roads(left, {**self.closed, **reasons}, self.form)


def find(model: Model, source: str = "", form: str = "exported", wanted: Collection[str] = ()) -> Roads:
    """Return the roads of a model. `source` is the framework of all weights, if a model has both; `form` is what
    TorchServe runs of a PyTorch network; `wanted`, if not empty, are the only targets to open. Raises `ExportError`."""
    if unknown := sorted(set(wanted) - set(targets.NAMES)):
        raise ExportError(
            f"--targets: there is no target {unknown[0]!r}; there are: {', '.join(targets.NAMES)}"
        )
    reached: dict[str, Road] = {}
    closed: dict[str, str] = {}
    for target in targets.NAMES:
        if wanted and target not in wanted:
            closed[target] = "left out by --targets (TANDEM_TARGETS)"
        elif reason := unable(target, model.spec.signature):
            closed[target] = reason
        elif model.origins == ("tflite",) and target in ("tf-serving", "tfjs"):
            closed[target] = NO_SAVED_MODEL
        elif model.frameworks == FRAMEWORKS:
            reached[target] = Road(source or targets.load(target).source)
        else:
            (origin,) = model.origins
            here, there = (targets.load(name).source for name in (NATIVE[origin], target))
            reached[target] = Road(origin, "" if here == there else CONVERTERS[there])
    return Roads(reached, closed, form if set(PROGRAMS) & set(model.origins) else "onnx")


def optional(model: Model, target: str) -> bool:
    """Return True if a version may lack this target when its conversion fails: the model is not in both frameworks,
    and no origin of it is the target's own."""
    return model.frameworks != FRAMEWORKS and all(NATIVE[origin] != target for origin in model.origins)


def unable(target: str, signature: Signature) -> str:
    """Return the reason why a target cannot serve a signature; "" if it can."""
    tensors = (*signature.inputs, *signature.outputs)
    strings = [tensor.name for tensor in tensors if tensor.dtype == STRING]
    if target in ("litert", "torchserve") and strings:
        return f"it takes and gives numbers only, and {', '.join(strings)} is text"
    if target != "tfjs":
        return ""
    if wrong := [f"{t.name} is {t.dtype}" for t in tensors if t.dtype not in DTYPES]:
        return f"the browser's page knows {' and '.join(DTYPES)} only, and {', '.join(wrong)}"
    if not signature.batched:
        return "the browser's page sends rows, and the model is not batched"
    free = ", ".join(tensor.name for tensor in tensors if tensor.free)
    return f"the browser's page sends rows of one size, and sizes of {free} are free" if free else ""


def told(origin: str) -> str:
    """Return the words for the origin of an artifact."""
    return FORMATS.get(origin, origin)
