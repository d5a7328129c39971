"""The rows of a comparison: deployed endpoints, and servers that run only during the comparison."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from models.base import Model, ModelError
from models.data import Dataset
from pipelines import exporting
from pipelines.cli import variants
from pipelines.cli.variants import KERAS, Variant
from pipelines.exporting.base import ExportError
from pipelines.gates import GateError
from serving import platforms, repository, targets
from serving.compare import conditions, executorch, local, servers
from serving.compare.measure import Subject
from serving.compare.report import DEVICE, FAILED, IN_PROCESS, NULL, UNREACHABLE, VARIANT, Row
from serving.compare.servers import Server
from serving.errors import TandemError
from serving.platforms.base import TargetState
from serving.platforms.process import memory_of
from serving.repository import Manifest
from serving.settings import Settings
from serving.targets.base import SAMPLES, TargetError, runs

Say = Callable[[str], None]
PROTOCOLS = {"onnxruntime": "oip", "litert": "oip", "tf-serving": "tfs", "torchserve": "torchserve"}
"""The protocols that name the servers without a model."""
LOCAL = (*local.BACKENDS, "torchserve")
"""Targets whose runtimes run in this process."""


@dataclass
class Rows:
    """The rows of a published version. The servers that they need end with `stack`."""

    settings: Settings
    model: Model
    dataset: Dataset
    version: int
    names: list[str]
    stack: ExitStack
    say: Say
    source: str = ""
    """The framework whose weights every row must have; "" leaves those of the version."""
    subjects: list[Subject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Rows that are left out, each with its reason."""

    def deployed(self) -> None:
        """Add a row for each running endpoint, or one with the reason why there is none."""
        states = platforms.choose(self.settings)[0].states(self.settings)
        for name in self._with_source():
            found = self._deployed(name, states.get(name))
            if found[0].row.works:
                self.say(f"{name}: a second server, for the time from its start to ready")
                try:
                    with servers.again(targets.load(name), self.settings, self.version) as second:
                        for subject in found:
                            subject.row.start_seconds = second.start_seconds
                except (TandemError, OSError) as error:
                    self.say(f"{name}: its start cannot be measured: {error}")
            self.subjects += found

    def converted(self) -> None:
        """Add rows, with weights of `source`, of the targets whose version has the other framework's."""
        for name in (name for name in self.names if name not in self._with_source()):
            self._variant(Variant(name, f"from {self.source}", source=self.source), self.source)

    def _with_source(self) -> list[str]:
        return [name for name in self.names if self.source in ("", self._manifest(name).source)]

    def baselines(self) -> None:
        """Add rows of each runtime in process, of each server without a model, and of no server at all."""
        self.subjects.append(Subject(Row("null", local.NOTHING, "-", "nothing", kind=NULL)))
        for name in self._with_source():
            if name in LOCAL:
                self._in_process(name, "", self.settings)
        for name in {PROTOCOLS[name]: name for name in self.names if name in PROTOCOLS}.values():
            row = Row("null", "-", "-", "no model", kind=NULL, variant=PROTOCOLS[name])
            self._started(row, name, partial(variants.null, self.settings, name, self.model, self.version))

    def variants(self) -> None:
        """Add rows of the variants of the published version, each with its runtime in process."""
        form = str(self._manifest("torchserve").parameters.get("torchserve_form", ""))
        if "torchserve" in self.names and "pytorch" not in self.model.frameworks:
            self.notes.append(f"executorch is left out: {self.model.spec.name} has no network in PyTorch")
        for chosen in variants.chosen(self.model, self.names, form):
            if chosen.source and self.source:
                continue
            published = self._manifest(chosen.base).source
            source = chosen.source or self.source or published
            variant = replace(chosen, source="" if source == published else source)
            self._variant(variant, source, variant.batched if variant.configuration else None)

    def _variant(self, variant: Variant, source: str, batched: bool | None = None) -> None:
        """Add the rows of a variant with weights of `source`, and of its runtime in process."""
        target, name, precision = variant.target, variant.name, variant.precision
        row = Row(target, "-", source, "-", kind=VARIANT, variant=name, precision=precision)
        self.say(f"{target} {name}: export and gate")
        make = partial(variants.make, self.settings, variant, self.model, self.dataset, self.version)
        if target == variants.EXECUTORCH:
            row.protocol, row.kind = local.IN_PROCESS, DEVICE
            try:
                executorch.require()
                self._in_process(target, name, make(), precision, DEVICE)
            except (TandemError, OSError) as error:
                self._refused(row, error)
            return
        settings = self._started(row, target, make, batched)
        if settings is not None and target in LOCAL:
            self._in_process(target, name, settings, precision)

    def _started(
        self, row: Row, target: str, make: Callable[[], Settings], batched: bool | None = None
    ) -> Settings | None:
        """Start a target's server on the settings of `make`, and add its rows; None if it fails."""
        try:
            own, loaded = make(), targets.load(target)
            server = self.stack.enter_context(servers.started(loaded, own, self.version))
            clients = loaded.clients(server.settings)
        except (TandemError, OSError) as error:
            self._refused(row, error)
            return None
        folder = repository.version_dir(own.repository, target, own.model, self.version)
        manifest = repository.read_manifest(folder)
        row.server, row.runs = loaded.server, runs(own, target, self.version)
        row.conditions = conditions.of(target, manifest, server.pid, batched)
        row.artifact_bytes = _size(folder)
        for protocol, client in clients.items():
            client.close()
            self._add(row, protocol, server, target=target)
        return server.settings

    def _add(self, row: Row, protocol: str, server: Server, **how: Any) -> None:  # noqa: ANN401
        own = copy.deepcopy(row)
        own.protocol, own.start_seconds = protocol, server.start_seconds
        # What runs in a browser is not in the process that serves its files.
        pid = 0 if row.target == "tfjs" else server.pid
        self.subjects.append(Subject(own, pid, partial(_memory, pid), server.settings, **how))

    def _refused(self, row: Row, error: Exception) -> None:
        if row.framework == KERAS and isinstance(error, ModelError):
            note = f"{row.way} is left out: {error}"
            self.say(note)
            self.notes.append(note)
            return
        row.state = FAILED if isinstance(error, GateError | ExportError) else UNREACHABLE
        row.reason = " ".join(str(error).split())[:600]
        self.say(f"{row.name}: {row.reason}")
        self.subjects.append(Subject(row))

    def _in_process(
        self,
        target: str,
        variant: str,
        settings: Settings,
        precision: str = "float32",
        kind: str = IN_PROCESS,
    ) -> None:
        folder = repository.version_dir(settings.repository, target, settings.model, self.version)
        manifest = repository.read_manifest(folder)
        row = Row(target, local.IN_PROCESS, manifest.source, manifest.runtime, kind=kind)
        row.variant, row.precision, row.artifact_bytes = variant, precision, _size(folder)
        self.subjects.append(Subject(row, settings=settings))

    def _folder(self, target: str) -> Path:
        return repository.version_dir(self.settings.repository, target, self.settings.model, self.version)

    def _manifest(self, target: str) -> Manifest:
        return repository.read_manifest(self._folder(target))

    def _deployed(self, name: str, state: TargetState | None) -> list[Subject]:
        target, manifest = targets.load(name), self._manifest(name)
        image = state.image if state else ""
        row = Row(name, "-", manifest.source, runs(self.settings, name, self.version, image))
        row.server, row.image_bytes = target.server, _image_bytes(image)
        row.artifact_bytes = _size(self._folder(name))
        # What runs in a browser is not in the process that serves its files.
        pid = state.pid or 0 if state and name != "tfjs" else 0
        row.conditions = conditions.of(name, manifest, pid)
        # It may have been started elsewhere: on a cluster it answers through a forwarded port.
        if target.served_version(self.settings) != self.version:
            row.state = UNREACHABLE
            row.reason = f"does not answer with version {self.version}; `make deploy` starts it"
            return [Subject(row)]
        try:
            clients = target.clients(self.settings)
        except TargetError as error:
            row.state, row.reason = FAILED, str(error)
            return [Subject(row)]

        def memory() -> int | None:
            now = platforms.choose(self.settings)[0].states(self.settings).get(name)
            return now.memory if now and pid else None

        subjects = []
        for protocol, client in clients.items():
            client.close()
            endpoint = copy.deepcopy(row)
            endpoint.protocol = protocol
            subjects.append(Subject(endpoint, pid, memory))
        return subjects


def _size(folder: Path) -> int:
    """Return the bytes of the served files: without manifest, samples, and files of other precisions."""
    manifest = repository.read_manifest(folder)
    others = {*exporting.load(manifest.target).files.values()} - {manifest.serve}
    beside = {repository.MANIFEST, repository.GOLDEN, *others}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in beside]
    return sum(path.stat().st_size for path in files if SAMPLES not in path.parts)


def _memory(pid: int) -> int | None:
    try:
        return memory_of(pid) if pid else None
    except psutil.Error:
        return None


def _image_bytes(image: str) -> int | None:
    if not image:
        return None
    from serving.platforms import engine

    with engine.opened() as docker:
        return int(docker.images.get(image).attrs["Size"])
