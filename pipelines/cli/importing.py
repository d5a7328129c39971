"""`tandem import`: an existing file becomes a model's folder, with a spec that holds its path, digest and signature."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import models
from models.artifact import Artifact, ArtifactError, digest
from models.base import Model, ModelSpec, Tolerances, names
from models.data import Samples
from models.inference import Inference
from models.signature import BATCH, IMPORTED, Signature, Tensor
from pipelines.data import samples
from pipelines.exporting import imported, roads
from serving import golden

Found: TypeAlias = "tuple[str, str, Sequence[int | str | None]]"
"""A tensor in a file: its name, its dtype as ours are named, and its sizes; no number above 0 is a free one."""

TOLERANCE = 1e-4
"""How far a conversion's answers may be from the file's, relative to the largest: nobody knows what its values are."""
SUFFIXES = {".onnx": "onnx", ".keras": "keras", ".tflite": "tflite", ".pt2": "pt2"}
ELSE = {
    ".pt": "is a pickle: load it where its classes are and save the network by torch.export.save(..., 'model.pt2')",
    ".pth": "is a checkpoint, weights without a network: write torch_model.py, or export what it belongs to as .pt2",
    ".ckpt": "is a checkpoint, weights without a network: write torch_model.py, or export what it belongs to as .pt2",
    ".safetensors": "holds weights without a network: write torch_model.py, or export what it belongs to as .onnx",
    ".h5": "is Keras 2's format: load it in Keras and save it as .keras, or by model.export as a SavedModel",
    ".pkl": "is a pickle, which would run code: convert what is in it to .onnx (scikit-learn: skl2onnx)",
}
WANTED = ".onnx, .keras, .tflite, .pt2, or the folder of a SavedModel"
UNSAFE = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles"})
"""TensorFlow's operations that run Python or touch files."""


@dataclass(frozen=True)
class Described:
    """What a file says of itself."""

    inputs: Sequence[Found]
    outputs: Sequence[Found]
    key: str = "serving_default"
    notes: list[str] = field(default_factory=list)


def take(
    path: Path, name: str, given: Path | None, key: str, trusted: bool, say: Callable[[str], None]
) -> Path:
    """Write `models/<name>`, once the file has answered; returns the folder.

    Raises `ArtifactError` or `DataError` with what was expected, what came, and what to do; then nothing is written.
    """
    path = path.absolute()
    kind = _kind(path)
    if not name.isidentifier() or not name.islower():
        raise ArtifactError(f"--name {name!r}: expected small letters, digits and underscores")
    if name in names():
        raise ArtifactError(f"models/{name} is there already: take another --name, or remove it")
    own = Artifact(str(path), kind, digest(path), trusted=trusted)
    found = DESCRIBE[kind](own, key)
    signature, renamed = _signature(found)
    own = Artifact(own.path, kind, own.sha256, found.key, renamed, trusted)
    spec = ModelSpec(
        name,
        signature.inputs,
        Inference(signature.outputs),
        Samples(name),
        tolerances=Tolerances(outputs=TOLERANCE),
        precisions=("float32",),
        batched=signature.batched,
        artifact=own,
    )
    if faults := spec.signature.faults(spec.batched, IMPORTED):
        raise ArtifactError(f"{path} has a signature that cannot be served\n  " + "\n  ".join(faults))
    model = Model(spec, f"models.{name}")
    _try(model, samples.read(given, signature) if given else samples.draw(signature), given)
    folder = Path(models.__path__[0]) / name
    beside = folder.with_name(f".{name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    (beside / "__init__.py").touch()
    (beside / "spec.py").write_text(_source(spec))
    if given:
        shutil.copy(given, beside / samples.FILE)
    beside.replace(folder)
    for line in (*found.notes, *_lines(model, given)):
        say(line)
    return folder


def _kind(path: Path) -> str:
    if (path / "saved_model.pb").is_file():
        return "saved_model"
    if not path.exists():
        raise ArtifactError(f"{path} does not exist: expected {WANTED}")
    if path.is_dir():
        raise ArtifactError(f"{path} holds no saved_model.pb: expected {WANTED}")
    if path.suffix not in SUFFIXES:
        raise ArtifactError(f"{path} {ELSE.get(path.suffix, 'is none of these')}; expected {WANTED}")
    return SUFFIXES[path.suffix]


def _onnx(artifact: Artifact, _key: str) -> Described:
    import onnxruntime

    from serving.server.backends.onnxruntime import DTYPES

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        told = _onnx_words(str(error))
        raise ArtifactError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {artifact.path}: {told}. {_advice(told)}"
        ) from error

    def tensors(arguments: Sequence[Any]) -> list[Found]:
        return [(a.name, DTYPES[a.type], a.shape) for a in arguments if a.type in DTYPES]

    if wrong := [f"{a.name} ({a.type})" for a in session.get_inputs() if a.type not in DTYPES]:
        raise ArtifactError(f"{artifact.path}: expected inputs that are tensors, got {', '.join(wrong)}")
    others = [f"{a.name} ({a.type})" for a in session.get_outputs() if a.type not in DTYPES]
    notes = [f"left out, for they are no tensors: {', '.join(others)}"] if others else []
    return Described(tensors(session.get_inputs()), tensors(session.get_outputs()), notes=notes)


