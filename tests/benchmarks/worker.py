"""A process that does one thing after another for its owner, and ends with its context, whatever it does then."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Worker:
    """Keeps its modules and what they cache from one call to the next; shares no CPU time with its owner."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def do(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call a function of a module there. Raises what it raises."""
        self._connection.send((function, args, kwargs))
        result: Result | Exception = self._connection.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An idle one ends by itself, and tidies up; a busy one would go on.
        self._connection.close()
        self._process.join(1)
        self._process.kill()
        self._process.join()


def _work(connection: Connection) -> None:
    # Ctrl-C is the owner's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError):
        while True:
            function, args, kwargs = connection.recv()
            try:
                result = function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - it is the owner's
                result = error
            connection.send(result)
