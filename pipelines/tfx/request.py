"""The request to the DAG and its answer: JSON files between two processes of different environments."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from models.base import Profile
from pipelines.gates import Check
from serving.repository import write_atomically

IN_MEMORY = "--direct_running_mode=in_memory"
REFUSED = 3
"""The exit status of a run that a gate stopped."""


@dataclass(frozen=True)
class Request:
    """One run of the DAG. Paths are absolute, and the same on both sides."""

    model: str
    profile: Profile
    seed: int
    folder: Path
    """The state of this model's runs: records, artifacts, ML Metadata."""
    records: Path
    """The rows of every split, as `examples.write` writes them."""
    published: str = ""
    """The statistics of the published version, as JSON; "" where nothing is published."""
    version: int = 0
    """The published version."""
    server_image: str = ""
    """The image in which InfraValidator runs the model; "" leaves InfraValidator out."""
    beam: tuple[str, ...] = (IN_MEMORY,)

    @property
    def metadata(self) -> Path:
        """ML Metadata's SQLite file."""
        return self.folder / "metadata.sqlite"

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1, default=str) + "\n")

    @classmethod
    def read(cls, path: Path) -> Request:
        fields = json.loads(path.read_text())
        fields |= {"profile": Profile(**fields["profile"]), "beam": tuple(fields["beam"])}
        return cls(**fields | {name: Path(fields[name]) for name in ("folder", "records")})


@dataclass(frozen=True)
class Step:
    """One component's execution."""

    state: str
    """COMPLETE, CACHED, FAILED, or another of ML Metadata's words."""
    seconds: float


@dataclass(frozen=True)
class Answer:
    """The result of a run. `pushed` is the SavedModel that was blessed and pushed, "" if none was."""

    run: str
    steps: dict[str, Step]
    checks: list[Check] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    """On the test rows, as Evaluator measured them: `accuracy` and `accuracy/<class>`."""
    pushed: str = ""
    error: str = ""
    """The error that ended the run early; "" for a refusal."""

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Answer:
        fields = json.loads(path.read_text())
        fields["steps"] = {name: Step(**step) for name, step in fields["steps"].items()}
        fields["checks"] = [Check(**check) for check in fields["checks"]]
        return cls(**fields)
