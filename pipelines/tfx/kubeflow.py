"""The DAG as a pipeline spec of Kubeflow Pipelines v2."""

from __future__ import annotations

from pathlib import Path

from tfx import v1 as tfx

from pipelines.tfx import dag, inputs
from pipelines.tfx.request import Request


def compile(request: Request, spec: Path, image: str) -> None:
    """Write the DAG of a request to `spec` (.json or .yaml). On the cluster its components run in `image`, and the
    request's folder is the same place for all of them: a volume that every pod mounts, or object storage."""
    tfx.orchestration.experimental.KubeflowV2DagRunner(
        config=tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image=image),
        output_dir=str(spec.parent),
        output_filename=spec.name,
    ).run(dag.pipeline(request, inputs.prepare(request)))
