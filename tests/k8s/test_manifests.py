"""Every overlay and every combination of components renders, is valid, is safe, and holds together."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.settings import Settings
from tests.k8s import policy, schemas, wiring
from tests.k8s.manifests import (
    COMPONENTS,
    K8S,
    OLDEST,
    ORDER,
    PATCHING,
    Document,
    name_of,
    of_kind,
    other_kubectl,
    pods,
    render,
    render_with,
    rendered,
)

OVERLAYS = (".", "overlays/local", "overlays/production")


def faults(documents: Sequence[Document]) -> list[str]:
    valid = [fault for version in schemas.VERSIONS for fault in schemas.faults(documents, version)]
    names = [f"{document.get('apiVersion')} {name_of(document)}" for document in documents]
    twice = [f"{name} stands twice" for name in set(names) if names.count(name) > 1]
    # What is not valid cannot be judged.
    return valid or [*twice, *policy.faults(documents), *wiring.faults(documents)]


@pytest.fixture(scope="module")
def local() -> list[Document]:
    return render(K8S / "overlays" / "local")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_in_order(overlay: str) -> None:
    assert faults(render(K8S / overlay)) == []


@pytest.mark.parametrize("order", [pytest.param(COMPONENTS, marks=pytest.mark.thorough), COMPONENTS[::-1]])
def test_all_components_at_once_are_in_order(order: list[str], tmp_path: Path) -> None:
    assert faults(render_with("overlays/local", order, tmp_path)) == []


def test_an_older_kubectl_renders_the_same(tmp_path: Path) -> None:
    older = other_kubectl()
    if older is None:
        pytest.skip(f"there is no other kubectl on the PATH; kubectl {OLDEST} should be one")
    render_with("overlays/local", ORDER, tmp_path, images=[{"name": ".*/models", "newTag": "mine-7"}])
    for folder in (*(K8S / overlay for overlay in OVERLAYS), tmp_path):
        assert rendered(folder, older) == rendered(folder), f"{folder} by {older}"
    assert "reference: registry.example.com/tandem/models:mine-7\n" in rendered(tmp_path, older)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_each_component_and_each_pair_of_those_that_patch_is_in_order(tmp_path: Path) -> None:
    combinations = [*itertools.combinations(COMPONENTS, 1), *itertools.combinations(PATCHING, 2)]

    def check(combination: Sequence[str]) -> list[str]:
        folder = tmp_path / "+".join(combination).replace("/", "-")
        folder.mkdir()
        return [f"{combination}: {fault}" for fault in faults(render_with(".", combination, folder))]

    with ThreadPoolExecutor(2) as threads:
        assert list(itertools.chain(*threads.map(check, combinations))) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_says_which_line_turns_it_on(component: str) -> None:
    text = (K8S / "components" / component / "README.md").read_text()
    assert f"- ../../components/{component}\n" in text
    assert len(text.splitlines()) < 40


def server(documents: list[Document]) -> Document:
    (pod,) = (pod for pod in pods(documents) if pod.owner == "Deployment/litert")
    container: Document = pod.spec["containers"][0]
    return container


def service(documents: list[Document]) -> Document:
    return of_kind(documents, "Service")["litert"]


BREAKS: dict[str, Callable[[list[Document]], object]] = {
    "spec.replica": lambda d: of_kind(d, "Deployment")["litert"]["spec"].update(replica=1),
    "'http' is not of type 'integer'": lambda d: server(d)["ports"][0].update(containerPort="http"),
    "has no readinessProbe": lambda d: server(d).pop("readinessProbe"),
    "may write its root": lambda d: server(d)["securityContext"].pop("readOnlyRootFilesystem"),
    "keeps capabilities": lambda d: server(d)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
    "no limit of memory": lambda d: server(d)["resources"]["limits"].pop("memory"),
    "requests more cpu": lambda d: server(d)["resources"]["requests"].update(cpu="3"),
    "litert:latest is not pinned": lambda d: server(d).update(image="tandem.invalid/litert:latest"),
    "out of every list": lambda d: server(d).pop("lifecycle"),
    "selects the pods of nobody": lambda d: service(d)["spec"].update(selector={"a": "b"}),
    "has no port http": lambda d: server(d)["ports"][0].update(name="web"),
    "which is not there": lambda d: d.remove(of_kind(d, "ServiceAccount")["litert"]),
    "has no label app.kubernetes.io/part-of": lambda d: service(d)["metadata"].pop("labels"),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_a_fault_is_found(local: list[Document], fault: str) -> None:
    documents = copy.deepcopy(local)
    BREAKS[fault](documents)
    assert fault.replace("spec.replica", "'replica' was unexpected") in "\n".join(faults(documents))


def test_the_nodes_of_a_training_find_each_other(tmp_path: Path) -> None:
    documents = render_with(".", ["training/nodes"], tmp_path)
    job, service = of_kind(documents, "Job")["train"]["spec"], of_kind(documents, "Service")["train"]["spec"]
    pod = job["template"]["spec"]
    told = {each["name"]: each.get("value", each.get("valueFrom")) for each in pod["containers"][0]["env"]}
    settings = Settings.from_environment({k: v for k, v in told.items() if isinstance(v, str)})
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 2, settings.nodes)
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert told["TANDEM_NODE_RANK"] == {"fieldRef": {"fieldPath": index}}
    # A pod of an indexed Job is called by its index; its Service is headless, and named as its subdomain.
    assert settings.master_addr == f"train-0.{pod['subdomain']}.tandem.svc.cluster.local"
    assert (pod["subdomain"], service["clusterIP"]) == ("train", "None")
    assert service["ports"][0]["port"] == settings.master_port


def test_a_container_outside_of_the_rules_is_found_in_every_kind_of_pod(tmp_path: Path) -> None:
    documents = render_with("overlays/local", ["kserve", "training/promote"], tmp_path)
    for pod in pods(documents):
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]:
            container["securityContext"] = {"privileged": True}
    blamed = {fault.split(":")[0] for fault in policy.faults(documents) if "may gain privileges" in fault}
    assert {owner.split("/")[0] for owner in blamed} == {"Deployment", "Job", "CronJob", "InferenceService"}
