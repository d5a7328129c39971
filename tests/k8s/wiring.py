"""Whether the documents of a cluster find each other: selectors, ports, targets of autoscalers and routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.k8s.manifests import Document, Pod, name_of, of_kind, pods


def faults(documents: Sequence[Document]) -> Iterator[str]:
    """What refers to something that is not there, or to too much, a line each."""
    running = list(pods(documents))
    services = of_kind(documents, "Service")
    for document in documents:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Service":
                found = [pod for pod in running if matches({"matchLabels": spec["selector"]}, pod)]
                problems = _one(found) or _ports(found, [port["targetPort"] for port in spec["ports"]])
            case "PodDisruptionBudget":
                problems = _one([pod for pod in running if matches(spec["selector"], pod)])
            case "HorizontalPodAutoscaler":
                wanted = spec["scaleTargetRef"]["name"]
                problems = [] if wanted in of_kind(documents, "Deployment") else [f"no Deployment {wanted}"]
                problems += [] if wanted == document["metadata"]["name"] else [f"scales {wanted}"]
            case "NetworkPolicy":
                found = [pod for pod in running if matches(spec["podSelector"], pod)]
                named = [port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
                # A port of another name is no fault of a pod that has none: any of them will do.
                offered = {port for pod in found for port in container_ports(pod)}
                problems = [f"no pod has port {port}" for port in named if port not in offered]
                problems += [] if found else ["selects no pod"]
            case "PodMonitor":
                found = [pod for pod in running if matches(spec["selector"], pod)]
                named = [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]]
                problems = _ports(found, named) if found else ["selects no pod"]
            case "Ingress":
                backends = [p["backend"]["service"] for r in spec["rules"] for p in r["http"]["paths"]]
                problems = _backends(services, [(b["name"], b["port"]["name"]) for b in backends])
            case "HTTPRoute":
                backends = [backend for rule in spec["rules"] for backend in rule["backendRefs"]]
                problems = _backends(services, [(b["name"], b["port"]) for b in backends])
            case _:
                continue
        yield from (f"{name_of(document)}: {problem}" for problem in problems)


def matches(selector: Document, pod: Pod) -> bool:
    """Whether a label selector finds a pod."""
    if not selector.get("matchLabels", {}).items() <= pod.labels.items():
        return False
    for expression in selector.get("matchExpressions", []):
        inside = pod.labels.get(expression["key"]) in expression["values"]
        if inside != {"In": True, "NotIn": False}[expression["operator"]]:
            return False
    return True


def container_ports(pod: Pod) -> dict[str, int]:
    """The ports of a pod's containers, by name."""
    return {
        port["name"]: port["containerPort"]
        for each in pod.spec["containers"]
        for port in each.get("ports", [])
    }


def _one(found: Sequence[Pod]) -> list[str]:
    owners = sorted(pod.owner for pod in found)
    return [] if len(owners) == 1 else [f"selects the pods of {owners or 'nobody'}"]


def _ports(found: Sequence[Pod], named: Sequence[str]) -> list[str]:
    return [
        f"{pod.owner} has no port {port}"
        for pod in found
        for port in named
        if port not in container_ports(pod)
    ]


def _backends(services: dict[str, Document], wanted: Sequence[tuple[str, Any]]) -> list[str]:
    offered = {
        (name, port[key])
        for name, service in services.items()
        for port in service["spec"]["ports"]
        for key in ("name", "port")
    }
    return [
        f"there is no Service {name} with port {port}" for name, port in wanted if (name, port) not in offered
    ]
