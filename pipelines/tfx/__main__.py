"""TFX's side: `python -m pipelines.tfx run REQUEST ANSWER` and `python -m pipelines.tfx compile REQUEST FILE`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from pipelines.gates import GateError
from pipelines.tfx.request import REFUSED, Request


def main() -> int:
    """Return 0 if the model was blessed and pushed, `REFUSED` if a gate stopped it, 1 if a component failed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.tfx", description=__doc__)
    parser.add_argument("verb", choices=("run", "compile"))
    parser.add_argument("request", type=Path, help="the request, as pipelines/tfx/request.py writes it")
    parser.add_argument("output", type=Path, help="where the answer, or Kubeflow's spec, is written to")
    parser.add_argument("--image", help="compile: what the components run in")
    options = parser.parse_args()
    request = Request.read(options.request)
    if options.verb == "compile":
        compile(request, options.output, options.image)
        return 0
    return run(request, options.output)


def run(request: Request, output: Path) -> int:
    """Run the DAG, and write its answer."""
    from tfx import v1 as tfx

    from pipelines.tfx import answers, dag

    quieten()
    error = ""
    try:
        tfx.orchestration.LocalDagRunner().run(dag.pipeline(request))
    except GateError as refusal:
        sys.stderr.write(f"{refusal}\n")
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        answers.read(request, error).write(output)
        raise
    answer = answers.read(request, error)
    answer.write(output)
    return 0 if answer.pushed else REFUSED


def compile(request: Request, file: Path, image: str) -> None:
    """Write the DAG for Kubeflow Pipelines v2, as YAML that `kfp` has loaded.

    On the cluster its components run in `image`, and every pod mounts the request's folder as a volume.
    """
    import yaml
    from kfp import components
    from tfx import v1 as tfx

    from pipelines.tfx import dag

    kubeflow = tfx.orchestration.experimental
    config = kubeflow.KubeflowV2DagRunnerConfig(default_image=image, use_pipeline_spec_2_1=True)
    runner = kubeflow.KubeflowV2DagRunner(config=config)
    job = runner.run(dag.pipeline(request), write_out=False)
    fields = json.loads(job) if isinstance(job, str) else job
    text = yaml.safe_dump(fields["pipelineSpec"])
    components.load_component_from_text(text)
    file.write_text(text)


def quieten() -> None:
    """Filter TFX's log to components and errors: it warns of each query that ML Metadata simplifies."""
    from absl import logging as absl

    def is_of_interest(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or record.getMessage().startswith("Component ")

    absl.set_verbosity(absl.INFO)
    absl.get_absl_logger().addFilter(is_of_interest)


if __name__ == "__main__":
    sys.exit(main())
