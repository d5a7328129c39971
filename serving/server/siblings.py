"""The other workers of a server: what one of them is asked to load or unload, all of them do.

In a folder that they share, each worker listens on a socket, and one file holds what is unloaded, for a worker that
starts later. A lock makes changes follow one another; it goes with the process that holds it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from serving.server.errors import ServerError

log = logging.getLogger("tandem.server")

Change = Callable[[str, str], Awaitable[None]]
"""Do "load" or "unload" with a model. Raises `ServerError`."""


def socket_of(pid: int, folder: Path) -> Path:
    """Where a worker listens to the others from its start on."""
    return folder / f"{pid}.socket"


class Siblings:
    """The workers that share `folder`."""

    def __init__(self, folder: Path, change: Change) -> None:
        """`change` is what this worker does when another one was asked."""
        self._folder = folder
        self._change = change
        self._own = socket_of(os.getpid(), folder)
        self._state = folder / "unloaded.json"
        self._server: asyncio.Server | None = None

    async def start(self) -> set[str]:
        """Listen to the others; the models that they have unloaded."""
        self._server = await asyncio.start_unix_server(self._hear, self._own)
        # Read only now: whoever changes it from here on finds this worker.
        text = await asyncio.to_thread(self._state.read_text) if self._state.exists() else "[]"
        return set(json.loads(text))

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._own.unlink(missing_ok=True)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """While no other worker changes what is served."""
        with (self._folder / "changes.lock").open("w") as file:
            await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
            yield

    async def tell(self, verb: str, model: str, unloaded: Iterable[str]) -> list[str]:
        """Let the others do the same; the complaints of those that could not. `unloaded`: all that is, from now on."""
        new = self._state.with_suffix(".new")
        await asyncio.to_thread(new.write_text, json.dumps(sorted(unloaded)))
        new.replace(self._state)
        others = [path for path in sorted(self._folder.glob("*.socket")) if path != self._own]
        answers = await asyncio.gather(*(self._ask(path, verb, model) for path in others))
        return [answer for answer in answers if answer]

    async def _ask(self, path: Path, verb: str, model: str) -> str:
        # One that does not answer has ended, and whoever follows it reads the state.
        with suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(json.dumps([verb, model]).encode() + b"\n")
                answer = await reader.readline()
            finally:
                writer.close()
            if answer and (complaint := json.loads(answer)):
                return f"worker {path.stem}: {complaint}"
        return ""

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            verb, model = json.loads(await reader.readline())
            complaint = ""
            try:
                await self._change(verb, model)
            except ServerError as error:
                complaint = str(error)
            writer.write(json.dumps(complaint).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError) as error:
            log.warning("a worker's word was lost: %s", error)
        finally:
            writer.close()
