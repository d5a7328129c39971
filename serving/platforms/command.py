"""Commands that take long: their output goes to a log, their lines to a report; work beside other work."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from serving.platforms.base import PlatformError

_running: set[subprocess.Popen[str]] = set()
_ended: set[threading.Thread] = set()
"""The threads of `beside` whose block has failed."""


def run(
    command: Sequence[str | Path],
    log: Path,
    report: Callable[[str], object] | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a command, add its output to `log`, call `report` with each line; returns the exit status.

    Raises `PlatformError` if a signal ended it, or if it is work `beside` a block that has failed. If `report` raises,
    the command is ended, too.
    """
    with (
        log.open("a") as output,
        subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        _running.add(process)
        try:
            # `beside` may have ended what runs before this was added.
            if threading.current_thread() in _ended:
                raise PlatformError(f"`{command[0]}` is not run: the work beside it has failed")
            for line in process.stdout or ():
                output.write(line)
                output.flush()
                if report is not None:
                    report(line)
        except BaseException:
            # The terminal sends it Ctrl-C, but neither SIGTERM nor a broken pipe reaches it.
            process.terminate()
            raise
        finally:
            _running.discard(process)
    if process.returncode < 0:
        raise PlatformError(f"{signal.Signals(-process.returncode).name} ended `{command[0]}`; see {log}")
    return process.returncode


@contextlib.contextmanager
def beside(work: Callable[[], None], on_error: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Run `work` on a thread during the block, and wait for it at its end; a block that fails ends its commands.

    Yields a function that raises the error of a failure early; the end of the block raises it, too. A failure of `work`
    itself calls `on_error` at once, on its thread.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised on the other thread
            errors.append(error)
            if thread not in _ended:
                on_error()

    def check() -> None:
        if errors:
            raise errors[0]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield check
        thread.join()
    except BaseException:
        _ended.add(thread)
        for process in list(_running):
            process.terminate()
        # A pull cannot be ended, and is left behind.
        thread.join(10)
        raise
    check()
