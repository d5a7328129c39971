"""The DAG as a pipeline spec of Kubeflow Pipelines v2."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from kfp import components
from tfx import v1 as tfx

from pipelines.tfx import dag, inputs
from pipelines.tfx.request import Request


def compile(request: Request, file: Path, image: str) -> None:
    """Write the DAG of a request as YAML that `kfp` has loaded.

    On the cluster its components run in `image`, and the request's folder is the same place for all of them: a
    volume that every pod mounts.
    """
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(
        default_image=image, use_pipeline_spec_2_1=True
    )
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config=config)
    job = runner.run(dag.pipeline(request, inputs.prepare(request)), write_out=False)
    fields = json.loads(job) if isinstance(job, str) else job
    text = yaml.safe_dump(fields["pipelineSpec"])
    components.load_component_from_text(text)
    file.write_text(text)
