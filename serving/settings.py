"""The settings of Tandem: one typed object, read once from the environment.

Each field `name` is read from the variable `TANDEM_NAME`; `tandem settings` prints them all.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from serving.errors import TandemError

PREFIX = "TANDEM_"


class SettingsError(TandemError):
    """A `TANDEM_*` variable is unknown or holds a value that does not fit."""


def setting(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:  # noqa: ANN401
    """Return a field with its default, its help for `tandem settings`, and its choices."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """The settings of a user."""

    model: str = setting("fashion", "folder in models/ to work on")
    artifacts: Path = setting(Path("artifacts"), "where data, runs, the model repository and logs lie")
    platform: str = setting("auto", "where the targets run", ("auto", "docker", "process"))
    profile: str = setting("quick", "training profile, one of the model's")
    seed: int = setting(1, "seed of the split, the initial weights and the batches")
    precision: str = setting(
        "float32",
        "of a training's arithmetic; weights and artifacts stay float32",
        ("float32", "bf16", "fp16"),
    )
    devices: int = setting(1, "how many share each batch of a training: CPU processes or GPUs")
    device: str = setting(
        "auto", "what trainings run on; auto: GPUs where there are enough", ("auto", "cpu", "gpu")
    )
    nodes: int = setting(1, "how many machines share a training in PyTorch, each with as many devices")
    node_rank: int = setting(0, "which of these this one is, from 0; the others only help to train")
    master_addr: str = setting("", "address of node 0 that the others reach, on a network that is trusted")
    master_port: int = setting(29500, "port of node 0")
    nodes_seconds: int = setting(600, "how long nodes wait for each other")
    source: str = setting("", "export every target from this framework", ("", "tensorflow", "pytorch"))

    targets: str = setting("", "the only targets to ship to, by commas; empty is all that can be reached")
    torchserve_form: str = setting(
        "exported",
        "torchserve runs: PyTorch's exported program, its compiled code (aot), or the ONNX graph",
        ("exported", "aot", "onnx"),
    )

    host: str = setting("127.0.0.1", "address that the servers bind to")
    tf_serving_rest_port: int = setting(8501, "tf-serving, REST")
    tf_serving_grpc_port: int = setting(8500, "tf-serving, gRPC")
    litert_rest_port: int = setting(8010, "litert, REST")
    litert_grpc_port: int = setting(8011, "litert, gRPC")
    tfjs_port: int = setting(8090, "gateway: the page, the TF.js files, /api/<target>/")
    torchserve_rest_port: int = setting(8080, "torchserve, inference")
    torchserve_metrics_port: int = setting(8082, "torchserve, metrics")
    torchserve_grpc_port: int = setting(7070, "torchserve, gRPC inference")
    onnxruntime_rest_port: int = setting(8000, "onnxruntime, REST")
    onnxruntime_grpc_port: int = setting(8001, "onnxruntime, gRPC")
    prometheus_port: int = setting(9090, "Prometheus, with monitoring")

    project: str = setting("tandem", "on docker: prefix of the containers' names")
    tf_serving: str = setting(
        "auto",
        "on docker: TensorFlow's own server, ours, or auto: the original if it can be pulled",
        ("auto", "original", "embedded"),
    )
    monitoring: bool = setting(False, "on docker: Prometheus beside the targets")

    ready_seconds: int = setting(180, "how long a target may take to answer with the published version")
    stop_seconds: int = setting(15, "how long a target may take to finish its requests before it is killed")

    def __post_init__(self) -> None:
        """Check the values. Raises `SettingsError` with the variable and the expected value."""
        for f in dataclasses.fields(self):
            value, given = getattr(self, f.name), f"{PREFIX}{f.name.upper()}={str(getattr(self, f.name))!r}"
            if (choices := f.metadata["choices"]) and value not in choices:
                raise SettingsError(f"{given}: expected one of {', '.join(map(repr, choices))}")
            if f.name.endswith("_port") and not 1 <= value <= 65535:
                raise SettingsError(f"{given}: a port is 1 to 65535")
            if f.name.endswith("_seconds") and value < 1:
                raise SettingsError(f"{given}: expected at least 1 second")
            if f.name == "seed" and not 0 <= value < 1 << 32:
                raise SettingsError(f"{given}: expected 0 to {(1 << 32) - 1}")
            if f.name == "nodes" and value < 1:
                raise SettingsError(f"{given}: expected at least 1")
            if f.name == "node_rank" and not 0 <= value < self.nodes:
                raise SettingsError(
                    f"{given}: expected 0 to {self.nodes - 1}, as TANDEM_NODES is {self.nodes}"
                )
            if f.name == "master_addr" and self.nodes > 1 and not value:
                raise SettingsError(f"{given}: expected node 0's address, as TANDEM_NODES is {self.nodes}")
            if f.name == "targets" and value and not value.strip(", "):
                raise SettingsError(f"{given}: expected names of targets, by commas")

    @property
    def repository(self) -> Path:
        """The model repository that the servers read."""
        return self.artifacts / "repository"

    @property
    def alone(self) -> Settings:
        """The same on one machine that has the devices of all nodes."""
        return dataclasses.replace(self, devices=self.devices * self.nodes, nodes=1, node_rank=0)

    @property
    def own(self) -> Path:
        """The folder of this machine's runs; machines that share a training may share the artifacts, too."""
        return self.artifacts / "nodes" / str(self.node_rank) if self.node_rank else self.artifacts

    @property
    def lineage(self) -> Path:
        """The records of all runs."""
        return self.own / "lineage"

    @property
    def logs(self) -> Path:
        """The log files, one for each target."""
        return self.artifacts / "logs"

    @property
    def run(self) -> Path:
        """The state of running targets: pids, sockets, generated configuration."""
        return self.artifacts / "run"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the `TANDEM_*` variables. Raises `SettingsError` with the variable and the expected value."""
        environment = os.environ if environment is None else environment
        hints = get_type_hints(cls)
        fields = {PREFIX + f.name.upper(): f for f in dataclasses.fields(cls)}
        unknown = [name for name in environment if name.startswith(PREFIX) and name not in fields]
        if unknown:
            raise SettingsError(f"unknown setting {unknown[0]}; `tandem settings` lists those that exist")
        values: dict[str, Any] = {
            f.name: _parse(name, environment[name], hints[f.name])
            for name, f in fields.items()
            if name in environment
        }
        settings = cls(**values)
        return dataclasses.replace(settings, artifacts=settings.artifacts.resolve())


def _parse(name: str, text: str, kind: type) -> Any:  # noqa: ANN401
    if kind is bool:
        if text not in ("0", "1"):
            raise SettingsError(f"{name}={text!r}: expected 0 or 1")
        return text == "1"
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(f"{name}={text!r}: expected {kind.__name__}") from None
