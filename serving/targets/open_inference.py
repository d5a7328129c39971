"""Targets served by Tandem's own server with the Open Inference Protocol v2."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.signature import STRING
from serving.repository import model_dir
from serving.server import GRPC_PORT, HTTP_PORT
from serving.settings import Settings
from serving.targets.base import Client, Container, Endpoint, Launch, Target, served_signature
from serving.targets.http import HttpConnection, ask, endpoints

CONTAINER = Container("server", {"http": HTTP_PORT, "grpc": GRPC_PORT})


@dataclass(frozen=True)
class OpenInferenceTarget(Target):
    """A backend of `tandem-server` as a target."""

    name: str
    source: str
    exporter: str
    label: str
    server: str = "our server"
    page_protocol: str = "open-inference"
    container: Container = CONTAINER

    def launch(self, settings: Settings) -> Launch:
        command = [
            str(Path(sys.executable).with_name("tandem-server")),
            f"--backend={self.name}",
            f"--model-repository={model_dir(settings.repository, self.name, '')}",
            f"--host={settings.host}",
            f"--http-port={self.port(settings, 'http')}",
            f"--grpc-port={self.port(settings, 'grpc')}",
        ]
        return Launch(command)

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        predict = f"/v2/models/{settings.model}/infer"
        return endpoints(self, settings, predict, "-d", f"@{samples}/inference.json")

    def served_version(self, settings: Settings) -> int | None:
        path = f"/v2/models/{settings.model}"
        return ask(self, settings, lambda http: max(map(int, http.json("GET", path)["versions"])))

    def refusal(self, settings: Settings, version: int, log: Sequence[str]) -> str:
        def read(http: HttpConnection) -> str:
            answer = http.exchange("GET", f"/v2/models/{settings.model}/versions/{version}")
            error = json.loads(answer.body)["error"] if answer.status >= 400 else ""
            found = re.search(r"is not served \((.+)\); served:", error, re.DOTALL)
            return found[1] if found else ""

        return ask(self, settings, read) or ""

    def clients(self, settings: Settings) -> dict[str, Client]:
        from serving.targets.open_inference_client import BinaryRestClient, GrpcClient, RestClient

        rest, grpc = self.port(settings, "http"), self.port(settings, "grpc")
        signature = served_signature(settings, self.name)
        clients: dict[str, Client] = {"rest": RestClient(settings.host, rest, settings.model, signature)}
        if all(tensor.dtype != STRING for tensor in (*signature.inputs, *signature.outputs)):
            # Our client does not write the binary form of text.
            clients["rest-binary"] = BinaryRestClient(settings.host, rest, settings.model, signature)
        return clients | {"grpc": GrpcClient(settings.host, grpc, settings.model, signature)}


TARGETS = {
    "litert": OpenInferenceTarget("litert", "tensorflow", "litert", "LiteRT"),
    "onnxruntime": OpenInferenceTarget("onnxruntime", "pytorch", "onnx", "ONNX Runtime"),
}
