"""What k8s/ repeats of other places is what stands there: names, ports, settings, images, rules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import targets
from serving.platforms import images, provision
from serving.repository import POINTER, Pointer, model_dir, read_pointer, version_dir, write_pointer
from serving.settings import PREFIX, Settings
from serving.targets import tfjs
from serving.targets.tf_serving import MONITORING
from tests.k8s.manifests import K8S, Document, of_kind, pods, render, render_with
from tests.k8s.wiring import container_ports

SETTINGS = Settings()


@pytest.fixture(scope="module")
def production() -> list[Document]:
    return render(K8S / "overlays" / "production")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """Pods of every kind, with the images' own names."""
    names = ["canary", "kserve", "training", "training/promote"]
    return render_with(".", names, tmp_path_factory.mktemp("everything"))


def server(documents: list[Document], name: str) -> Document:
    (container,) = of_kind(documents, "Deployment")[name]["spec"]["template"]["spec"]["containers"]
    found: Document = container
    return found


def test_a_target_is_one_file_with_all_that_it_needs() -> None:
    written = {
        path.stem: list(yaml.safe_load_all(path.read_text())) for path in (K8S / "base").glob("*.yaml")
    }
    apart = {"kustomization", "namespace", "every-pod"}
    assert written.keys() - apart == set(targets.NAMES)
    for name in targets.NAMES:
        kinds = [(document["kind"], document["metadata"]["name"]) for document in written[name]]
        assert kinds == [("Deployment", name), ("Service", name), ("ServiceAccount", name)]


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target_listens_where_its_clients_expect_it(name: str, everything: list[Document]) -> None:
    ports = targets.load(name).ports(SETTINGS)
    pod = next(pod for pod in pods(everything) if pod.owner == f"Deployment/{name}")
    assert set(container_ports(pod).values()) == set(ports.values())
    offered = {port["port"] for port in of_kind(everything, "Service")[name]["spec"]["ports"]}
    assert offered == set(ports.values())


@pytest.mark.parametrize("name", [name for name in targets.NAMES if name != "tfjs"])
def test_the_gateway_knows_the_targets(
    name: str, everything: list[Document], production: list[Document]
) -> None:
    variable = f"GATEWAY_{name.upper().replace('-', '_')}"
    port = targets.load(name).ports(SETTINGS)["REST"]
    gateways = [
        {entry["name"]: entry["value"] for entry in server(documents, "tfjs")["env"]}
        for documents in (production, everything)
    ]
    assert [gateway[variable] for gateway in gateways] == [
        f"{name}:{port}",
        f"{name}:{port} {name}-canary:{port}",
    ]
    assert len(gateways[1]["GATEWAY_WEIGHTS"].split()) == 2


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "PodDisruptionBudget"])
def test_a_target_has_an_autoscaler_and_a_disruption_budget(kind: str, production: list[Document]) -> None:
    assert of_kind(production, kind).keys() == set(targets.NAMES)


def test_tf_serving_is_told_its_ports_and_its_model(everything: list[Document]) -> None:
    container = server(everything, "tf-serving")
    assert f"--rest_api_port={SETTINGS.tf_serving_rest_port}" in container["args"]
    assert f"--port={SETTINGS.tf_serving_grpc_port}" in container["args"]
    assert "--model_name=$(TANDEM_MODEL)" in container["args"]
    config = of_kind(everything, "ConfigMap")
    written = {c["data"]["monitoring.config"] for c in config.values() if "monitoring.config" in c["data"]}
    assert written == {MONITORING}


def test_every_setting_that_a_pod_gets_is_one(everything: list[Document]) -> None:
    configs = of_kind(everything, "ConfigMap")
    seen: set[str] = set()
    for pod in pods(everything):
        for container in pod.spec["containers"]:
            environment = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
            for source in container.get("envFrom", []):
                environment |= configs[source["configMapRef"]["name"]]["data"]
            ours = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
            Settings.from_environment(ours)
            seen |= ours.keys()
    assert {"TANDEM_MODEL", "TANDEM_PROFILE", "TANDEM_STOP_SECONDS"} <= seen


def test_the_page_and_the_model_are_those_of_the_settings() -> None:
    assert json.loads((K8S / "base" / "config.json").read_text()) == tfjs.page_config(SETTINGS)
    assert (K8S / "base" / "model.env").read_text() == f"TANDEM_MODEL={SETTINGS.model}\n"


