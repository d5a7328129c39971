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
from serving.targets.base import Client, Container, Endpoint, Launch, TargetError, served_signature
from serving.targets.http import HttpConnection

CONTAINER = Container("server", {"http": HTTP_PORT, "grpc": GRPC_PORT})


@dataclass(frozen=True)
class OpenInferenceTarget:
    """A backend of `tandem-server` as a target; the ports are the settings `<name>_rest_port`, `_grpc_port`."""

    name: str
    source: str
    exporter: str
    label: str
    server: str = "our server"
    page_protocol: str = "open-inference"
    container: Container = CONTAINER

    def ports(self, settings: Settings) -> dict[str, int]:
        return {"REST": self.rest_port(settings), "gRPC": self.grpc_port(settings)}

    def configure(self, settings: Settings) -> None:
        """Nothing to write: the flags say it all."""

    def launch(self, settings: Settings) -> Launch:
        command = [
            str(Path(sys.executable).with_name("tandem-server")),
            f"--backend={self.name}",
            f"--model-repository={model_dir(settings.repository, self.name, '')}",
            f"--host={settings.host}",
            f"--http-port={self.rest_port(settings)}",
            f"--grpc-port={self.grpc_port(settings)}",
        ]
        return Launch(command)

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        rest = f"http://{settings.host}:{self.rest_port(settings)}"
        infer = f"{rest}/v2/models/{settings.model}/infer"
        return [
            Endpoint("REST", infer, f"curl -s {infer} -d @{samples}/inference.json"),
            Endpoint("gRPC", f"{settings.host}:{self.grpc_port(settings)}"),
            Endpoint("metrics", f"{rest}/metrics", f"curl -s {rest}/metrics"),
        ]

    def served_version(self, settings: Settings) -> int | None:
        connection = HttpConnection(settings.host, self.rest_port(settings), timeout=5)
        try:
            connection.request("GET", f"/v2/models/{settings.model}/ready")
            metadata = connection.json("GET", f"/v2/models/{settings.model}")
            return max(int(version) for version in metadata["versions"])
        except TargetError:
            return None
        finally:
            connection.close()

    def refusal(self, settings: Settings, version: int, log: Sequence[str]) -> str:
        connection = HttpConnection(settings.host, self.rest_port(settings), timeout=5)
        try:
            answer = connection.exchange("GET", f"/v2/models/{settings.model}/versions/{version}")
            error = str(json.loads(answer.body)["error"]) if answer.status >= 400 else ""
        except (TargetError, ValueError, KeyError):
            return ""
        finally:
            connection.close()
        found = re.search(r"is not served \((.+)\); served:", error, re.DOTALL)
        return found[1] if found else ""

    def activate(self, settings: Settings, version: int) -> None:
        """Nothing to tell: the server polls the pointer in the repository."""

    def clients(self, settings: Settings) -> dict[str, Client]:
        from serving.targets.open_inference_client import BinaryRestClient, GrpcClient, RestClient

        rest, signature = self.rest_port(settings), served_signature(settings, self.name)
        clients: dict[str, Client] = {"rest": RestClient(settings.host, rest, settings.model, signature)}
        if all(tensor.dtype != STRING for tensor in (*signature.inputs, *signature.outputs)):
            # Of text the extension has a form of its own, which ours does not write.
            clients["rest-binary"] = BinaryRestClient(settings.host, rest, settings.model, signature)
        grpc = self.grpc_port(settings)
        return clients | {"grpc": GrpcClient(settings.host, grpc, settings.model, signature)}

    def rest_port(self, settings: Settings) -> int:
        port: int = getattr(settings, f"{self.name}_rest_port")
        return port

    def grpc_port(self, settings: Settings) -> int:
        port: int = getattr(settings, f"{self.name}_grpc_port")
        return port


TARGETS = {
    "litert": OpenInferenceTarget("litert", "tensorflow", "litert", "LiteRT"),
    "onnxruntime": OpenInferenceTarget("onnxruntime", "pytorch", "onnx", "ONNX Runtime"),
}
