"""The checks of the trained networks: limits, the published version, and each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.base import Model, ModelSpec, Profile
from models.data import Dataset
from pipelines.exporting import reference
from pipelines.gates import Check
from pipelines.training.record import PARITY_STEPS, History, Trained, loss_difference

Metrics = Mapping[str, Mapping[str, float]]
"""By framework: the task's metrics on the test rows."""
REDUCED_LOSS = 0.03
"""Largest relative difference of two losses in the first steps where one training is not in float32."""
REDUCED_SCORE = 0.005
"""Largest loss of validation score by arithmetic other than float32."""


@dataclass(frozen=True)
class Evaluated:
    """The metrics and checks of the trained networks."""

    metrics: Metrics
    checks: tuple[Check, ...]


def evaluate(
    model: Model,
    profile: Profile,
    dataset: Dataset,
    trained: Mapping[str, Trained],
    published: Metrics,
    plain: Mapping[str, History] | None = None,
) -> Evaluated:
    """Measure the networks on the test rows, and check them.

    `published` are the published version's metrics, if there is one; `plain` are the histories of the same training in
    float32, by framework, if this one has another precision.
    """
    spec, test = model.spec, dataset.test
    inputs, metrics = test.served(spec.signature), {}
    for framework, result in trained.items():
        outputs = reference.outputs(model, framework, result.weights, inputs)
        metrics[framework] = spec.task.metrics(outputs[spec.task.outputs[0].name], test.targets)
    checks = quality(spec, profile, metrics, published)
    histories = [result.history for result in trained.values()]
    if len(histories) == 1:
        (only,) = trained
        why = f"the model has a network in {only} only, so parity of training is not claimed"
        checks.append(Check("training parity", "networks that were trained", 1, ">=", 2, why))
    else:
        checks += training(profile, *histories)
    for framework, before in (plain or {}).items():
        checks += precision(framework, profile.precision, trained[framework].history, before)
    return Evaluated(metrics, tuple(checks))


def quality(spec: ModelSpec, profile: Profile, found: Metrics, published: Metrics) -> list[Check]:
    """Check each framework's metrics against the profile, the published version (if any) and the other framework."""
    checks, score = [], spec.task.score
    for framework, now in found.items():
        checks.append(Check("quality", f"{framework}: test {score}", now[score], ">=", profile.minimum_score))
        for name, before in published.get(framework, {}).items():
            # Classes and tasks may be others now.
            if name in now and (margin := spec.task.margin(name, profile)) is not None:
                label = f"{framework}: {name} against the published version"
                checks.append(Check("quality", label, now[name], ">=", before - margin))
    scores = [now[score] for now in found.values()]
    if len(scores) > 1:
        apart = max(scores) - min(scores)
        label = f"test {score}, between frameworks"
        checks.append(Check("quality", label, apart, "<=", profile.score_difference))
    return checks


def training(profile: Profile, left: History, right: History) -> list[Check]:
    """Check that the two frameworks have the same losses in the first steps."""
    limit = profile.training_loss if profile.precision == "float32" else REDUCED_LOSS
    label = f"largest relative difference of the losses of {PARITY_STEPS} steps"
    return [Check("training parity", label, loss_difference(left, right), "<=", limit)]


def precision(framework: str, name: str, found: History, plain: History) -> list[Check]:
    """Check a training in the precision `name` against the same one in float32."""
    lost = plain.epochs[-1].validation_metric - found.epochs[-1].validation_metric
    losses = f"{framework}: losses of {PARITY_STEPS} steps in {name} against float32's"
    score = f"{framework}: validation score lost by {name}"
    return [
        Check("precision", losses, loss_difference(found, plain), "<=", REDUCED_LOSS),
        Check("precision", score, lost, "<=", REDUCED_SCORE),
    ]
