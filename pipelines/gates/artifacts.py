"""The checks of every artifact: parity with its source, size, seal, and batching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from pipelines.exporting import Candidate, conformance, onnx, onnx_from_tensorflow, reference, roads
from pipelines.exporting.base import Exporter, one_line
from pipelines.exporting.batching import difference
from pipelines.gates import Check, require
from pipelines.training.record import Trained
from serving import golden, repository

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


def gate(model: Model, trained: Mapping[str, Trained], candidate: Candidate, test: Rows) -> Gated:
    """Check every artifact against the framework whose weights it has.

    Raises `GateError`, first of all if one was changed since its export.
    """
    folder, sources = candidate.folder, candidate.sources
    weights = {
        name: trained[name].weights if name in trained else {} for name in {*sources.values(), *trained}
    }
    sealed = [
        Check(
            "integrity",
            f"{target}: files of the artifact that were changed since its export",
            len(repository.broken_seal(folder / target)),
            "<=",
            0,
        )
        for target in sources
    ]
    require(sealed)
    by_target = artifact_checks(model, weights, candidate, test)
    closed: dict[str, str] = {}
    _leave_out(model, by_target, closed)
    if isinstance(model.spec.data, Samples) and not samples.given(model):
        sealed.append(Check("parity", "rows of samples that were given", 0, ">=", 1, DRAWN))
    checks = sealed + [check for own in by_target.values() for check in own]
    require(checks)
    candidate = replace(candidate, sources={t: own for t, own in sources.items() if t not in closed})
    found = batching_checks(model, candidate, test.served(model.spec.signature))
    _leave_out(model, found, closed)
    return Gated(
        {target: bool(own) and all(check.passed for check in own) for target, own in found.items()},
        (*checks, *(check for own in found.values() for check in own)),
        closed,
    )


def _leave_out(model: Model, by_target: dict[str, list[Check]], closed: dict[str, str]) -> None:
    """Close each optional target that has a refused check, so that the check does not refuse the version."""
    for target, own in by_target.items():
        failed = [check for check in own if check.refuses]
        if target and failed and roads.optional(model, target):
            closed[target] = f"its artifact is refused: {failed[0]}".replace("FAIL ", "")
            out = f"{target} is left out"
            by_target[target] = [replace(check, otherwise=out) if check.refuses else check for check in own]


def artifact_checks(
    model: Model, weights: Mapping[str, Weights], candidate: Candidate, test: Rows
) -> dict[str, list[Check]]:
    """Return by target the parity and size of its artifact's variants, and by "" those of tf2onnx's ONNX."""
    signature = model.spec.signature
    inputs = test.served(signature)
    expected = {name: reference.outputs(model, name, own, inputs) for name, own in weights.items()}
    runs = conformance.batches(inputs, signature.batched)
    extreme = {name: reference.answers(model, name, own, runs) for name, own in weights.items()}
    result: dict[str, list[Check]] = {}
    for target, source in candidate.sources.items():
        said = expected[source], extreme[source]
        try:
            result[target] = _target_checks(model, weights[source], candidate, target, test, said)
        except Exception as error:
            if not roads.optional(model, target):
                raise
            label = f"{target}: artifacts that do not run ({one_line(error)})"
            result[target] = [Check("parity", label, 1, "<=", 0)]
    if model.frameworks == FRAMEWORKS:
        cross = candidate.folder / ".cross-check.onnx"
        onnx_from_tensorflow.write(model, weights["tensorflow"], cross)
        outputs = onnx.EXPORTER.run(cross, model, inputs)
        name = "onnx by tf2onnx from tensorflow"
        result[""] = parity(model.spec, name, "float32", outputs, expected["tensorflow"], test.targets)
    return result


def _target_checks(
    model: Model,
    weights: Weights,
    candidate: Candidate,
    target: str,
    test: Rows,
    said: tuple[Arrays, Sequence[Arrays]],
) -> list[Check]:
    """Check one target's artifact; `said` are its source's answers to the rows and to `conformance.batches`."""
    signature, (expected, extreme) = model.spec.signature, said
    runs = conformance.batches(test.served(signature), signature.batched)
    exporter = candidate.exporter(target)
    variants = exporter.variants(model)
    checks: list[Check] = []
    for precision, file in variants.items():
        name = f"{target} ({exporter.runtime}) {precision} from {roads.told(candidate.sources[target])}"
        with conformance.alone(candidate.folder / target, file, whole=len(variants) == 1) as path:
            checks += _file_checks(model, exporter, path, precision, expected, weights, test, name)
            if exporter.backend:
                faults = conformance.untruths(
                    exporter.backend, path.parent if file else path, file, signature
                )
                told = f": {'; '.join(faults)}" if faults else ""
                label = f"{name}: inputs and outputs declared otherwise{told}"
                checks.append(Check("parity", label, len(faults), "<=", 0))
            if precision != "float32":
                continue
            answers: dict[str, Any] = {name: exporter.answer}
            if exporter.backend == "onnxruntime":
                answers[f"{name}, unoptimized"] = partial(onnx.answer, optimized=False)
            for label, answer in answers.items():
                apart = conformance.difference(partial(answer, path, model), extreme, runs, signature.batched)
                checks.append(
                    Check("parity", f"{label}: {FURTHEST}", apart, "<=", model.spec.tolerances.outputs)
                )
    return checks


def _file_checks(
    model: Model,
    exporter: Exporter,
    path: Path,
    precision: str,
    expected: Arrays,
    weights: Weights,
    test: Rows,
    label: str,
) -> list[Check]:
    """Check one file of an artifact: its parity with `expected`, the source's answers, and its size."""
    outputs = exporter.run(path, model, test.served(model.spec.signature))
    checks = parity(model.spec, label, precision, outputs, expected, test.targets)
    if weights:
        # An artifact of one variant may have its weights in files of their own.
        whole = len(exporter.variants(model)) == 1 and path.is_file()
        checks += size(label, precision, path.parent if whole else path, count_parameters(weights))
    return checks


def variant_checks(
    model: Model,
    exporter: Exporter,
    path: Path,
    precision: str,
    source: str,
    weights: Weights,
    test: Rows,
    label: str,
) -> tuple[list[Check], Check]:
    """Check parity and size of an artifact that is not published, and its batching."""
    inputs = test.served(model.spec.signature)
    expected = reference.outputs(model, source, weights, inputs)
    apart = difference(partial(exporter.answer, path, model), inputs)
    return (
        _file_checks(model, exporter, path, precision, expected, weights, test, label),
        batching(model.spec, label, apart, exporter.always_batched),
    )


def batching_checks(model: Model, candidate: Candidate, inputs: Arrays) -> dict[str, list[Check]]:
    """Check, by target, that each variant of its artifact gives a row the same answer alone and in company."""
    checks: dict[str, list[Check]] = {target: [] for target in candidate.sources}
    if model.spec.signature.batched:
        for target, own in checks.items():
            exporter = candidate.exporter(target)
            for precision, file in exporter.variants(model).items():
                apart = difference(partial(exporter.answer, candidate.folder / target / file, model), inputs)
                own.append(batching(model.spec, f"{target} {precision}", apart, exporter.always_batched))
    return checks


def parity(
    spec: ModelSpec,
    artifact: str,
    precision: str,
    outputs: Arrays,
    reference: Arrays,
    targets: NDArray[Any],
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
    return Check(
        "batching",
        f"{artifact}: largest difference between an answer alone and in company{why}",
        difference,
        "<=",
        spec.tolerances.outputs,
        "" if always_batched else NOT_BATCHED,
    )


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
