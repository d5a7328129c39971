"""`tandem import`: an existing file becomes a model's folder, with a spec that holds its path, digest and signature."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.pretty import pretty_repr

import models
from models.artifact import Artifact, ArtifactError, digest
from models.base import Model, ModelSpec, Tolerances
from models.data import Samples
from models.inference import Inference
from models.signature import BATCH, IMPORTED, Signature, Tensor
from pipelines.data import samples
from pipelines.exporting import formats, roads
from pipelines.exporting.base import one_line
from pipelines.exporting.formats import Opened
from serving import golden

TOLERANCE = 1e-4
"""Largest difference of a conversion's answers from the file's, relative to the largest: their scale is unknown."""
SUFFIXES = (".onnx", ".keras", ".tflite", ".pt2")
ELSE = {
    ".pt": "is a pickle: load it where its classes are and save the network by torch.export.save(..., 'model.pt2')",
    ".pth": "is a checkpoint, weights without a network: write torch_model.py, or export what it belongs to as .pt2",
    ".ckpt": "is a checkpoint, weights without a network: write torch_model.py, or export what it belongs to as .pt2",
    ".safetensors": "holds weights without a network: write torch_model.py, or export what it belongs to as .onnx",
    ".h5": "is Keras 2's format: load it in Keras and save it as .keras, or by model.export as a SavedModel",
    ".pkl": "is a pickle, which would run code: convert what is in it to .onnx (scikit-learn: skl2onnx)",
}
WANTED = f"{', '.join(SUFFIXES)}, or the folder of a SavedModel"


HEAD = '''"""Taken in by `tandem import`; docs/your-own-model.md tells what may be changed."""

from models.artifact import Artifact
from models.base import ModelSpec, Tolerances
from models.data import Samples
from models.inference import Inference
from models.signature import Tensor

'''
"""The first lines of spec.py."""


def take(
    path: Path, name: str, given: Path | None, key: str, trusted: bool, say: Callable[[str], None]
) -> Path:
    """Write `models/<name>`, once the file has answered. Returns the folder.

    Raises `ArtifactError` or `DataError` with what was expected, what came, and what to do, before anything is written.
    """
    path = path.absolute()
    kind = _kind(path)
    if not name.isidentifier() or not name.islower():
        raise ArtifactError(f"--name {name!r}: expected small letters, digits and underscores")
    # A folder would also hide a module of ours, as models/task.py.
    if importlib.util.find_spec(f"models.{name}"):
        raise ArtifactError(f"models/{name} is there already: take another --name, or remove it")
    own = Artifact(str(path), kind, digest(path), key, trusted=trusted)
    found = formats.opened(own)
    signature, renamed = _signature(found)
    own = replace(own, signature_key=found.key, names=renamed)
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
    (beside / "spec.py").write_text(f"{HEAD}SPEC = {pretty_repr(spec, max_width=100)}\n")
    if given:
        shutil.copy(given, beside / samples.FILE)
    beside.replace(folder)
    for line in (found.note, *_lines(model, given)):
        if line:
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
    return path.suffix[1:]


def _signature(found: Opened) -> tuple[Signature, dict[str, str]]:
    """Return the file's signature as ours, and the names that were changed for it."""
    everything = [*found.inputs, *found.outputs]
    firsts = [shape[0] if len(shape) else 1 for _name, _dtype, shape in everything]
    free = [not isinstance(size, int) or size < 1 for size in firsts]
    # The first dimension is the batch if it is free in all tensors, by one name at most.
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
    """Raise `ArtifactError` if the file does not answer twice alike, as its signature says."""
    signature = model.spec.signature
    call = signature.calls(inputs, 2)[0]
    artifact = model.spec.artifact
    assert artifact is not None
    try:
        answer, again = formats.answers(artifact, [tensor.name for tensor in signature.outputs], [call, call])
    except Exception as error:
        what = f"the samples of {given}" if given else "drawn inputs: give some by --samples data.npz"
        raise ArtifactError(f"{artifact.path} does not answer {what}: {one_line(error)}") from error
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


def _lines(model: Model, given: Path | None) -> list[str]:
    """Return lines that tell the signature, and the targets that are reached."""
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
