"""Loads an archive as TorchServe's worker would: `python -m serving.torchserve.trial <archive>`.

TorchServe starts a worker that cannot load its model again and again, and tells nobody why. So an archive is tried
before the server is given it, in a process of its own: compiled code can end one.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve.archive import MANIFEST
from serving.torchserve.config import state


class Trial:
    """An archive's handler, loaded. Raises `TargetError` where there is none, and what the handler raises."""

    def __init__(self, path: Path, folder: str) -> None:
        """Unpack `path` into the empty `folder`."""
        try:
            with zipfile.ZipFile(path) as packed:
                packed.extractall(folder)
        except zipfile.BadZipFile as error:
            raise TargetError(f"{path} is no archive: {error}") from error
        self._folder = folder
        name = json.loads((Path(folder) / MANIFEST).read_text())["model"]["handler"]
        self.handler = _handler(Path(folder) / name)()
        self.handler.initialize(self._context())

    def call(self, body: bytes, **headers: str) -> bytes:
        """The answer to one request. Raises `TargetError` with what the handler answered where it is an error."""
        context = self._context({"host": "localhost"} | headers)
        answer: bytes = self.handler.handle([{"body": body}], context)[0]
        if context.get_response_status(0)[0] != 200:
            raise TargetError(f"its handler answered {answer.decode(errors='replace')[:300]}")
        return answer

    def _context(self, *requests: dict[str, str]) -> Any:  # noqa: ANN401
        from ts.context import Context, RequestProcessor

        context = Context("model", self._folder, None, len(requests), None, "")
        context.request_processor = [RequestProcessor(headers) for headers in requests]
        return context


@contextmanager
def trial(path: Path) -> Iterator[Trial]:
    """An archive's handler, for as long as the block runs; it leaves logging as it was."""
    level = logging.root.level
    try:
        # Compiled code is mapped into memory for as long as the process lives.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield Trial(path, folder)
    finally:
        logging.root.setLevel(level)


def attempt(settings: Settings, path: Path, version: int) -> None:
    """Try an archive in a process of its own. Raises `TargetError` with the reason why it cannot be served."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(state(settings).resolve())}
    command = [sys.executable, "-m", "serving.torchserve.trial", str(path.resolve())]
    run = partial(subprocess.run, command, env=environment, capture_output=True, text=True, errors="replace")
    reason = f"it did not load within {settings.ready_seconds} s"
    with suppress(subprocess.TimeoutExpired):
        done = run(timeout=settings.ready_seconds)
        if done.returncode == 0:
            return
        ended = f"status {done.returncode}" if done.returncode > 0 else signal.Signals(-done.returncode).name
        reason = [f"loading it ended with {ended}", *done.stderr.strip().splitlines()][-1]
    raise TargetError(f"version {version} of {settings.model} is refused: {reason}")


def main() -> None:
    """Exit with a line that says why the archive cannot be served."""
    try:
        with trial(Path(sys.argv[1])) as archive:
            archive.call(b"", describe="True")
    except Exception as error:  # noqa: BLE001 - a runtime raises what it likes
        sys.exit(" ".join(str(error).split())[:1000] or type(error).__name__)


def _handler(path: Path) -> Any:  # noqa: ANN401
    """The one class in a handler's file; it may import what lies beside it."""
    if not path.exists():
        raise TargetError(f"the archive holds no {path.name}")
    sys.path.insert(0, str(path.parent))
    try:
        found = runpy.run_path(str(path), run_name="packed_handler")
    finally:
        sys.path.remove(str(path.parent))
    (handler,) = (
        own for own in found.values() if isinstance(own, type) and own.__module__ == "packed_handler"
    )
    return handler


if __name__ == "__main__":
    main()
