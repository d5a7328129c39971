"""The processes of a benchmark: the client, the runtimes that run the model alone, and the servers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tests.serving.server.processes import free_port

from . import callers, inprocess
from .contenders import Artifacts, Contender, Place
from .encodings import Answers, Floats
from .processes import Server
from .worker import Worker

PICTURES = 8
Asked = tuple[str, Floats, Answers]
"""The name of the model's input, the pictures, and the answers that its runtime gives in-process."""


def pictures(shape: Sequence[int]) -> Floats:
    """Rows [N, *shape] like Fashion-MNIST's: half of the pixels black, the others k/255."""
    generator = np.random.default_rng(1)
    grey = generator.integers(1, 256, (PICTURES, *shape)) * generator.integers(0, 2, (PICTURES, *shape))
    return (grey / 255).astype(np.float32)


class Bench:
    """They all end with `stack`."""

    def __init__(self, artifacts: Artifacts, stack: ExitStack) -> None:
        self._artifacts = artifacts
        self._stack = stack
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._client = stack.enter_context(Worker())
        self._runtimes: dict[str, tuple[Worker, Path, Asked]] = {}

    def start(self, contender: Contender, python: Path) -> tuple[Server, float, list[callers.Target]]:
        """A server that answers: itself, the seconds that it took, and an endpoint for each protocol.

        Raises `ServerError`. Its context ends it.
        """
        name, images, answers = self._asked(contender)
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        place = Place(python, free_port(), free_port(), folder)
        command = contender.command(self._artifacts, place)
        cwd = folder if contender.peer else contender.code
        server = Server(command, Path(f"{folder}.log"), contender.environment, cwd)
        ports = place.http_port, place.grpc_port
        targets = [
            callers.Target(protocol, *ports, self._artifacts.model, name, images, answers, server.pid)
            for protocol in contender.protocols
        ]
        try:
            seconds = server.wait_until(lambda: callers.answers(targets[0]))
        except BaseException:
            server.end()
            raise
        return server, seconds, targets

    def _asked(self, contender: Contender) -> Asked:
        runtime = contender.runtime
        if runtime not in self._runtimes:
            worker, path = self._stack.enter_context(Worker()), self._artifacts.version(contender.target)
            name, shape = worker.do(inprocess.describe, runtime, path)
            images = pictures(shape)
            answers = worker.do(inprocess.expected, runtime, path, images)
            self._runtimes[runtime] = worker, path, (name, images, answers)
        return self._runtimes[runtime][2]

    def alone(self, runtime: str, calls: int) -> float:
        """CPU seconds of a run of the model alone, now."""
        worker, path, (_, images, _) = self._runtimes[runtime]
        return worker.do(inprocess.measure, runtime, path, images, calls)

    def call(
        self, target: callers.Target, concurrency: int, *, calls: int = 0, seconds: float = 0
    ) -> callers.Turn:
        """One turn, as `callers.drive`, from the client's process."""
        return self._client.do(callers.drive, target, concurrency, calls, seconds)
