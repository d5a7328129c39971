"""What `kubectl kustomize` makes of k8s/: its documents, and the pods in them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

K8S = Path(__file__).parents[2] / "k8s"
KUBECTL = Path(sys.executable).with_name("kubectl")
OLDEST = "1.32"
"""The oldest kubectl whose renderings are the documented ones."""
COMPONENTS = sorted(
    path.parent.relative_to(K8S / "components").as_posix()
    for path in (K8S / "components").rglob("kustomization.yaml")
    if "kind: Component" in path.read_text()
)
"""Every component, by its path below components/; one within another (`training/promote`) needs that one too."""
LAST = ("registry", "tensorflow-serving", "gpu")
"""Those that change what the others bring."""
ORDER = [*(name for name in COMPONENTS if name not in LAST), *LAST]
"""Every component, in the order that the READMEs ask for."""
PATCHING = [
    name
    for name in COMPONENTS
    if "patches:" in (K8S / "components" / name / "kustomization.yaml").read_text()
]
"""Those that change what there is; the others only add."""


@dataclass(frozen=True)
class Pod:
    """A pod that a document asks for: whose it is, its labels, and its spec."""

    owner: str
    labels: dict[str, str]
    spec: Document


def render(folder: Path) -> list[Document]:
    """The documents of a kustomization, which stays as it is from its first rendering on."""
    return [document for document in yaml.load_all(rendered(folder), yaml.CSafeLoader) if document]


@functools.cache
def rendered(folder: Path, kubectl: Path = KUBECTL) -> str:
    """What kubectl writes for a kustomization."""
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def render_with(overlay: str, components: Sequence[str], folder: Path, **more: object) -> list[Document]:
    """The documents of an overlay with components and `more` fields, as a user would write it, in an empty `folder`."""
    kustomization: Document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(K8S / overlay, folder)],
        "components": [
            os.path.relpath(K8S / "components" / name, folder) for name in with_parents(components)
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization | more))
    return render(folder)


def other_kubectl() -> Path | None:
    """A kubectl on the PATH that is older than the pinned one; None where there is none."""
    folders = [f for f in os.get_exec_path() if Path(f).resolve() != KUBECTL.parent.resolve()]
    found = shutil.which("kubectl", path=os.pathsep.join(folders))
    return Path(found) if found else None


def with_parents(components: Sequence[str]) -> list[str]:
    """The components, each behind the one that it lies in."""
    whole: list[str] = []
    for name in components:
        parent = name.rpartition("/")[0]
        whole += [each for each in (parent, name) if each and each not in whole]
    return whole


def name_of(document: Document) -> str:
    """Kind and name."""
    return f"{document['kind']}/{document['metadata']['name']}"


def of_kind(documents: Sequence[Document], kind: str) -> dict[str, Document]:
    """The documents of one kind, by name."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pods(documents: Sequence[Document]) -> Iterator[Pod]:
    """The pod of every document that has one."""
    runtimes = of_kind(documents, "ServingRuntime")
    for document in documents:
        match document["kind"]:
            case "Deployment" | "Job":
                template = document["spec"]["template"]
            case "CronJob":
                template = document["spec"]["jobTemplate"]["spec"]["template"]
            case "InferenceService":
                # KServe merges the predictor into the pod of its runtime.
                predictor = document["spec"]["predictor"]
                spec = runtimes[predictor["model"]["runtime"]]["spec"]
                template = {
                    "metadata": {"labels": predictor["labels"]},
                    "spec": predictor | {"containers": spec["containers"]},
                }
            case _:
                continue
        yield Pod(name_of(document), template["metadata"]["labels"], template["spec"])
