"""What Podman is given is what the cluster would get, but for what play.py says; probes are asked to their end."""

from __future__ import annotations

import copy
import http.server
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.k8s import probes
from tests.k8s.manifests import K8S, Document, of_kind, pods, render
from tests.k8s.play import behind, translate
from tests.k8s.podman import Podman
from tests.k8s.wiring import container_ports

NAMES = {"tf-serving": "10.0.0.2", "litert": "10.0.0.3"}


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return render(K8S / "overlays" / "local")


@pytest.fixture(scope="module")
def host_ports(documents: list[Document]) -> dict[int, int]:
    """Of any Deployment."""
    return {number: number + 20000 for pod in pods(documents) for number in container_ports(pod).values()}


@pytest.fixture(params=["tf-serving", "litert", "tfjs", "torchserve", "onnxruntime"])
def both(
    request: pytest.FixtureRequest, documents: list[Document], host_ports: dict[int, int]
) -> tuple[Document, Document]:
    """A pod as it is rendered and as it is played."""
    deployment = of_kind(documents, "Deployment")[request.param]
    played = translate(deployment, of_kind(documents, "ConfigMap"), NAMES, host_ports)
    return deployment["spec"]["template"]["spec"], played["spec"]["template"]["spec"]


def test_rights_images_and_resources_stay_as_they_are(both: tuple[Document, Document]) -> None:
    rendered, played = both
    assert played["securityContext"] == rendered["securityContext"]
    for kind in ("initContainers", "containers"):
        for one, other in zip(rendered[kind], played[kind], strict=True):
            for field in ("name", "image", "securityContext", "resources", "lifecycle", "env", "envFrom"):
                assert other.get(field) == one.get(field), field
            mounts = [{**mount, "name": ""} for mount in one["volumeMounts"]]
            assert [{**mount, "name": ""} for mount in other["volumeMounts"]] == mounts


def test_every_port_is_reached_from_this_host_alone(both: tuple[Document, Document]) -> None:
    (server,) = both[1]["containers"]
    assert server["ports"]
    for port in server["ports"]:
        assert (port["hostIP"], port["hostPort"]) == ("127.0.0.1", port["containerPort"] + 20000)


def test_volumes_of_two_pods_are_not_one(documents: list[Document], host_ports: dict[int, int]) -> None:
    seen: set[str] = set()
    for deployment in of_kind(documents, "Deployment").values():
        spec = translate(deployment, of_kind(documents, "ConfigMap"), NAMES, host_ports)["spec"]["template"][
            "spec"
        ]
        own = {volume["name"] for volume in spec["volumes"]}
        mounted = {
            m["name"] for c in (*spec["initContainers"], *spec["containers"]) for m in c["volumeMounts"]
        }
        assert mounted <= own
        assert not own & seen
        seen |= own


def test_arguments_are_filled_in_from_the_config_maps(
    documents: list[Document], host_ports: dict[int, int]
) -> None:
    deployment = of_kind(documents, "Deployment")["tf-serving"]
    spec = translate(deployment, of_kind(documents, "ConfigMap"), NAMES, host_ports)["spec"]["template"][
        "spec"
    ]
    assert "--model_name=fashion" in spec["containers"][0]["args"]


def test_a_service_on_another_port_is_refused(documents: list[Document]) -> None:
    assert behind(documents)["tfjs"] == "tfjs"
    changed = copy.deepcopy(documents)
    of_kind(changed, "Service")["litert"]["spec"]["ports"][0]["port"] = 80
    with pytest.raises(ValueError, match="port 80 of the Service litert leads to 8000"):
        behind(changed)


@pytest.mark.parametrize(("status", "passes"), [(200, True), (302, True), (404, False), (503, False)])
def test_a_probe_passes_as_for_the_kubelet(tmp_path: Path, status: int, passes: bool) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ports: dict[str | int, int] = {"http": server.server_address[1]}
    probe = {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 0.1, "failureThreshold": 2}
    assert probes.wait(Podman(tmp_path), "none", ports, probe) is passes
    server.shutdown()
    server.server_close()
    assert not probes.passes(Podman(tmp_path), "none", ports, {"tcpSocket": {"port": "http"}})