def test_another_model_is_two_lines(tmp_path: Path) -> None:
    shutil.copytree(K8S / "base", tmp_path / "base")
    (tmp_path / "base" / "model.env").write_text("TANDEM_MODEL=mine\n")
    images = tmp_path / "base" / "kustomization.yaml"
    images.write_text(images.read_text().replace("newTag: fashion-1", "newTag: mine-1"))
    documents = render(tmp_path / "base")
    page, model = (server(documents, name) for name in ("tfjs", "tf-serving"))
    assert page["startupProbe"]["httpGet"]["path"] == "/tfjs/mine/current.json"
    assert page["readinessProbe"]["httpGet"]["path"] == "/tfjs/mine/current.json"
    assert model["livenessProbe"]["httpGet"]["path"] == "/v1/models/mine"
    assert "fashion" not in yaml.safe_dump([d for d in documents if d["kind"] != "ConfigMap"])


def test_images_are_ours_at_our_version(everything: list[Document], production: list[Document]) -> None:
    def used(documents: list[Document]) -> set[str]:
        every = [
            c
            for pod in pods(documents)
            for c in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]
        ]
        return {container["image"] for container in every}

    servers = [provision.IMAGES.get(name, name) for name in targets.NAMES]
    ours = {images.reference(name) for name in [*servers, "pipeline"]}
    version = {"tandem/models:fashion-1", "tandem/models-canary:fashion-1"}
    assert {image for image in used(everything) if image.startswith("tandem/")} == ours | version
    # Nothing that must be pulled under another name is left, and TensorFlow's own server is the one that compose takes.
    assert images.TF_SERVING in used(production)
    assert f"{images.TF_SERVING}-gpu" in (K8S / "components" / "gpu" / "tf-serving.yaml").read_text()
    assert not [image for image in used(production) if image.startswith("tandem/")]


def test_a_new_version_of_the_model_is_a_new_revision_of_each_deployment(tmp_path: Path) -> None:
    def templates(tag: str) -> dict[str, Any]:
        folder = tmp_path / tag
        folder.mkdir()
        chosen = [{"name": "tandem/models", "newTag": tag}]
        documents = render_with("overlays/local", [], folder, images=chosen)
        return {name: d["spec"]["template"] for name, d in of_kind(documents, "Deployment").items()}

    first, second = templates("fashion-1"), templates("fashion-2")
    assert first.keys() == set(targets.NAMES)
    assert all(first[name] != second[name] for name in first)
    assert yaml.safe_dump(first).replace("fashion-1", "fashion-2") == yaml.safe_dump(second)


def test_the_rules_are_those_of_compose() -> None:
    def rules(groups: list[Document]) -> list[Document]:
        every = [rule for group in groups for rule in group["rules"]]
        return [rule | {"annotations": {**rule.get("annotations", {}), "action": ""}} for rule in every]

    theirs = yaml.safe_load((K8S.parent / "docker" / "prometheus" / "rules.yml").read_text())["groups"]
    own = yaml.safe_load((K8S / "components" / "monitoring" / "rules.yaml").read_text())["spec"]["groups"]
    assert rules(own) == rules(theirs)
    said = [rule["annotations"]["action"] for group in own for rule in group["rules"] if "alert" in rule]
    assert said
    assert not [action for action in said if "`make" in action or "docker" in action]


def test_promoting_packs_the_version_of_the_job_s_name_and_nothing_else(
    tmp_path: Path, everything: list[Document]
) -> None:
    root = tmp_path / "repository"
    for target in ("litert", "onnxruntime"):
        for version in (1, 2, 3):
            folder = version_dir(root, target, "fashion", version)
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text("{}")
        write_pointer(model_dir(root, target, "fashion") / POINTER, Pointer(3, previous=2))
    write_pointer(root / "fashion.json", Pointer(3, previous=2))
    spec = of_kind(everything, "CronJob")["promote"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (pack,) = spec["initContainers"]
    script = pack["args"][0].replace("/tandem/repository", str(root)).replace("/layer/", f"{tmp_path}/")
    script = script.replace("--directory /layer", f"--directory {tmp_path}")
    subprocess.run([*pack["command"], script], env=os.environ | {"JOB_NAME": "fashion-2"}, check=True)
    assert read_pointer(tmp_path / "models" / "fashion.json") == Pointer(2)
    with tarfile.open(tmp_path / "layer.tar") as layer:
        files = {member.name for member in layer if member.isfile()}
        assert all(member.mode & 0o444 == 0o444 for member in layer)
    assert files == {"models/fashion.json"} | {
        f"models/{target}/fashion/{name}"
        for target in ("litert", "onnxruntime")
        for name in ("current.json", "2/manifest.json")
    }
