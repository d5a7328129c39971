"""Runs TorchServe as a child, and on SIGTERM lets it answer what it has taken: `python -m serving.torchserve.drain`.

TorchServe closes its connections at once on SIGTERM, whatever it was answering. This is the main process of its
container; where that is killed, the engine ends the child with it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress

from serving.settings import Settings
from serving.targets.base import TargetError
from serving.targets.http import HttpConnection

LINGER_SECONDS = 0.5
"""For requests that are on the way when the signal comes."""


def wait_for_queue(settings: Settings, version: int | None = None, seconds: float | None = None) -> None:
    """Wait until a version (the default one where None) has answered all calls that it has taken.

    Its queue is served in order, so we stand in it ourselves, for at most `seconds` (`settings.ready_seconds`).
    """
    path = f"/predictions/{settings.model}" + ("" if version is None else f"/{version}")
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    timeout = settings.ready_seconds if seconds is None else seconds
    # A worker that does not answer has no calls left to lose.
    with closing(HttpConnection(host, settings.torchserve_rest_port, timeout)) as http, suppress(TargetError):
        http.exchange("POST", path, b"")


def main() -> None:
    """Run the server until it ends or SIGTERM comes; exits as it does."""
    settings = Settings.from_environment()
    server = subprocess.Popen([sys.executable, "-m", "serving.torchserve.launch"])

    def stop() -> None:
        time.sleep(LINGER_SECONDS)
        # Its own end takes some three seconds, and the engine has no more patience than `stop_seconds`.
        wait_for_queue(settings, seconds=max(1, settings.stop_seconds - 5))
        server.terminate()

    def on_signal(_number: int, _frame: object) -> None:
        # Not in the handler itself, which holds up the wait below.
        threading.Thread(target=stop, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    code = server.wait()
    # Java's answer to SIGTERM is 143: that is an orderly end here.
    sys.exit(0 if code == 128 + signal.SIGTERM else code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
