"""What a platform team asks of manifests: Pod Security "restricted", and what its own review would ask beside it.

Each function yields what is wrong, a line each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from tests.k8s.manifests import Document, Pod, name_of, of_kind, pods

LABELS = ("name", "part-of", "managed-by")
VOLUMES = {"configMap", "emptyDir", "image", "persistentVolumeClaim", "secret"}
"""Of those that "restricted" allows (`image` since Kubernetes 1.33), the ones that we use."""
FACTORS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}


def faults(documents: Sequence[Document]) -> Iterator[str]:
    """All that is wrong."""
    for document in documents:
        yield from (f"{name_of(document)}: {fault}" for fault in _document(document))
    for pod in pods(documents):
        checks = (_pod(pod.spec), _volumes(pod.spec), _account(pod, documents), *map(_container, _all(pod)))
        if not pod.owner.startswith(("Job/", "CronJob/")):
            checks += (_server(pod),)
        yield from (f"{pod.owner}: {fault}" for fault in chain(*checks))


def _document(document: Document) -> Iterator[str]:
    metadata = document["metadata"]
    for label in LABELS:
        if not metadata.get("labels", {}).get(f"app.kubernetes.io/{label}"):
            yield f"has no label app.kubernetes.io/{label}"
    match document["kind"]:
        case "Namespace":
            for mode in ("enforce", "audit", "warn"):
                if metadata["labels"].get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                    yield f"does not {mode} Pod Security restricted"
            return
        case "ServiceAccount":
            if document["automountServiceAccountToken"] is not False:
                yield "mounts its token"
        case "Deployment":
            spec = document["spec"]
            if spec["strategy"] != {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            }:
                yield f"strategy is {spec['strategy']}"
            if not spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items():
                yield "does not select its own pods"
            if "revisionHistoryLimit" not in spec:
                yield "has no revisionHistoryLimit"
            if "replicas" in spec:
                yield "sets replicas, which an autoscaler would have to fight for"
    if metadata.get("namespace") != "tandem":
        yield f"is in namespace {metadata.get('namespace')}"


def _pod(spec: Document) -> Iterator[str]:
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile RuntimeDefault"
    if "fsGroup" not in context:
        yield "has no fsGroup, so its volumes may not be its own"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"has {field}"
    if spec.get("automountServiceAccountToken") is not False:
        yield "mounts a service account token"
    if spec.get("enableServiceLinks") is not False:
        yield "gets a variable for each Service"


def _volumes(spec: Document) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for name, volume in volumes.items():
        kinds = volume.keys() - {"name"}
        if not kinds <= VOLUMES or len(kinds) != 1:
            yield f"volume {name} is {sorted(kinds)}"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {name} has no sizeLimit"
        if "image" in volume:
            yield from _image(volume["image"]["reference"])
    for container in spec.get("initContainers", []) + spec["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{container['name']} mounts {mount['name']}, which is not there"


def _account(pod: Pod, documents: Sequence[Document]) -> Iterator[str]:
    if pod.spec.get("serviceAccountName") not in of_kind(documents, "ServiceAccount"):
        yield f"its service account is {pod.spec.get('serviceAccountName')}, which is not there"
    for volume in pod.spec["volumes"]:
        wanted = volume.get("configMap", {}).get("name")
        if wanted and wanted not in of_kind(documents, "ConfigMap"):
            yield f"reads ConfigMap {wanted}, which is not there"
    for container in _all(pod):
        for source in container.get("envFrom", []):
            if source["configMapRef"]["name"] not in of_kind(documents, "ConfigMap"):
                yield f"reads ConfigMap {source['configMapRef']['name']}, which is not there"


def _container(container: Document) -> Iterator[str]:
    name, context = container["name"], container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield f"{name} may gain privileges"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name} keeps capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name} may write its root"
    if context.keys() & {"runAsUser", "runAsNonRoot", "seccompProfile"}:
        yield f"{name} has a rule of its own where the pod's should hold"
    if container.get("imagePullPolicy") != "IfNotPresent":
        yield f"{name} asks for its pinned image anew"
    yield from _image(container["image"])
    resources = container.get("resources", {})
    for what in ("cpu", "memory"):
        wanted, most = (resources.get(kind, {}).get(what) for kind in ("requests", "limits"))
        if not wanted or not most:
            yield f"{name} has no request or no limit of {what}"
        elif quantity(wanted) > quantity(most):
            yield f"{name} requests more {what} than its limit"


def _image(image: str) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9./-]+(:(?!latest$)[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})", image):
        yield f"image {image} is not pinned"


def _server(pod: Pod) -> Iterator[str]:
    """What must hold for a pod that answers requests."""
    (container,) = pod.spec["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind)
        if not probe:
            yield f"has no {kind}"
            continue
        where = probe.get("httpGet") or probe.get("tcpSocket")
        if where and where["port"] not in (*ports, *ports.values()):
            yield f"{kind} asks port {where['port']}, which is not there"
        if probe.get("timeoutSeconds", 1) < 3:
            yield f"{kind} does not wait for a busy server"
    asks = [container.get(kind, {}) for kind in ("startupProbe", "readinessProbe", "livenessProbe")]
    startup, ready, alive = (
        (probe.get("httpGet"), probe.get("exec"), probe.get("tcpSocket")) for probe in asks
    )
    if startup != ready:
        yield "starts by another question than the one that makes it ready"
    if alive == ready:
        yield "is killed where it should only get no requests"
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if not 0 < pause < pod.spec.get("terminationGracePeriodSeconds", 0):
        yield "does not wait until it is out of every list before it stops"


def _all(pod: Pod) -> list[Document]:
    return [*pod.spec.get("initContainers", []), *pod.spec["containers"]]


def quantity(text: str) -> float:
    """Kubernetes's notation of an amount, as a number."""
    found = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi|)", text)
    assert found, text
    return float(found[1]) * FACTORS[found[2]]
