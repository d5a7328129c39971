"""The result of a run, read from ML Metadata and from the outputs of its components."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ml_metadata import errors
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

import models.base
from models.classification import Classification
from pipelines.gates import Check
from pipelines.tfx import components, evaluation
from pipelines.tfx.request import Answer, Request, Step

CONTEXT = "pipeline_run"


def read(request: Request, error: str) -> Answer:
    """Return the answer to a request, after its run. `error` is that of a component, "" for a gate's."""
    run = last_run(request.metadata)
    if run is None:
        return Answer("", {}, error=error)
    task = models.base.load(request.model).spec.task
    assert isinstance(task, Classification)
    checks: list[Check] = []
    metrics: dict[str, float] = {}
    if folder := run.folder("ExampleValidator", "ExampleAnomalies"):
        checks += [Check("data", f"TFDV: {text}", 1, "<=", 0) for text in components.sentences(folder)]
    if folder := run.folder("RowValidator", "ExampleAnomalies"):
        checks += components.read_checks(folder)
    if folder := run.folder("Evaluator", "ModelEvaluation"):
        metrics = evaluation.metrics(str(folder), task)
        failed = list(evaluation.failures(str(folder), task))
        least = Check("evaluator", task.score, metrics[task.score], ">=", request.profile.minimum_score)
        checks += failed if least in failed else [least, *failed]
    if folder := run.folder("InfraValidator", "InfraBlessing"):
        blessed = (folder / "INFRA_BLESSED").exists()
        checks.append(Check("infra", f"loads and answers in {request.server_image}", blessed, ">=", 1))
    told = [artifact.custom_properties for artifact in run.outputs("Pusher")]
    pushed = [str(Path(own["pushed_destination"].string_value)) for own in told if own["pushed"].int_value]
    return Answer(run.name, run.steps(), checks, metrics, next(iter(pushed), ""), error)


class Run:
    """The last run in ML Metadata's SQLite file."""

    def __init__(self, database: Path) -> None:
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(database)
        config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READONLY
        self.store = MetadataStore(config)
        contexts = self.store.get_contexts_by_type(CONTEXT)
        self.context = max(contexts, key=lambda context: context.id)
        self.executions = sorted(
            self.store.get_executions_by_context(self.context.id), key=lambda execution: execution.id
        )
        self.nodes = {execution.id: self._node(execution) for execution in self.executions}

    @property
    def name(self) -> str:
        """The run's id: when it started, as TFX writes it."""
        return str(self.context.name)

    def steps(self) -> dict[str, Step]:
        """Return the state and seconds of each component, in the order in which they ran."""
        return {
            self.nodes[execution.id]: Step(
                mlmd.Execution.State.Name(execution.last_known_state),
                (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000,
            )
            for execution in self.executions
        }

    def outputs(self, node: str) -> Iterator[mlmd.Artifact]:
        """Yield the outputs of a component in this run, from the cache or not."""
        own = [execution.id for execution in self.executions if self.nodes[execution.id] == node]
        events = self.store.get_events_by_execution_ids(own) if own else []
        written = [event.artifact_id for event in events if event.type == mlmd.Event.OUTPUT]
        yield from self.store.get_artifacts_by_id(written)

    def folder(self, node: str, kind: str) -> Path | None:
        """Return the folder of a component's output of one type; None if it wrote none."""
        types = {one.id: one.name for one in self.store.get_artifact_types()}
        for artifact in self.outputs(node):
            if types[artifact.type_id] == kind and Path(artifact.uri).is_dir():
                return Path(artifact.uri)
        return None

    def _node(self, execution: mlmd.Execution) -> str:
        for context in self.store.get_contexts_by_execution(execution.id):
            if context.type == "node":
                # Named <pipeline>.<node>.
                return str(context.name).rpartition(".")[2]
        return str(execution.type)


def last_run(database: Path) -> Run | None:
    """Return the last run; None if there was none."""
    if not database.exists():
        return None
    try:
        return Run(database)
    except (errors.NotFoundError, ValueError):
        return None
