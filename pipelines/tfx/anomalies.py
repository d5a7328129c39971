"""What TFDV found wrong: its anomalies as sentences, and as checks where they have a figure and a limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tensorflow_metadata.proto.v0 import anomalies_pb2

from pipelines.gates import Check

FILE = "SchemaDiff.pb"


def read(folder: Path) -> Iterator[tuple[str, anomalies_pb2.Anomalies]]:
    """The anomalies of each split, or pair of splits, below the folder of an ExampleAnomalies artifact."""
    for path in sorted(folder.rglob(FILE)):
        name = path.parent.name.removeprefix("Split-").removeprefix("SplitPair-")
        yield name, anomalies_pb2.Anomalies.FromString(path.read_bytes())


def sentences(folder: Path) -> list[str]:
    """Every anomaly in TFDV's words, after its split and feature."""
    found = []
    for split, anomalies in read(folder):
        for feature, info in anomalies.anomaly_info.items():
            found += [f"{split}: {feature}: {reason.description}" for reason in info.reason]
        found += [f"{split}: {reason.description}" for reason in anomalies.dataset_anomaly_info.reason]
    return found


def distances(folder: Path) -> list[Check]:
    """Every distance that TFDV measured between two splits, with its limit, whether it was kept or not."""
    checks = []
    for pair, anomalies in read(folder):
        for info in anomalies.drift_skew_info:
            for measured in [*info.drift_measurements, *info.skew_measurements]:
                name = f"{pair}: {'.'.join(info.path.step)}, {KINDS[measured.type]}"
                checks.append(Check("data", name, measured.value, "<=", measured.threshold))
    return checks


_Kind = anomalies_pb2.DriftSkewInfo.Measurement
KINDS = {
    _Kind.L_INFTY: "L-infinity",
    _Kind.JENSEN_SHANNON_DIVERGENCE: "Jensen-Shannon",
    _Kind.NORMALIZED_ABSOLUTE_DIFFERENCE: "normalized absolute difference",
}