def _onnx_words(error: str) -> str:
    """What ONNX Runtime says, without the places in its code."""
    plain = re.sub(
        r"\[ONNXRuntimeError\] : \d+ : \w+ : |/\S*/onnxruntime/\S+:\d+ ", "", " ".join(error.split())
    )
    return re.sub(r"\b[\w:]+::\w+\(.*\) ", "", plain)[:300].rstrip(". ")


def _advice(told: str) -> str:
    """What to do about what ONNX Runtime says."""
    for words, advice in {
        r"IR version|opset": "Convert it to a version that is supported: onnx.version_converter, or export it anew",
        r"external|data file|No such file": "Its weights lie in files beside it: put them back",
        r"not a registered function|Fatal error.*is not": "It has operators that ONNX Runtime does not come with",
    }.items():
        if re.search(words, told, re.IGNORECASE):
            return advice
    return "Expected an .onnx file"


def _server(artifact: Artifact, key: str) -> Described:
    """A SavedModel or a .tflite file, as our servers open it."""
    from serving.server.backends.base import loader
    from serving.server.errors import ServerError

    path = Path(artifact.path)
    if artifact.format == "saved_model":
        _require_safe(artifact)
    backend = "litert" if artifact.format == "tflite" else "tensorflow"
    folder, file = (path, "") if path.is_dir() else (path.parent, path.name)
    try:
        servable = loader(backend)(folder, file, 1)
    except ServerError as error:
        raise ArtifactError(str(error)) from error
    known = list(servable.signatures)
    servable.close()
    key = key or ("serving_default" if "serving_default" in known else known[0] if len(known) == 1 else "")
    if key not in known:
        told = f"it has {', '.join(known)}: name one by --signature" if known else "it has none"
        raise ArtifactError(f"{path}: expected a signature to call, {told}")
    signature = servable.signatures[key]
    specs = (*signature.inputs, *signature.outputs)
    if unknown := [spec.name for spec in specs if spec.shape is None]:
        raise ArtifactError(f"{path}: expected a rank of every tensor, {', '.join(unknown)} can be anything")
    inputs, outputs = (
        [(spec.name, spec.dtype, spec.shape or ()) for spec in own]
        for own in (signature.inputs, signature.outputs)
    )
    return Described(inputs, outputs, key)


def _require_safe(artifact: Artifact) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString((Path(artifact.path) / "saved_model.pb").read_bytes())
    graphs = [graph.graph_def for graph in model.meta_graphs]
    nodes = [
        node
        for graph in graphs
        for own in (graph, *graph.library.function)
        for node in (own.node if hasattr(own, "node") else own.node_def)
    ]
    if (found := sorted({node.op for node in nodes} & UNSAFE)) and not artifact.trusted:
        raise ArtifactError(
            f"{artifact.path} runs Python or touches files ({', '.join(found)}): {imported.UNTRUSTED}"
        )


def _keras(artifact: Artifact, _key: str) -> Described:
    network = imported.keras_network(artifact)
    if not getattr(network, "inputs", None):
        raise ArtifactError(
            f"{artifact.path}: expected a network with known inputs, as Sequential and functional have"
        )
    outputs = (
        network.output
        if isinstance(network.output, dict)
        else dict(zip(network.output_names, network.outputs, strict=True))
    )
    return Described(
        [(tensor.name, str(tensor.dtype), tensor.shape) for tensor in network.inputs],
        [(name, str(tensor.dtype), tensor.shape) for name, tensor in outputs.items()],
    )


def _pt2(artifact: Artifact, _key: str) -> Described:
    import torch

    imported.torch_program(artifact)
    program = torch.export.load(artifact.path)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}

    def tensors(wanted: Sequence[Any], prefix: str = "") -> list[Found]:
        found: list[Found] = []
        for place, name in enumerate(wanted):
            value = values.get(name)
            if not isinstance(value, torch.Tensor):
                raise ArtifactError(
                    f"{artifact.path}: expected tensors to go in and out, {name} is {value!r}"
                )
            sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
            dtype = str(value.dtype).removeprefix("torch.")
            found.append((f"{prefix}_{place}" if prefix else str(name), dtype, sizes))
        return found

    signature = program.graph_signature
    return Described(tensors(signature.user_inputs), tensors(signature.user_outputs, "output"))


DESCRIBE: dict[str, Callable[[Artifact, str], Described]] = {
    "onnx": _onnx,
    "saved_model": _server,
    "tflite": _server,
    "keras": _keras,
    "pt2": _pt2,
}


