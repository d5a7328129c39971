"""What k8s/ repeats of other places is what stands there: names, ports, settings, images, rules."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import targets
from serving.platforms import images
from serving.platforms.wheels import BOOKWORM
from serving.repository import POINTER, Pointer, model_dir, read_pointer, version_dir, write_pointer
from serving.settings import PREFIX, Settings
from serving.targets import tfjs
from serving.targets.tf_serving import MONITORING
from tests.k8s.manifests import K8S, ORDER, Document, of_kind, pods, render, render_with
from tests.k8s.policy import quantity
from tests.k8s.wiring import container_ports

REGISTRY = "registry.example.com/tandem/"
AMD64 = {"kubernetes.io/arch": "amd64"}
CRANE = "gcr.io/go-containerregistry/crane:v0.20.6"


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


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target_has_the_ports_and_the_memory_that_others_expect(
    name: str, everything: list[Document]
) -> None:
    ports = targets.load(name).container.ports
    pod = next(pod for pod in pods(everything) if pod.owner == f"Deployment/{name}")
    assert container_ports(pod) == ports
    service = yaml.safe_load((K8S.parent / "compose.yaml").read_text())["services"][name]
    limit = server(everything, name)["resources"]["limits"]["memory"]
    assert service["mem_limit"] == limit.lower().removesuffix("i"), "compose.yaml and k8s/base"


def test_the_canary_gets_a_share_of_each_target_behind_the_gateway(everything: list[Document]) -> None:
    env = {entry["name"]: entry["value"] for entry in server(everything, "tfjs")["env"]}
    assert len(env["GATEWAY_WEIGHTS"].split()) == 2
    services = of_kind(everything, "Service")
    for name in tfjs.called_by_the_page():
        for address in env[tfjs.gateway_variable(name)].split():
            host, _, port = address.partition(":")
            assert int(port) in [own["port"] for own in services[host]["spec"]["ports"]], address


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "PodDisruptionBudget"])
def test_a_target_has_an_autoscaler_and_a_disruption_budget(kind: str, production: list[Document]) -> None:
    assert of_kind(production, kind).keys() == set(targets.NAMES)


def test_tf_serving_is_told_its_ports_and_its_model(everything: list[Document]) -> None:
    container, ports = server(everything, "tf-serving"), targets.load("tf-serving").container.ports
    assert f"--rest_api_port={ports['http']}" in container["args"]
    assert f"--port={ports['grpc']}" in container["args"]
    assert "--model_name=$(TANDEM_MODEL)" in container["args"]
    config = of_kind(everything, "ConfigMap")
    written = {c["data"]["monitoring.config"] for c in config.values() if "monitoring.config" in c["data"]}
    assert written == {MONITORING}


def test_every_setting_that_a_pod_gets_is_one(everything: list[Document]) -> None:
    configs = of_kind(everything, "ConfigMap")
    seen: dict[str, str] = {}
    for pod in pods(everything):
        for container in pod.spec["containers"]:
            environment = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
            for source in container.get("envFrom", []):
                environment |= configs[source["configMapRef"]["name"]]["data"]
            ours = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
            Settings.from_environment(ours)
            seen |= ours
    assert {"TANDEM_PROFILE", "TANDEM_STOP_SECONDS"} <= seen.keys()
    assert seen["TANDEM_MODEL"] == Settings().model


def render_changed(folder: Path, *changes: tuple[str, str, str]) -> list[Document]:
    """The base, with words of its files replaced: file, before, after."""
    shutil.copytree(K8S / "base", folder / "base")
    for name, before, after in changes:
        own = folder / "base" / name
        own.write_text(own.read_text().replace(before, after))
    return render(folder / "base")


def test_another_model_is_two_lines(tmp_path: Path) -> None:
    tag = ("kustomization.yaml", "newTag: fashion-1", "newTag: mine-1")
    documents = render_changed(tmp_path, ("model.env", "fashion\n", "mine\n"), tag)
    page, model = (server(documents, name) for name in ("tfjs", "tf-serving"))
    assert page["startupProbe"]["httpGet"]["path"] == "/tfjs/mine/current.json"
    assert page["readinessProbe"]["httpGet"]["path"] == "/tfjs/mine/current.json"
    assert model["livenessProbe"]["httpGet"]["path"] == "/v1/models/mine"
    assert "fashion" not in yaml.safe_dump([d for d in documents if d["kind"] != "ConfigMap"])


def used(documents: list[Document]) -> set[str]:
    """The images of every container."""
    return {
        container["image"]
        for pod in pods(documents)
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]
    }


def test_images_have_names_that_no_registry_serves(everything: list[Document]) -> None:
    ours = {images.reference(targets.load(name).container.image) for name in targets.NAMES}
    version = {f"{images.REGISTRY}/{name}:fashion-1" for name in ("models", "models-canary")}
    others = {image for image in used(everything) if not image.startswith(f"{images.REGISTRY}/")}
    assert used(everything) - others == ours | version | {images.reference("pipeline")}
    assert {image.split("/")[0] for image in others} == {"gcr.io"}, "with a host, so that nobody guesses one"


def test_production_takes_every_image_from_the_team_s_registry(production: list[Document]) -> None:
    # TensorFlow's own server is the one that compose takes, and is for one architecture.
    assert {image for image in used(production) if not image.startswith(REGISTRY)} == {images.TF_SERVING}
    for pod in pods(production):
        amd64 = images.TF_SERVING in [container["image"] for container in pod.spec["containers"]]
        assert (pod.spec.get("nodeSelector") == AMD64) == amd64, pod.owner
    for account in of_kind(production, "ServiceAccount").values():
        assert account["imagePullSecrets"] == [{"name": "registry"}]


def test_a_registry_reaches_every_kind_of_pod(tmp_path: Path) -> None:
    tags = [
        {"name": ".*/models", "newTag": "mine-7"},
        {"name": ".*/models-canary", "newName": f"{REGISTRY}models", "newTag": "mine-8"},
        {"name": ".*/web", "digest": f"sha256:{'0' * 64}"},
    ]
    documents = render_with(".", ORDER, tmp_path, images=tags)
    foreign = {image for image in used(documents) if not image.startswith(REGISTRY)}
    assert foreign == {images.TF_SERVING, f"{images.TF_SERVING}-gpu", CRANE}
    assert f"{REGISTRY}web@sha256:{'0' * 64}" in used(documents)
    volumes = {
        pod.labels["app.kubernetes.io/instance"]: volume["image"]["reference"]
        for pod in pods(documents)
        for volume in pod.spec["volumes"]
        if "image" in volume
    }
    assert volumes == {"tandem": f"{REGISTRY}models:mine-7", "tandem-canary": f"{REGISTRY}models:mine-8"}
    assert images.REGISTRY not in yaml.safe_dump_all(documents)
    for pod in pods(documents):
        if "pipeline" in str(pod.spec["containers"]) or pod.owner == "Deployment/tf-serving":
            assert pod.spec["nodeSelector"] == AMD64, pod.owner


def test_what_promote_packs_on_is_pinned_as_the_dockerfiles_are(everything: list[Document]) -> None:
    job = of_kind(everything, "CronJob")["promote"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (push,) = job["containers"]
    assert f"--base={BOOKWORM.image}@{BOOKWORM.digest}" in push["args"]


def test_a_model_s_size_is_one_line(tmp_path: Path) -> None:
    documents = render_changed(tmp_path, ("model.env", "512Mi", "9Gi"))
    for name, deployment in of_kind(documents, "Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        sized = ["models", "run"] if name == "torchserve" else ["models"]
        assert [volumes[volume]["emptyDir"]["sizeLimit"] for volume in sized] == ["9Gi"] * len(sized)
        assert spec["initContainers"][0]["resources"]["limits"]["memory"] == "9Gi"


def test_no_probe_starts_python_and_a_loaded_server_has_time_to_answer(everything: list[Document]) -> None:
    for pod in pods(everything):
        for container in pod.spec["containers"]:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe := container.get(kind):
                    assert "python" not in str(probe), pod.owner
                    assert probe["timeoutSeconds"] >= 5, f"{pod.owner} {kind}"


def test_the_tls_secret_can_be_cert_manager_s(tmp_path: Path) -> None:
    documents = render_with(".", ["ingress", "cert-manager"], tmp_path)
    (certificate,) = of_kind(documents, "Certificate").values()
    (ingress,) = of_kind(documents, "Ingress").values()
    (tls,) = ingress["spec"]["tls"]
    assert certificate["spec"]["secretName"] == tls["secretName"]
    assert certificate["spec"]["dnsNames"] == tls["hosts"]


def test_a_rollout_does_not_scale_out(production: list[Document]) -> None:
    slowest_start, two_samples = 38, 30
    for name, autoscaler in of_kind(production, "HorizontalPodAutoscaler").items():
        up = autoscaler["spec"]["behavior"]["scaleUp"]
        assert up["stabilizationWindowSeconds"] > slowest_start + two_samples
        (metric,) = autoscaler["spec"]["metrics"]
        share = metric["resource"]["target"]["averageUtilization"] / 100
        cpu = server(production, name)["resources"]
        assert quantity(cpu["requests"]["cpu"]) * share < quantity(cpu["limits"]["cpu"]) / 2
        assert of_kind(production, "Deployment")[name]["spec"]["minReadySeconds"] > 0


def test_grpc_clients_find_every_pod(tmp_path: Path) -> None:
    services = of_kind(render_with(".", ["headless"], tmp_path), "Service")
    for name in targets.NAMES:
        if "grpc" in targets.load(name).container.ports:
            spec = services[f"{name}-headless"]["spec"]
            assert spec["clusterIP"] == "None"
            assert spec["ports"][0]["port"] == targets.load(name).container.ports["grpc"]


def test_a_new_version_of_the_model_is_a_new_revision_of_each_deployment(tmp_path: Path) -> None:
    def templates(tag: str) -> dict[str, Any]:
        folder = tmp_path / tag
        folder.mkdir()
        chosen = [{"name": f"{images.REGISTRY}/models", "newTag": tag}]
        documents = render_with("overlays/local", [], folder, images=chosen)
        return {name: d["spec"]["template"] for name, d in of_kind(documents, "Deployment").items()}

    first, second = templates("fashion-1"), templates("fashion-2")
    assert first.keys() == set(targets.NAMES)
    assert all(first[name] != second[name] for name in first)
    assert yaml.safe_dump(first).replace("fashion-1", "fashion-2") == yaml.safe_dump(second)


def test_what_to_do_about_an_alert_is_said_for_a_cluster() -> None:
    rules = yaml.safe_load((K8S / "components" / "monitoring" / "rules.yaml").read_text())["spec"]["groups"]
    said = [rule["annotations"]["action"] for group in rules for rule in group["rules"] if "alert" in rule]
    assert said
    assert not [action for action in said if re.search("`make (?!k8s)|docker", action)]


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
