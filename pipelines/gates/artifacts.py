"""The checks of every artifact: parity with its source, size, seal, and batching."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base import FRAMEWORKS, Model, ModelSpec, Weights, count_parameters
from models.data import Rows, Samples
from models.signature import Arrays
from pipelines.data import samples
from pipelines.exporting import Candidate, conformance, onnx, reference, roads
from pipelines.exporting.base import Exporter, one_line
from pipelines.gates import Check, require
from pipelines.training.record import Trained
from serving import golden, repository
from serving.targets.base import SAMPLES

PARITY_ROWS = 1_000
"""Test rows on which each artifact is compared with its source framework."""
INCONSISTENCY = {"float32": 1e-4, "float16": 1e-3, "int8": 0.05}
"""Largest difference between a sum of probabilities and 1; an int8 softmax answers in steps of 1/256."""
SMALLEST_SHARE, LARGEST_FACTOR, LARGEST_EXTRA = 0.8, 2.0, 1_000_000
"""Limits of an artifact's bytes, by its weights': a converter that lost the weights writes too few."""
BYTES = {"float32": 4, "float16": 2, "int8": 1}

DRAWN = "every artifact is held against the imported one on inputs drawn from the signature"
FURTHEST = "furthest from its source on runs of 1, 3 and 64, zeros, ones and large noise"
NOT_BATCHED = "published with `batched: false`, so no requests share a run"


@dataclass(frozen=True)
class Gated:
    """Artifacts that passed; `batched` is by target True if rows of several requests may share a run.

    `closed` are the optional targets whose artifact failed, with the reason."""

    batched: Mapping[str, bool]
    checks: tuple[Check, ...]
    closed: Mapping[str, str] = field(default_factory=dict)


class Source:
    """A framework with trained weights, or an imported file, and its answers, which artifacts are compared with."""

    def __init__(self, model: Model, origin: str, weights: Weights, test: Rows) -> None:
        signature = model.spec.signature
        self.origin, self.parameters, self.targets = origin, count_parameters(weights), test.targets
        self.inputs = test.served(signature)
        self.outputs = reference.outputs(model, origin, weights, self.inputs)
        self.runs = conformance.batches(self.inputs, signature.batched)
        self.answers = reference.answers(model, origin, weights, self.runs)


def gate(model: Model, trained: Mapping[str, Trained], candidate: Candidate, test: Rows) -> Gated:
    """Check every artifact against the framework whose weights it has. Raises `GateError`, first of all if one was
    changed since its export."""
    origins, checks = candidate.roads.origins, list[Check]()
    for target in origins:
        name = f"{target}: files of the artifact that were changed since its export"
        changed = repository.broken_seal(candidate.folder / target)
        checks.append(Check("integrity", name, len(changed), "<=", 0))
    require(checks)
    weights = {
        name: trained[name].weights if name in trained else {} for name in {*origins.values(), *trained}
    }
    sources = {name: Source(model, name, values, test) for name, values in weights.items()}
    if isinstance(model.spec.data, Samples) and not samples.given(model):
        checks.append(Check("parity", "rows of samples that were given", 0, ">=", 1, DRAWN))
    if model.frameworks == FRAMEWORKS:
        checks += _cross_checks(model, weights["tensorflow"], sources["tensorflow"])
    closed, batched = {}, {}
    for target, origin in origins.items():
        results = _target_checks(model, candidate, target, sources[origin])
        if (failed := [check for check in results if check.refuses]) and roads.optional(model, target):
            closed[target] = f"its artifact is refused: {failed[0]}".replace("FAIL ", "")
            left_out = f"{target} is left out"
            results = [replace(check, otherwise=left_out) if check.refuses else check for check in results]
        batched[target] = target not in closed and independent_rows(results)
        checks += results
    require(checks)
    return Gated(batched, tuple(checks), closed)


def independent_rows(checks: Sequence[Check]) -> bool:
    """Return True if the checks of an artifact allow that requests share its runs."""
    passed = [check.passed for check in checks if check.gate == "batching"]
    return bool(passed) and all(passed)


def _target_checks(model: Model, candidate: Candidate, target: str, source: Source) -> list[Check]:
    """Check each variant of one target's artifact."""
    exporter, checks = candidate.exporter(target), list[Check]()
    variants = exporter.variants(model)
    for precision, file in variants.items():
        label = f"{target} ({exporter.runtime}) {precision} from {roads.told(source.origin)}"
        others = [name for name in (*variants.values(), repository.GOLDEN, SAMPLES) if name != file]
        try:
            with conformance.alone(candidate.folder / target, file, others) as path:
                checks += file_checks(model, exporter, path, precision, source, label)
                if exporter.backend:
                    folder = path.parent if file else path
                    faults = conformance.untruths(exporter.backend, folder, file, model.spec.signature)
                    name = f"{label}: inputs and outputs declared otherwise{': ' * bool(faults)}{'; '.join(faults)}"
                    checks.append(Check("parity", name, len(faults), "<=", 0))
        except Exception as error:  # noqa: BLE001 - runtimes raise any exception
            name = f"{label}: artifacts that do not run ({one_line(error)})"
            checks.append(Check("parity", name, 1, "<=", 0))
    return checks


