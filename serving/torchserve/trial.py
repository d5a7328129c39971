"""Loads an archive as TorchServe's worker would: `python -m serving.torchserve.trial <archive>`.

TorchServe restarts a worker that cannot load its model for ever, without a reason. So an archive is tried first, in a
process of its own, which compiled code may crash.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
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
from serving.torchserve.archive import MANIFEST, SIGNATURE
from serving.torchserve.config import state


class Trial:
    """An archive's loaded handler. Raises `TargetError` if there is none, and as the handler does."""

    def __init__(self, path: Path, folder: Path) -> None:
        """Unpack `path` into the empty `folder`."""
        try:
            with zipfile.ZipFile(path) as packed:
                packed.extractall(folder)
        except zipfile.BadZipFile as error:
            raise TargetError(f"{path} is no archive: {error}") from error
        self._folder = folder
        self.handler = _handler(folder, json.loads((folder / MANIFEST).read_text())["model"]["handler"])()
        self.handler.initialize(self._context())

    def call(self, body: bytes, **headers: str) -> bytes:
        """Return the response to a request. Raises `TargetError` with an error of the handler."""
        context = self._context({"host": "localhost"} | headers)
        answer: bytes = self.handler.handle([{"body": body}], context)[0]
        if context.get_response_status(0)[0] != 200:
            raise TargetError(f"its handler answered {answer.decode(errors='replace')[:300]}")
        return answer

    def check_golden(self) -> None:
        """Raise `GoldenError` if the outputs for the archive's golden sample are not the source framework's."""
        # It imports numpy, and `tandem status` this module.
        from serving import golden

        if sample := golden.read(self._folder):
            names = json.loads((self._folder / SIGNATURE).read_text())["outputs"]
            sample.check(dict(zip(names, self.handler.infer(dict(sample.inputs)), strict=True)))

    def _context(self, *requests: dict[str, str]) -> Any:  # noqa: ANN401
        from ts.context import Context, RequestProcessor

        context = Context("model", str(self._folder), None, len(requests), None, "")
        context.request_processor = [RequestProcessor(headers) for headers in requests]
        return context


@contextmanager
def trial(path: Path) -> Iterator[Trial]:
    """Open an archive's handler for the block, and restore the level of logging."""
    level = logging.root.level
    try:
        # Compiled code stays mapped until the process ends.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield Trial(path, Path(folder))
    finally:
        logging.root.setLevel(level)


def attempt(settings: Settings, path: Path, version: int) -> None:
    """Try an archive in a process of its own. Raises `TargetError` with the reason of a failure."""
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
    """Try the archive and its golden sample; exits with a line about a failure."""
    try:
        with trial(Path(sys.argv[1])) as archive:
            archive.call(b"", describe="True")
            archive.check_golden()
    except Exception as error:  # noqa: BLE001 - runtimes raise any exception
        sys.exit(" ".join(str(error).split())[:1000] or type(error).__name__)


def _handler(folder: Path, name: str) -> Any:  # noqa: ANN401
    """Return the only class of a handler's module, imported as TorchServe does."""
    from ts.utils.util import list_classes_from_module

    module = name.removesuffix(".py")
    sys.path.insert(0, str(folder))
    try:
        (handler,) = list_classes_from_module(importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise TargetError(f"the archive holds no {name}") from None
    finally:
        sys.path.remove(str(folder))
        # The next archive has modules of the same names.
        for own in [own for own, loaded in list(sys.modules.items()) if _lies_in(loaded, folder)]:
            del sys.modules[own]
    return handler


def _lies_in(module: object, folder: Path) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}")


if __name__ == "__main__":
    main()
