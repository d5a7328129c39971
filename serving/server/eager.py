"""Coroutines that begin at once, and become tasks only where they have to wait.

A task costs two turns of the event loop and tens of microseconds; most requests never wait for anything.
Python 3.12 has `asyncio.eager_task_factory` for this, whose tasks are made all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any


def start(coroutine: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None] | None:
    """Run a coroutine until it has to wait; the task that sees to the rest of it, None where nothing is left.

    To be called from a callback of the event loop: within a task, the coroutine would take that for its own.
    """
    try:
        waited = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_Begun(coroutine, waited), context=context)


async def have_task() -> None:
    """Go on as a task, which `asyncio.timeout` and its like need."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


class _Begun(Coroutine[Any, Any, None]):
    """A coroutine that has done its first step and waits for `waited`: its task's first step is to wait for that."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waited: asyncio.Future[Any] | None) -> None:
        self._coroutine = coroutine
        self._waited = waited
        self._fresh = True

    def send(self, value: Any) -> Any:  # noqa: ANN401 - as Coroutine has it
        if self._fresh:
            self._fresh = False
            return self._waited
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:  # noqa: ANN401 - as Coroutine has it
        if self._fresh:
            self._fresh = False
            if self._waited is not None:
                self._waited.cancel()  # As a task does that is cancelled while it waits.
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise NotImplementedError  # A task asks for steps only.
