"""The pipeline: TFX's components, ours between them, and their connections."""

from __future__ import annotations

from dataclasses import asdict

import tensorflow_data_validation as tfdv
from tfx import v1 as tfx

import models.base
from models.base import Model
from models.classification import Classification
from pipelines.exporting.keras_graph import EXAMPLES_SIGNATURE
from pipelines.records import fingerprint
from pipelines.tfx import SPLITS, components, evaluation, inputs, sources
from pipelines.tfx.request import Request

ARTIFACTS = tfx.types.standard_artifacts


def pipeline(request: Request) -> tfx.dsl.Pipeline:
    """Return the DAG of a request."""
    model = models.base.load(request.model)
    task = model.spec.task
    assert isinstance(task, Classification)
    patterns = [tfx.proto.Input.Split(name=name, pattern=f"{name}.gz") for name in SPLITS]
    example_gen = tfx.components.ImportExampleGen(
        input_base=str(request.records), input_config=tfx.proto.Input(splits=patterns)
    )
    examples = example_gen.outputs["examples"]
    gate, of_data = _data_components(request, model, examples)
    trainer = _trainer(request, model, examples)
    trainer.add_upstream_node(gate)
    trained = trainer.outputs["model"]
    blessed = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=ARTIFACTS.Model),
        model_blessing=tfx.dsl.Channel(type=ARTIFACTS.ModelBlessing),
    ).with_id("LatestBlessedModel")
    evaluator = tfx.components.Evaluator(
        examples=examples,
        model=trained,
        baseline_model=blessed.outputs["model"],
        example_splits=["test"],
        eval_config=evaluation.config(task, request.profile),
    )
    blessing = evaluator.outputs["blessing"]
    infra = [_infra_validator(request, examples, trained)] if request.server_image else []
    pusher = tfx.components.Pusher(
        model=trained,
        model_blessing=blessing,
        infra_blessing=infra[0].outputs["blessing"] if infra else None,
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(request.folder / "pushed"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name=f"tandem-{request.model}",
        pipeline_root=str(request.folder / "artifacts"),
        components=[example_gen, *of_data, gate, trainer, blessed, evaluator, *infra, pusher],
        enable_cache=True,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(request.metadata)
        ),
        beam_pipeline_args=list(request.beam),
    )


def _data_components(
    request: Request, model: Model, examples: tfx.dsl.Channel
) -> tuple[tfx.dsl.components.base.BaseComponent, list[tfx.dsl.components.base.BaseNode]]:
    """Return the gate before the training, and the components before it."""
    schema_file = inputs.schema_file(request, model)
    schema_gen = tfx.components.ImportSchemaGen(schema_file=schema_file).with_id("SchemaGen")
    statistics_gen = tfx.components.StatisticsGen(
        examples=examples,
        schema=schema_gen.outputs["schema"],
        # The schema says that labels are categories; without it they would be numbers.
        stats_options=tfdv.StatsOptions(infer_type_from_schema=True),
    )
    statistics = statistics_gen.outputs["statistics"]
    validator = tfx.components.ExampleValidator(statistics=statistics, schema=schema_gen.outputs["schema"])
    rows = components.RowValidator(
        examples=examples,
        model=model.spec.name,
        published=inputs.published_file(request),
        version=request.version,
        sources=_sources(model, "pipelines.tfx.components"),
    )
    gate = components.DataGate(
        anomalies=validator.outputs["anomalies"],
        checks=rows.outputs["checks"],
        sources=sources.digest(["pipelines.tfx.components"]),
    )
    return gate, [schema_gen, statistics_gen, validator, rows]


def _trainer(request: Request, model: Model, examples: tfx.dsl.Channel) -> tfx.components.Trainer:
    config = {
        "model": request.model,
        # Evaluator holds this limit; a change of it needs no new training.
        "profile": asdict(request.profile) | {"minimum_score": 0.0},
        "seed": request.seed,
        "sources": _sources(model, "pipelines.tfx.trainer"),
        "libraries": fingerprint.libraries(fingerprint.TRAINING_LIBRARIES),
    }
    return tfx.components.Trainer(
        # TFX would pack a module file with all files beside it.
        run_fn="pipelines.tfx.trainer.run_fn",
        examples=examples,
        train_args=tfx.proto.TrainArgs(splits=["train"]),
        eval_args=tfx.proto.EvalArgs(splits=["validation"]),
        custom_config=config,
    )


def _sources(model: Model, module: str) -> str:
    """Return the digest of a module's code and of the model's, which is imported by a computed name."""
    own = [
        f"{model.package}.{path.stem}"
        for path in sorted(model.folder.glob("*.py"))
        if path.stem != "torch_model"
    ]
    return sources.digest([module, "models.bridge", *own])


def _infra_validator(
    request: Request, examples: tfx.dsl.Channel, model: tfx.dsl.Channel
) -> tfx.components.InfraValidator:
    """Load the model in the server that serves it, and send it three examples."""
    image, _, tag = request.server_image.rpartition(":")
    return tfx.components.InfraValidator(
        model=model,
        examples=examples,
        serving_spec=tfx.proto.ServingSpec(
            tensorflow_serving=tfx.proto.TensorFlowServing(image_name=image, tags=[tag]),
            local_docker=tfx.proto.LocalDockerConfig(),
            model_name=request.model,
        ),
        request_spec=tfx.proto.RequestSpec(
            tensorflow_serving=tfx.proto.TensorFlowServingRequestSpec(signature_names=[EXAMPLES_SIGNATURE]),
            split_name="test",
            num_examples=3,
        ),
    )