def _cross_checks(model: Model, weights: Weights, source: Source) -> list[Check]:
    """Check the ONNX that tf2onnx makes of the TensorFlow network, the second way to that format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.write_by_tf2onnx(model, weights, path)
        outputs = onnx.EXPORTER.run(path, model, source.inputs)
    label = "onnx by tf2onnx from tensorflow"
    return parity(model.spec, label, "float32", outputs, source.outputs, source.targets)


def file_checks(
    model: Model, exporter: Exporter, path: Path, precision: str, source: Source, label: str
) -> list[Check]:
    """Check one file of an artifact: parity with its source, size, and batching."""
    spec, signature = model.spec, model.spec.signature
    outputs = exporter.run(path, model, source.inputs)
    checks = parity(spec, label, precision, outputs, source.outputs, source.targets)
    if source.parameters:
        # An artifact of one variant may have its weights in files of their own.
        whole = len(exporter.variants(model)) == 1 and path.is_file()
        checks += size(label, precision, path.parent if whole else path, source.parameters)
    answer = partial(exporter.answer, path, model)
    if precision == "float32":
        ways: dict[str, Callable[[Sequence[Arrays]], list[Arrays]]] = {label: answer}
        if exporter.backend == "onnxruntime":
            ways[f"{label}, unoptimized"] = partial(onnx.answer_unoptimized, path, model)
        for name, run in ways.items():
            apart = conformance.difference(run(source.runs), source.answers, signature.batched)
            checks.append(Check("parity", f"{name}: {FURTHEST}", apart, "<=", spec.tolerances.outputs))
    if signature.batched:
        apart = conformance.company_difference(answer, source.inputs)
        checks.append(batching(spec, label, apart, exporter.always_batched))
    return checks


def parity(
    spec: ModelSpec, artifact: str, precision: str, outputs: Arrays, reference: Arrays, targets: NDArray[Any]
) -> list[Check]:
    """Compare an artifact with its source: float32 by every output, less precise ones by their answers."""
    limits, task = spec.tolerances, spec.task
    checks = []
    if (inconsistency := task.inconsistency(outputs)) is not None:
        what, figure = inconsistency
        checks.append(Check("parity", f"{artifact}: {what}", figure, "<=", INCONSISTENCY[precision]))
    if precision == "float32":
        for name, expected in reference.items():
            apart = golden.difference(outputs[name], expected)
            if spec.artifact is not None:
                # The scale of an imported model's outputs is unknown.
                apart /= golden.largest(expected)
            label = f"{artifact}: largest difference of {name}"
            checks.append(Check("parity", label, apart, "<=", limits.outputs))
        return checks
    first = task.outputs[0].name
    if (same := task.agreement(outputs[first], reference[first])) is not None:
        least = limits.float16_agreement if precision == "float16" else limits.int8_agreement
        checks.append(Check("parity", f"{artifact}: same answer", same, ">=", least))
    before, now = (task.metrics(own[first], targets)[task.score] for own in (reference, outputs))
    lost = Check("parity", f"{artifact}: lost {task.score}", before - now, "<=", limits.quantized_score_drop)
    return [*checks, lost]


def batching(spec: ModelSpec, artifact: str, difference: float, always_batched: str) -> Check:
    """Check that a row has the same answer alone and in company. An artifact that fails is published unbatched, or
    refused if its servers always batch, for the reason `always_batched`."""
    why = f" ({always_batched})" if always_batched else ""
    name = f"{artifact}: largest difference between an answer alone and in company{why}"
    otherwise = "" if always_batched else NOT_BATCHED
    return Check("batching", name, difference, "<=", spec.tolerances.outputs, otherwise)


def size(artifact: str, precision: str, path: Path, parameters: int) -> list[Check]:
    """Check that an artifact is about as large as its weights."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    found = sum(file.stat().st_size for file in files)
    weights = parameters * BYTES[precision]
    return [
        Check("size", f"{artifact}: bytes", found, ">=", SMALLEST_SHARE * weights),
        Check("size", f"{artifact}: bytes", found, "<=", LARGEST_FACTOR * weights + LARGEST_EXTRA),
    ]


def parity_rows(test: Rows, seed: int) -> Rows:
    """Draw the test rows on which parity is measured."""
    return test.take(np.random.default_rng(seed).permutation(len(test))[:PARITY_ROWS])
