"""The rendered manifests as pods of Podman: what of a cluster is missing there is made up for here, line by line."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import yaml

from tests.k8s import probes
from tests.k8s.manifests import Document, of_kind, pods
from tests.k8s.podman import Podman
from tests.k8s.wiring import container_ports, matches

Report = Callable[[str], object]
HostPorts = Mapping[str, Mapping[int, int]]

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
LOADERS = 2
"""Images that are taken over at once: one is written by Docker while the other is read by Podman."""


@dataclass(frozen=True)
class PlayedPod:
    """A Deployment's pod. `ports` gives the port on this host for the container's, by name and number."""

    name: str
    spec: Document
    container: str
    ports: Mapping[str | int, int]

    @property
    def server(self) -> Document:
        """The manifest's own word on the container that serves."""
        (server,) = self.spec["containers"]
        described: Document = server
        return described


class Pods:
    """The Deployments among `documents`, each as one pod; `host_ports` gives, by Deployment, a free port for each of
    its container."""

    def __init__(self, podman: Podman, documents: Sequence[Document], host_ports: HostPorts) -> None:
        self.podman = podman
        self.deployments = of_kind(documents, "Deployment")
        self.config_maps = of_kind(documents, "ConfigMap")
        self.host_ports = host_ports
        addresses = podman.addresses(len(self.deployments))
        self.addresses = dict(zip(self.deployments, addresses, strict=True))
        self.names = {service: self.addresses[name] for service, name in behind(documents).items()}
        self.pods: dict[str, PlayedPod] = {}

    def images(self) -> set[str]:
        """What the containers are made from."""
        specs = [one["spec"]["template"]["spec"] for one in self.deployments.values()]
        return {c["image"] for spec in specs for c in (*spec["initContainers"], *spec["containers"])}

    def up(self, report: Report) -> None:
        """Take over the images and start the pods; does not wait until they are ready."""
        started = time.monotonic()
        inits = {c["image"] for d in self.deployments.values() for c in _pod_spec(d)["initContainers"]}
        for image in sorted(inits):
            self.podman.load(image)

        def bring(name: str) -> None:
            for container in _pod_spec(self.deployments[name])["containers"]:
                self.podman.load(container["image"])
            self.pods[name] = self._play(name)
            report(f"{name}: playing after {time.monotonic() - started:.0f} s")

        with ThreadPoolExecutor(LOADERS) as pool:
            try:
                for done in [pool.submit(bring, name) for name in self.deployments]:
                    done.result()
            except BaseException:
                # Ctrl-C is no moment to go on with the next image.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def ready(self, name: str) -> bool:
        """Wait as the kubelet would, which asks the startup probe first; False where it would give up."""
        pod = self.pods[name]
        return all(
            probes.wait(self.podman, pod.container, pod.ports, pod.server[probe])
            for probe in ("startupProbe", "readinessProbe")
        )

    def passes(self, name: str, probe: str) -> bool:
        """Ask one probe of a pod once."""
        pod = self.pods[name]
        return probes.passes(self.podman, pod.container, pod.ports, pod.server[probe])

    def log(self, name: str) -> str:
        """The end of a server's log."""
        return self.podman("logs", "--tail=40", self.pods[name].container, errors=True)

    def _play(self, name: str) -> PlayedPod:
        deployment = self.deployments[name]
        played = translate(deployment, self.config_maps, self.names, self.host_ports[name])
        file = self.podman.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all([*self.config_maps.values(), played]))
        options = f"--network={self.podman.network}", f"--ip={self.addresses[name]}"
        self.podman("kube", "play", *options, str(file))
        spec = _pod_spec(deployment)
        (server,) = spec["containers"]
        # Podman puts names of its own before the container's; which ones depends on its version.
        label = f"label=app.kubernetes.io/name={name}"
        names = self.podman("ps", "--all", f"--filter={label}", "--format={{.Names}}").split()
        (container,) = [one for one in names if one.endswith(f"-{server['name']}")]
        ports: dict[str | int, int] = {}
        for port in server["ports"]:
            ports[port["name"]] = ports[port["containerPort"]] = self.host_ports[name][port["containerPort"]]
        return PlayedPod(name, spec, container, ports)


def translate(
    deployment: Document,
    config_maps: Mapping[str, Document],
    names: Mapping[str, str],
    host_ports: Mapping[int, int],
) -> Document:
    """What Podman is given for a Deployment. `names` gives the address behind each Service."""
    played = copy.deepcopy(deployment)
    own, spec = played["metadata"]["name"], _pod_spec(played)
    # Under Always, which a Deployment has, Podman 4.3 starts an init container again that has ended well. A server
    # that is killed comes back under this too.
    spec["restartPolicy"] = "OnFailure"
    # No Service is played, and so no name is found by DNS.
    spec["hostAliases"] = [{"ip": address, "hostnames": [name]} for name, address in names.items()]
    for container in (*spec["initContainers"], *spec["containers"]):
        # The kubelet replaces $(NAME), Podman 4.3 does not.
        variables = _environment(container, config_maps)
        for words in ("command", "args"):
            if words in container:
                container[words] = [_expanded(word, variables) for word in container[words]]
        # probes.py asks them.
        for probe in PROBES:
            container.pop(probe, None)
        # The way in that a Service or a port-forward is; else Podman publishes every port on all addresses.
        for port in container.get("ports", []):
            port |= {"hostIP": "127.0.0.1", "hostPort": host_ports[port["containerPort"]]}
        for mount in container["volumeMounts"]:
            mount["name"] = f"{own}-{mount['name']}"
    # An emptyDir is one of Podman's volumes, and those of one name are one volume for all pods.
    for volume in spec["volumes"]:
        volume["name"] = f"{own}-{volume['name']}"
    return played


def behind(documents: Sequence[Document]) -> dict[str, str]:
    """Which Deployment answers behind each Service. Raises `ValueError` where a port leads to another number: that
    needs more than a name in /etc/hosts."""
    found = {}
    for name, service in of_kind(documents, "Service").items():
        selector = {"matchLabels": service["spec"]["selector"]}
        (pod,) = [pod for pod in pods(documents) if matches(selector, pod)]
        for port in service["spec"]["ports"]:
            number = container_ports(pod)[port["targetPort"]]
            if number != port["port"]:
                raise ValueError(
                    f"port {port['port']} of the Service {name} leads to {number}: expected the same number"
                )
        found[name] = pod.owner.removeprefix("Deployment/")
    return found


def _environment(container: Document, config_maps: Mapping[str, Document]) -> dict[str, str]:
    """The variables of a container that are written down; a later word on one holds."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= config_maps[source["configMapRef"]["name"]]["data"]
    return found | {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}


def _expanded(word: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        word = word.replace(f"$({name})", value)
    return word


def _pod_spec(deployment: Document) -> Document:
    spec: Document = deployment["spec"]["template"]["spec"]
    return spec
