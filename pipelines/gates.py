"""The checks that must pass before a version is published: each is a figure, a limit, and a verdict."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.base import ModelSpec, Profile
from pipelines.data import Pictures
from pipelines.training.record import PARITY_STEPS, History, loss_difference
from serving.targets.base import Images, Outputs

PARITY_PICTURES = 1_000
"""How many test pictures each artifact is compared with its source framework on."""
PROBABILITY_SUM = {"float32": 1e-4, "float16": 1e-3, "int8": 0.05}
"""How far probabilities may be from a sum of 1; an int8 softmax answers in steps of 1/256."""
SMALLEST_SHARE, LARGEST_FACTOR, LARGEST_EXTRA = 0.8, 2.0, 1_000_000
"""An artifact's bytes, against its weights': a converter that lost the weights writes too little."""
BYTES = {"float32": 4, "float16": 2, "int8": 1}

NOT_BATCHED = "published with `batched: false`, so no requests share a run"

RELATIONS = {"<=": operator.le, ">=": operator.ge}


class GateError(Exception):
    """A check failed: nothing was published."""


@dataclass(frozen=True)
class Check:
    """One figure against its limit."""

    gate: str
    name: str
    figure: float
    relation: str
    limit: float
    otherwise: str = ""
    """What follows where it fails; "" refuses the version."""

    @property
    def passed(self) -> bool:
        """NaN never passes."""
        return bool(RELATIONS[self.relation](self.figure, self.limit))

    @property
    def refuses(self) -> bool:
        """Whether it keeps the version from being published."""
        return not self.passed and not self.otherwise

    def __str__(self) -> str:
        verdict = "FAIL" if self.refuses else "ok  " if self.passed else "note"
        told = (
            f"{verdict} {self.gate}: {self.name} {self.figure:.6g} (limit {self.relation} {self.limit:.6g})"
        )
        return told if self.passed or self.refuses else f"{told}: {self.otherwise}"


def require(checks: Iterable[Check]) -> None:
    """Raises `GateError` naming every check that refuses the version, with its figure and limit."""
    failed = [str(check) for check in checks if check.refuses]
    if failed:
        raise GateError(
            "a gate refused this version; what is served stays as it is\n  " + "\n  ".join(failed)
        )


def metrics(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], classes: tuple[str, ...]
) -> dict[str, float]:
    """`accuracy`, and `accuracy/<class>` for each class."""
    right = logits.argmax(axis=1) == labels
    result = {"accuracy": float(right.mean())}
    result |= {f"accuracy/{name}": float(right[labels == index].mean()) for index, name in enumerate(classes)}
    return result


def quality(
    profile: Profile,
    found: Mapping[str, Mapping[str, float]],
    published: Mapping[str, Mapping[str, float]],
) -> list[Check]:
    """Each framework's metrics are good enough, no worse than the published version's, and near the other's.

    Both arguments are metrics by framework; `published` is empty where nothing is.
    """
    checks = []
    for framework, now in found.items():
        checks.append(
            Check("quality", f"{framework}: test accuracy", now["accuracy"], ">=", profile.minimum_accuracy)
        )
        for name, before in published.get(framework, {}).items():
            margin = profile.regression if name == "accuracy" else profile.class_regression
            label = f"{framework}: {name} against the published version"
            checks.append(Check("quality", label, now.get(name, 0.0), ">=", before - margin))
    accuracies = [now["accuracy"] for now in found.values()]
    apart = max(accuracies) - min(accuracies)
    checks.append(
        Check("quality", "test accuracy, between frameworks", apart, "<=", profile.framework_accuracy)
    )
    return checks


def training(profile: Profile, one: History, other: History) -> list[Check]:
    """The two frameworks went the same way: losses of the first steps."""
    return [
        Check(
            "training parity",
            f"largest relative difference of the losses of {PARITY_STEPS} steps",
            loss_difference(one, other),
            "<=",
            profile.training_loss,
        )
    ]


def parity(
    spec: ModelSpec,
    artifact: str,
    precision: str,
    outputs: Outputs,
    reference: NDArray[np.float32],
    labels: NDArray[np.uint8],
) -> list[Check]:
    """An artifact answers as its source framework does: float32 by logits, less precise ones by classes."""
    limits = spec.tolerances
    classes, expected = outputs.logits.argmax(1), reference.argmax(1)
    sums = float(np.max(np.abs(outputs.probabilities.sum(axis=1) - 1)))
    checks = [
        Check(
            "parity",
            f"{artifact}: probabilities' distance from a sum of 1",
            sums,
            "<=",
            PROBABILITY_SUM[precision],
        )
    ]
    if precision == "float32":
        difference = float(np.max(np.abs(outputs.logits - reference)))
        checks.append(
            Check("parity", f"{artifact}: largest difference of logits", difference, "<=", limits.logits)
        )
        return checks
    agreement = limits.float16_agreement if precision == "float16" else limits.int8_agreement
    drop = float(np.mean(expected == labels) - np.mean(classes == labels))
    return [
        *checks,
        Check("parity", f"{artifact}: same class", float(np.mean(classes == expected)), ">=", agreement),
        Check("parity", f"{artifact}: lost accuracy", drop, "<=", limits.quantized_accuracy_drop),
    ]


def batching(spec: ModelSpec, artifact: str, difference: float, always_batched: str) -> Check:
    """An artifact gives a row the same answer alone and in company. One that does not is published unbatched, and
    refused where its servers batch whatever they serve: `always_batched` says why, or is empty."""
    why = f" ({always_batched})" if always_batched else ""
    return Check(
        "batching",
        f"{artifact}: largest difference between an answer alone and in company{why}",
        difference,
        "<=",
        spec.tolerances.logits,
        "" if always_batched else NOT_BATCHED,
    )


def extremes(spec: ModelSpec, artifact: str, difference: float) -> Check:
    """An artifact answers runs of other sizes, zeros, ones and large noise as its source framework does."""
    label = f"{artifact}: furthest from its source on runs of 1, 3 and 64, zeros, ones and large noise"
    return Check("parity", label, difference, "<=", spec.tolerances.logits)


def truth(artifact: str, faults: Sequence[str]) -> Check:
    """An artifact says of its inputs and outputs what its manifest says."""
    told = f": {'; '.join(faults)}" if faults else ""
    return Check("parity", f"{artifact}: inputs and outputs declared otherwise{told}", len(faults), "<=", 0)


def size(artifact: str, precision: str, path: Path, parameters: int) -> list[Check]:
    """An artifact is about as large as its weights are."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    found = sum(file.stat().st_size for file in files)
    weights = parameters * BYTES[precision]
    return [
        Check("size", f"{artifact}: bytes", found, ">=", SMALLEST_SHARE * weights),
        Check("size", f"{artifact}: bytes", found, "<=", LARGEST_FACTOR * weights + LARGEST_EXTRA),
    ]


def parity_pictures(test: Pictures, seed: int) -> tuple[Images, NDArray[np.uint8]]:
    """The test pictures that parity is measured on, and their labels."""
    chosen = np.random.default_rng(seed).permutation(len(test))[:PARITY_PICTURES]
    part = Pictures(test.images[chosen], test.labels[chosen])
    return part.floats(), part.labels
