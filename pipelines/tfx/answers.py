"""How a run ended, read from what its components left."""

from __future__ import annotations

from pathlib import Path

import models.base
from pipelines.gates import Check
from pipelines.tfx import anomalies, components, evaluation, lineage
from pipelines.tfx.request import Answer, Request

COMPARING = ("SkewValidator", "DriftValidator")


def read(request: Request, error: str) -> Answer:
    """The answer to a request, after its run. `error` is what ended the run early, where that was no gate."""
    run = lineage.last_run(request.metadata)
    if run is None:
        return Answer("", {}, error=error)
    spec = models.base.load(request.model).spec
    sentences: list[str] = []
    checks: list[Check] = []
    metrics: dict[str, float] = {}
    for node in ("ExampleValidator", *COMPARING):
        if folder := run.folder(node, "ExampleAnomalies"):
            sentences += anomalies.sentences(folder)
            checks += anomalies.distances(folder) if node in COMPARING else []
    if folder := run.folder("RowValidator", "ExampleAnomalies"):
        checks += components.read_checks(folder)
    if folder := run.folder("Evaluator", "ModelEvaluation"):
        metrics = evaluation.metrics(str(folder), spec, request.spread)
        failed = list(evaluation.failures(str(folder), spec))
        score = spec.task.score
        least = Check("evaluator", score, metrics[score], ">=", request.profile.minimum_score)
        checks += failed if least in failed else [least, *failed]
    if folder := run.folder("InfraValidator", "InfraBlessing"):
        blessed = (folder / "INFRA_BLESSED").exists()
        checks.append(Check("infra", f"loads and answers in {request.server_image}", blessed, ">=", 1))
    return Answer(run.name, run.steps(), checks, sentences, metrics, _pushed(run), error)


def _pushed(run: lineage.Run) -> str:
    for artifact in run.outputs("Pusher"):
        properties = artifact.custom_properties
        if properties["pushed"].int_value:
            return str(Path(properties["pushed_destination"].string_value))
    return ""
