"""Runs TorchServe as a child, and on SIGTERM lets it finish its requests: `python -m serving.torchserve.drain`.

TorchServe itself closes its connections at once on SIGTERM. This is the main process of its container: if it is killed,
the engine ends the child.
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
"""Time for requests that are on their way."""


def wait_for_queue(settings: Settings, version: int | None = None, seconds: float | None = None) -> None:
    """Wait until a version (None: the default one) has answered all accepted calls.

    Its queue is served in order, so a call of our own is the last one; it waits `seconds` (`settings.ready_seconds`).
    """
    path = f"/predictions/{settings.model}" + ("" if version is None else f"/{version}")
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    timeout = settings.ready_seconds if seconds is None else seconds
    # Without a worker there are no calls to lose.
    with closing(HttpConnection(host, settings.torchserve_rest_port, timeout)) as http, suppress(TargetError):
        http.exchange("POST", path, b"")


def main() -> None:
    """Run the server until its end or SIGTERM; exits with its status."""
    settings = Settings.from_environment()
    server = subprocess.Popen([sys.executable, "-m", "serving.torchserve.launch"])

    def stop() -> None:
        time.sleep(LINGER_SECONDS)
        # Its own end takes about three seconds of the engine's `stop_seconds`.
        wait_for_queue(settings, seconds=max(1, settings.stop_seconds - 5))
        server.terminate()

    def on_signal(_number: int, _frame: object) -> None:
        # A signal handler would block the wait below.
        threading.Thread(target=stop, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    code = server.wait()
    # Java exits with 143 after SIGTERM.
    sys.exit(0 if code == 128 + signal.SIGTERM else code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