def _signature(found: Described) -> tuple[Signature, dict[str, str]]:
    """The signature in our words, and the names that had to be changed for it."""
    everything = [*found.inputs, *found.outputs]
    firsts = [shape[0] if len(shape) else 1 for _name, _dtype, shape in everything]
    free = [not isinstance(size, int) or size < 1 for size in firsts]
    # Rows are what comes first where it is free everywhere, and nothing says that it is two things.
    batched = all(free) and len({size for size in firsts if isinstance(size, str)}) <= 1
    renamed: dict[str, str] = {}
    used: set[str] = set()
    made: list[Tensor] = []
    for place, (name, dtype, shape) in enumerate(everything):
        ours = _identifier(name)
        while ours in used:
            ours += "_out" if place >= len(found.inputs) else "_"
        used.add(ours)
        if ours != name:
            renamed[name] = ours
        sizes = [
            size if isinstance(size, int) and size > 0 else _free(size, f"{ours}_{axis}")
            for axis, size in enumerate(shape)
        ]
        made.append(Tensor(ours, dtype, (BATCH, *sizes[1:]) if batched else tuple(sizes)))
    count = len(found.inputs)
    return Signature(tuple(made[:count]), tuple(made[count:])), renamed


def _free(size: int | str | None, otherwise: str) -> str:
    name = _identifier(size) if isinstance(size, str) and size else otherwise
    return f"{name}_size" if name == BATCH else name


def _identifier(name: str) -> str:
    plain = re.sub(r"\W", "_", name.removesuffix(":0"))
    return plain if plain.isidentifier() else f"x{plain}"


def _try(model: Model, inputs: Any, given: Path | None) -> None:  # noqa: ANN401
    """The file answers, as its signature says."""
    signature = model.spec.signature
    call = signature.calls(inputs, 2)[0]
    artifact = model.spec.artifact
    assert artifact is not None
    try:
        answer, again = imported.answer(model, [call, call])
    except Exception as error:
        what = f"the samples of {given}" if given else "drawn inputs: give some by --samples data.npz"
        told = " ".join(str(error).split())[:400]
        raise ArtifactError(f"{artifact.path} does not answer {what}: {told}") from error
    for tensor in signature.outputs:
        array = answer[tensor.name]
        if apart := golden.difference(again[tensor.name], array):
            raise ArtifactError(
                f"{artifact.path} answers a call otherwise the second time ({tensor.name} by {apart:.3g}): it keeps "
                "state or draws at random; make the state an input and an output"
            )
        shape = array.shape[1:] if signature.batched else array.shape
        if not tensor.admits(shape):
            raise ArtifactError(
                f"{artifact.path} says that {tensor.name} is {list(tensor.shape)}, and answers {list(array.shape)}"
            )


def _source(spec: ModelSpec) -> str:
    """The text of spec.py."""
    artifact = spec.artifact
    assert artifact is not None

    def tensors(own: Sequence[Tensor]) -> str:
        lines = [f"Tensor({t.name!r}, {t.dtype!r}, {t.shape!r})," for t in own]
        return "".join(f"\n        {line}" for line in lines)

    return f'''"""Taken in by `tandem import`; docs/your-own-model.md tells what may be changed."""

from models.artifact import Artifact
from models.base import ModelSpec, Tolerances
from models.data import Samples
from models.inference import Inference
from models.signature import Tensor

SPEC = ModelSpec(
    name={spec.name!r},
    inputs=({tensors(spec.inputs)}
    ),
    task=Inference(({tensors(spec.signature.outputs)}
    )),
    data=Samples({spec.name!r}),
    tolerances=Tolerances(outputs={spec.tolerances.outputs}),
    precisions=("float32",),
    batched={spec.batched},
    artifact=Artifact(
        path={artifact.path!r},
        format={artifact.format!r},
        sha256={artifact.sha256!r},
        signature_key={artifact.signature_key!r},
        names={dict(artifact.names)!r},
        trusted={artifact.trusted},
    ),
)
'''


def _lines(model: Model, given: Path | None) -> list[str]:
    """What was found, and how far it gets."""
    spec = model.spec
    lines = [
        f"{word}: {tensor.name} {tensor.dtype} {list(tensor.shape)}"
        for word, own in (("input", spec.inputs), ("output", spec.signature.outputs))
        for tensor in own
    ]
    assert spec.artifact is not None
    lines += [f"{theirs} in the file is {ours} here" for theirs, ours in spec.artifact.names.items()]
    if not spec.batched:
        lines.append(
            "a call is one input of this shape: no first size is free everywhere, which would be rows"
        )
    if given is None:
        lines.append("no --samples: conversions are held against the file on inputs drawn from the signature")
    found = roads.find(model)
    for target, road in found.open.items():
        lines.append(
            f"{target}: {f'by {road.converter}' if road.converter else 'without a converter of ONNX'}"
        )
    return [*lines, *(f"{target}: not reached, {why}" for target, why in found.closed.items())]
