"""What a version is made from, and where what is made of it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models.base
from models.base import Model
from pipelines import data, fingerprint, lineage
from pipelines.data import Dataset
from pipelines.lineage import Artifact
from pipelines.rollout import Report
from pipelines.training.record import Trained
from serving import progress, repository, targets
from serving.settings import Settings


@dataclass(frozen=True)
class Sources:
    """What a version is made from, before anything is made."""

    settings: Settings
    model: Model
    dataset: Dataset
    training: str
    version: str
    orchestrator: str = "default"
    """Who trains the TensorFlow side: the default runner or `tfx`."""

    @property
    def run(self) -> Path:
        """Where this training lies; trainings of other sources lie beside it."""
        name = f"{self.model.spec.name}-{self.settings.profile}-seed{self.settings.seed}-{self.training[:10]}"
        return self.settings.artifacts / "runs" / name

    @property
    def candidate(self) -> Path:
        """Where the artifacts wait for their gates."""
        return self.settings.artifacts / "candidates" / f"{self.model.spec.name}-{self.version[:10]}"

    def source(self, target: str) -> str:
        """The framework whose weights go to a target."""
        return self.settings.source or targets.load(target).source

    @property
    def parameters(self) -> dict[str, Any]:
        """What a version is trained and exported with."""
        own = self.settings
        return {
            "profile": own.profile,
            "seed": own.seed,
            "source": own.source,
            "torchserve_form": own.torchserve_form,
            "orchestrator": self.orchestrator,
        }

    @property
    def examples(self) -> Artifact:
        """The pictures, as the lineage names them."""
        name = self.model.spec.data.name
        return Artifact("Examples", name, f"data/{name}", self.dataset.digest)

    def model_artifact(self, trained: Trained) -> Artifact:
        """A training's weights, as the lineage names them."""
        folder = self.run / trained.framework
        return self.artifact("Model", trained.framework, folder, trained.digest)

    def candidates(self) -> list[Artifact]:
        """The artifacts that wait for their gates, as the lineage names them."""
        folders = {target: self.candidate / target for target in targets.NAMES}
        return [
            self.artifact("ExportedModel", target, folder, lineage.digest(repository.read_seal(folder)))
            for target, folder in folders.items()
        ]

    def artifact(self, type: str, name: str, path: Path, digest: str | None = None) -> Artifact:
        """Something below the artifacts' folder; a file's digest is its content's."""
        uri = path.relative_to(self.settings.artifacts).as_posix()
        return Artifact(type, name, uri, repository.file_digest(path) if digest is None else digest)


def load(settings: Settings, report: Report) -> Sources:
    """Load the model and its data."""
    model = models.base.load(settings.model)
    model.spec.profile(settings.profile)
    report(f"data: {model.spec.data.name}")
    cache = settings.artifacts / "data" / model.spec.data.name
    dataset = data.load(model.spec.data, cache, settings.seed, progress.advance)
    trained = fingerprint.training(model, settings.profile, settings.seed, dataset.digest)
    version = fingerprint.version_of(model, trained, settings.source, settings.torchserve_form)
    return Sources(settings, model, dataset, trained, version)
