"""What every target has: how it is launched, when it is ready, how it swaps versions, how it is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from serving.settings import Settings

if TYPE_CHECKING:
    # `tandem status` reads this file, and has no time to import numpy.
    import numpy as np
    from numpy.typing import NDArray

Images: TypeAlias = "NDArray[np.float32]"
"""Pictures: float32 [N, 28, 28, 1] (NHWC), values 0..1."""


class TargetError(Exception):
    """A target did not do what was asked of it; the message says which one, and what it answered."""


@dataclass(frozen=True)
class Outputs:
    """The answer of an endpoint: `logits` and `probabilities`, float32 [N, classes]."""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Launch:
    """How a target's server is started as a local process. It stays in the foreground and logs to stderr."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """One protocol of a running target; `curl` is a line that works when pasted into a shell ("" for gRPC)."""

    protocol: str
    address: str
    curl: str = ""


class Client(Protocol):
    """Calls one endpoint by one protocol; reuses its connection."""

    def predict(self, images: Images) -> Outputs:
        """Raises `TargetError` with what the endpoint answered."""

    def close(self) -> None:
        """Close the connection."""


class Target(Protocol):
    """One runtime that Tandem ships to; docs/adding-a-target.md tells how another one is added."""

    name: str
    """`tf-serving`, `litert`, `tfjs`, `torchserve` or `onnxruntime`."""
    source: str
    """The framework whose weights it serves unless `--source` says otherwise."""
    server: str
    """What answers around the runtime that a version names."""

    def ports(self, settings: Settings) -> dict[str, int]:
        """What the server will listen on, by purpose, so that a busy port is seen before the start."""

    def configure(self, settings: Settings) -> None:
        """Write the configuration that the server needs, on any platform, under `settings.run / self.name`."""

    def launch(self, settings: Settings) -> Launch:
        """How the server is started as a local process, once it is configured."""

    def endpoints(self, settings: Settings, version: int, samples: Path) -> list[Endpoint]:
        """Where it answers. `samples` is the folder of the sample requests that the curl lines send
        (`picture.png`, `instances.json` in TF Serving's row form, `inference.json` for the Open Inference
        Protocol)."""

    def served_version(self, settings: Settings) -> int | None:
        """The version of `settings.model` that the running server answers with; None while it is not ready."""

    def activate(self, settings: Settings, version: int) -> None:
        """Tell the running server to serve `version`, which is published. Does nothing where it polls the
        repository by itself. Raises `TargetError` where the server refuses; it serves on what it did."""

    def clients(self, settings: Settings) -> dict[str, Client]:
        """A client for each protocol that takes pictures, by the protocol's name (`rest`, `grpc`, ...)."""
