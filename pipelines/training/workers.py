"""A training in processes of its own: one for each device (PyTorch), or one that has all devices (TensorFlow)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection
from typing import Any, TypeVar

from pipelines.training.record import TrainingError
from serving import progress
from serving.errors import TandemError

Result = TypeVar("Result")


def run(count: int, function: Callable[..., Result], *arguments: object) -> list[Result]:
    """Run `function` in each of `count` new processes, with `LOCAL_RANK` set; returns its results by rank.

    Raises the `TandemError` that a process raised, and `TrainingError` with the rank of one that ended otherwise. In
    both cases, and on Ctrl-C, all others are ended.
    """
    context = multiprocessing.get_context("spawn")  # TensorFlow's threads do not outlive a fork.
    workers, pipes = [], {}
    results: dict[int, Result] = {}
    try:
        for rank in range(count):
            receiver, sender = context.Pipe(duplex=False)
            told = (rank, sender, function, arguments)
            worker = context.Process(target=_work, args=told, name=f"rank {rank}", daemon=True)
            worker.start()
            sender.close()
            workers.append(worker)
            pipes[receiver] = rank
        while pipes:
            ended = []
            # One that ends makes the others fail, and is seen before them or with them.
            for pipe in connection.wait(list(pipes)):
                assert isinstance(pipe, connection.Connection)
                try:
                    kind, *told = pipe.recv()
                except EOFError:
                    ended.append(pipes.pop(pipe))
                    continue
                if kind == "error":
                    raise told[0]
                if kind == "result":
                    results[pipes.pop(pipe)] = told[0]
                else:
                    getattr(progress, kind)(*told)
            if ended:
                codes = {rank: _exit_code(workers[rank]) for rank in ended}
                rank = min(codes, key=lambda rank: codes[rank])
                raise TrainingError(_told(rank, count, codes[rank]))
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    return [results[rank] for rank in range(count)]


def _exit_code(worker: Any) -> int:  # noqa: ANN401
    worker.join()
    return int(worker.exitcode)


def _told(rank: int, count: int, code: int) -> str:
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}, as it says above"
    return (
        f"the process of rank {rank}, of {count}, ended {how}; the others were ended, and nothing is exported. "
        "The same command goes on from the last epoch"
    )


def _work(rank: int, pipe: Any, function: Callable[..., object], arguments: tuple[object, ...]) -> None:  # noqa: ANN401
    # Ctrl-C reaches every process of a terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["LOCAL_RANK"] = str(rank)
    progress.relay(lambda *told: pipe.send(told))
    try:
        pipe.send(("result", function(*arguments)))
    except TandemError as error:
        pipe.send(("error", error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
