"""The machines of one training. As torchrun's agents do, they meet at a store that the first one has, tell each other
that they are there, and end together."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil

from pipelines.training.record import TrainingError
from serving import progress

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

LOST_SECONDS = 15
"""A machine that is silent for so long is lost."""


@dataclass(frozen=True)
class Nodes:
    """This machine is `rank` of `count`, from 0; the first listens on `address`, one of its own, and `port`. They wait
    for each other for as many `seconds`."""

    count: int = 1
    rank: int = 0
    address: str = ""
    port: int = 29500
    seconds: int = 600

    def __str__(self) -> str:
        return f"node {self.rank} of {self.count}"

    @property
    def place(self) -> str:
        """The address and port at which they meet."""
        return f"{self.address}:{self.port}"

    @contextmanager
    def met(self, training: str) -> Iterator[Agent | None]:
        """All machines, which train the same until the block ends; `training` says what. An error in it is everyone's.

        Yields None where there is one. Raises `TrainingError` where one does not come, or trains something else.
        """
        if self.count == 1:
            yield None
            return
        agent = Agent(self)
        try:
            agent.join(training)
            yield agent
        except BaseException as error:
            reason = str(error) if isinstance(error, Exception) else f"{self} was interrupted"
            with suppress(RuntimeError):
                if not agent.lost:
                    agent.store.compare_set("failed", "", reason)
            raise
        finally:
            agent.leave()


class Agent:
    """The representative of this machine among all of a training."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.deadline = nodes, time.monotonic() + nodes.seconds
        self.heard: dict[int, tuple[int, float]] = {}
        """By machine: its last beat, and when that came."""
        self.lost = False
        """True once the first machine, which has the store, does not answer."""
        self.store = _listen(nodes) if nodes.rank == 0 else self._connect()

    def join(self, training: str) -> None:
        """Wait until all machines are there."""
        with self._first_there():
            told = self.store.compare_set("training", "", training).decode()
            if told != training:
                raise TrainingError(f"{self.nodes} would train {training}, and others {told}")
            self.store.set(str(self.nodes.rank), "")
            while missing := self._without(""):
                self._wait(f"node {missing[0]} of {self.nodes.count} did not come to {self.nodes.place}")
                self._require_no_failure()
        progress.advance(f"{self.nodes} trains; node 0 shows how far all are", 0, 0)

    def watch(self) -> None:
        """Tell the others that this machine is there. Raises `TrainingError` where one is not."""
        with self._first_there():
            if self.nodes.rank:
                # The store's own calls wait without end for a machine that has lost its power.
                socket.create_connection((self.nodes.address, self.nodes.port), LOST_SECONDS).close()
            self._require_no_failure()
            self.store.add(f"beat {self.nodes.rank}", 1)
            for node in self._without("done "):
                beat, now = self.store.add(f"beat {node}", 0), time.monotonic()
                last, since = self.heard.get(node, (-1, now))
                self.heard[node] = beat, since if beat == last else now
                if now - self.heard[node][1] > LOST_SECONDS:
                    raise TrainingError(
                        f"node {node} of {self.nodes.count} is lost: not a word for {LOST_SECONDS} s. Nothing is "
                        "exported; the same commands go on from the last epoch"
                    )

    def leave(self) -> None:
        """End this machine's part. The first one waits until the others have read why."""
        deadline = time.monotonic() + LOST_SECONDS
        with suppress(RuntimeError):
            if self.lost:
                return
            self.store.set(f"done {self.nodes.rank}", "")
            while self.nodes.rank == 0 and self._without("done ") and time.monotonic() < deadline:
                time.sleep(0.1)

    def _connect(self) -> TCPStore:
        own = self.nodes
        while True:
            try:
                # PyTorch's own attempts take no Ctrl-C.
                socket.create_connection((own.address, own.port), timeout=5).close()
                return store(own.address, own.port)
            except (OSError, RuntimeError) as error:
                self._wait(f"node 0 did not listen on {own.place} ({error})")

    def _wait(self, lacking: str) -> None:
        if time.monotonic() > self.deadline:
            raise TrainingError(
                f"{lacking} within {self.nodes.seconds} s: start the same command on all nodes, with the same NODES, "
                "MASTER_ADDR and MASTER_PORT. One that has finished this training does not come"
            )
        progress.advance(f"{self.nodes} waits for the others at {self.nodes.place}", 0, 0)
        time.sleep(0.2)

    def _require_no_failure(self) -> None:
        if self.store.check(["failed"]):
            raise TrainingError(self.store.get("failed").decode())

    def _without(self, prefix: str) -> list[int]:
        return [node for node in range(self.nodes.count) if not self.store.check([f"{prefix}{node}"])]

    @contextmanager
    def _first_there(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError):
            self.lost = True
            raise TrainingError(f"node 0 of {self.nodes.count} ended, or is lost: see there why") from None


def _listen(nodes: Nodes) -> TCPStore:
    try:
        found = socket.getaddrinfo(nodes.address, nodes.port, type=socket.SOCK_STREAM)[0]
        # PyTorch itself would listen on every address.
        listening = socket.create_server(found[4][:2], family=found[0])
    except OSError as error:
        raise TrainingError(
            f"node 0 cannot listen on {nodes.place} ({error.strerror}): MASTER_ADDR is to be an address of its own, "
            "and MASTER_PORT a free port"
        ) from None
    return store(nodes.address, nodes.port, listening.detach())


def store(address: str, port: int, listening: int | None = None) -> TCPStore:
    """The store at an address; `listening` is the socket where it is this process's own. Raises `RuntimeError`."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(
        address,
        port,
        is_master=listening is not None,
        wait_for_workers=False,
        timeout=timedelta(minutes=1),
        master_listen_fd=listening,
    )


def interface(address: str, port: int) -> str:
    """The name of the network interface by which this machine reaches an address."""
    family, kind, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(target)  # Sends nothing.
        own = probe.getsockname()[0]
    found = psutil.net_if_addrs().items()
    return next(name for name, addresses in found if own in {each.address for each in addresses})
