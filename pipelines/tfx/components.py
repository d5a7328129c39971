"""Our own components: the validation of the records, and the gate that stops a run.

TFX reads the annotations of a component's function as objects, so they are not postponed here. `sources` is the
digest of the code that a component runs, as TFX keys its cache by parameters, not by code.
"""

import json
from dataclasses import asdict
from pathlib import Path

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import artifact_utils
from tfx.v1.dsl.components import InputArtifact, OutputArtifact, Parameter, component
from tfx.v1.types.standard_artifacts import ExampleAnomalies, Examples

import models.base
from models.data import Dataset
from pipelines import validation
from pipelines.gates import Check, GateError
from pipelines.tfx import SPLITS
from pipelines.tfx import examples as records
from pipelines.validation import Published, schema, statistics

CHECKS, ANOMALIES = "checks.json", "SchemaDiff.pb"


@component
def RowValidator(  # noqa: N802
    examples: InputArtifact[Examples],
    checks: OutputArtifact[ExampleAnomalies],
    model: Parameter[str],
    published: Parameter[str],
    version: Parameter[int],
    sources: Parameter[str],  # noqa: ARG001
) -> None:
    """Check the rows as every run does, with leakage, skew, drift and labels, which TFDV's validator does not see.

    `published` is the file of the statistics that `version` was published with; "" where there is none.
    """
    loaded = models.base.load(model)
    spec = loaded.spec
    folders = {name: Path(artifact_utils.get_split_uri([examples], name)) for name in SPLITS}
    splits = {name: records.read_folder(folder, spec) for name, folder in folders.items()}
    before = Published(version, statistics.from_json(Path(published).read_text())) if published else None
    dataset = Dataset(**splits, digest="")
    validated = validation.validate(dataset, spec, schema.load(loaded), before)
    write_checks(Path(checks.uri), list(validated.checks))


@component
def DataGate(  # noqa: N802
    anomalies: InputArtifact[ExampleAnomalies],
    checks: InputArtifact[ExampleAnomalies],
    sources: Parameter[str],  # noqa: ARG001
) -> None:
    """Stop the run if the data has faults. Raises `GateError` with all of them."""
    wrong = sentences(Path(anomalies.uri))
    wrong += [str(check) for check in read_checks(Path(checks.uri)) if not check.passed]
    if wrong:
        raise GateError("the data gate refused this run\n  " + "\n  ".join(wrong))


def write_checks(folder: Path, checks: list[Check]) -> None:
    """Write checks as an artifact's payload."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHECKS).write_text(json.dumps([asdict(check) for check in checks], indent=1) + "\n")


def read_checks(folder: Path) -> list[Check]:
    """Read the checks of `write_checks`; none if there is no file."""
    file = folder / CHECKS
    return [Check(**fields) for fields in json.loads(file.read_text())] if file.exists() else []


def sentences(folder: Path) -> list[str]:
    """Return every anomaly in TFDV's words, after its split and feature."""
    found = []
    for path in sorted(folder.rglob(ANOMALIES)):
        split = path.parent.name.removeprefix("Split-")
        anomalies = anomalies_pb2.Anomalies.FromString(path.read_bytes())
        for feature, info in anomalies.anomaly_info.items():
            found += [f"{split}: {feature}: {reason.description}" for reason in info.reason]
        found += [f"{split}: {reason.description}" for reason in anomalies.dataset_anomaly_info.reason]
    return found
