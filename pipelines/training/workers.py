"""Work in processes of its own, whose progress, results and errors come to this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import connection, resource_tracker
from typing import Any, TypeVar

from pipelines.training.nodes import LOST_SECONDS, Agent, Nodes
from serving import progress
from serving.errors import TandemError

Result = TypeVar("Result")


class LostError(TandemError):
    """A process that ended before its work did."""


def run(
    count: int, function: Callable[..., Result], *arguments: object, agent: Agent | None = None
) -> list[Result]:
    """Run `function` in each of `count` new processes, with torchrun's variables set; returns its results by rank.

    `agent` is this machine's where there are several.

    Raises the `TandemError` or `OSError` that a process raised, and `LostError` for one that ended otherwise. In both
    cases, and on Ctrl-C, all others are ended.
    """
    context = multiprocessing.get_context("spawn")  # TensorFlow's threads do not outlive a fork.
    workers, pipes = [], {}
    results: dict[int, Result] = {}
    traces: dict[int, str] = {}
    variables = _variables(count, agent)
    # Starting it would lift the mask.
    resource_tracker.ensure_running()
    try:
        # Ctrl-C reaches every process of a terminal, and this one ends the others.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            for rank, own in enumerate(variables):
                receiver, sender = context.Pipe(duplex=False)
                given = own, sender, function, arguments
                worker = context.Process(target=_work, args=given, name=f"rank {own['RANK']}", daemon=True)
                worker.start()
                sender.close()
                workers.append(worker)
                pipes[receiver] = rank
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while pipes:
            codes = {}
            # One that ends makes the others fail, and is seen before them or with them.
            for pipe in connection.wait(list(pipes), 1 if agent else None):
                assert isinstance(pipe, connection.Connection)
                try:
                    kind, *told = pipe.recv()
                except (EOFError, OSError):
                    rank = pipes.pop(pipe)
                    workers[rank].join()
                    codes[rank] = workers[rank].exitcode or 0
                    continue
                if kind == "error":
                    raise told[0]
                if kind == "trace":
                    traces[pipes[pipe]] = told[0]
                elif kind == "result":
                    results[pipes.pop(pipe)] = told[0]
                else:
                    getattr(progress, kind)(*told)
            if codes:
                rank = min(codes, key=lambda rank: codes[rank])
                if agent and codes[rank] > 0:
                    _blame_others(agent)
                sys.stderr.write(traces.get(rank, ""))
                raise LostError(_told(variables[rank], codes[rank]))
            if agent:
                agent.watch()
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    return [results[rank] for rank in range(count)]


def _blame_others(agent: Agent) -> None:
    """Raise what another machine says, or that it is lost: the processes here fail then, too."""
    deadline = time.monotonic() + LOST_SECONDS + 3
    while time.monotonic() < deadline:
        agent.watch()
        time.sleep(0.2)


def _variables(count: int, agent: Agent | None) -> list[dict[str, str]]:
    """The variables that torchrun sets, for each process of this machine."""
    own = agent.nodes if agent else Nodes()
    same = {"NODE_RANK": own.rank, "MASTER_ADDR": own.address, "MASTER_PORT": own.port}
    same |= {"LOCAL_WORLD_SIZE": count, "WORLD_SIZE": own.count * count}
    ranks = [same | {"LOCAL_RANK": rank, "RANK": own.rank * count + rank} for rank in range(count)]
    return [{name: str(value) for name, value in rank.items()} for rank in ranks]


def _told(own: Mapping[str, str], code: int) -> str:
    alone = own["WORLD_SIZE"] == "1"
    who = "its process" if alone else f"the process of rank {own['RANK']}, of {own['WORLD_SIZE']},"
    if code >= 0:
        return f"{who} ended with status {code}, as it says above"
    why = ", as processes do where memory runs out" if code == -signal.SIGKILL else ""
    how = f"{signal.Signals(-code).name}{why}"
    return f"{who} ended by {how}; when this is run again, a training goes on from its last epoch"


def _work(
    variables: Mapping[str, str],
    pipe: Any,  # noqa: ANN401
    function: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= variables
    progress.relay(lambda *told: pipe.send(told))
    try:
        pipe.send(("result", function(*arguments)))
    except (TandemError, OSError) as error:
        pipe.send(("error", error))
    except Exception:  # noqa: BLE001 - the parent shows it where it is not another's fault.
        pipe.send(("trace", traceback.format_exc()))
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
