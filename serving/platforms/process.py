"""The targets as local processes of supervisord (http://supervisord.org)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from serving.platforms.base import PlatformError, TargetState, Watch
from serving.platforms.ports import require_ports
from serving.repository import write_atomically
from serving.settings import Settings
from serving.targets.base import Launch, Target

TEMPLATE = Path(__file__).with_name("supervisord.conf")
STATES = {"BACKOFF": "restarting", "EXITED": "stopped", "FATAL": "failed", "UNKNOWN": "failed"}
"""Our names of supervisord's states, if they differ."""
LONGEST_SOCKET_PATH = 90
"""Paths of Unix sockets have at most 104 (macOS) or 108 bytes; supervisord appends its pid."""


class ProcessPlatform:
    """Local processes of this Python environment."""

    name = "process"

    def prepare(self, settings: Settings, targets: Sequence[Target], watch: Watch) -> None:
        if settings.monitoring:
            raise PlatformError(
                "Prometheus comes with containers only: PLATFORM=docker, or leave MONITORING out"
            )

    def up(self, settings: Settings, targets: Sequence[Target], watch: Watch) -> list[str]:
        states = self.states(settings)
        if not states:
            _end_orphans(settings)
        for target in targets:
            target.configure(settings)
        launches = {target.name: target.launch(settings) for target in targets}
        for target in targets:
            if target.name not in states or states[target.name].state in ("stopped", "failed", "stopping"):
                require_ports(settings, target.name, target.ports(settings))
        settings.logs.mkdir(parents=True, exist_ok=True)
        write_atomically(_configuration(settings), _configure(settings, launches))
        if not states:
            _start_supervisor(settings)
        with _supervisor(settings) as supervisor:
            if supervisor is None:
                raise PlatformError(f"supervisord does not answer; see {settings.logs}/supervisor.log")
            started = _reconcile(supervisor, list(launches))
        for name in started:
            watch(name, "starting")
        return started

    def down(self, settings: Settings) -> bool:
        with _supervisor(settings) as supervisor:
            if supervisor is None:
                return _end_orphans(settings) > 0
            process = psutil.Process(supervisor.getPID())
            supervisor.shutdown()
        _, alive = psutil.wait_procs([process], timeout=settings.stop_seconds + 10)
        if alive:
            raise PlatformError(
                f"supervisord (process {process.pid}) did not stop; see {settings.logs}/supervisor.log"
            )
        return True

    def states(self, settings: Settings) -> dict[str, TargetState]:
        with _supervisor(settings) as supervisor:
            if supervisor is None:
                return {}
            return {info["name"]: _state(info) for info in supervisor.getAllProcessInfo()}

    def log(self, settings: Settings, target: str, lines: int, follow: bool) -> Iterator[str]:
        path = settings.logs / f"{target}.log"
        if not path.exists():
            raise PlatformError(f"{target} has no log yet; `make deploy` starts it")
        # By its name: supervisord begins a new file after 10 MB.
        command = ["tail", f"-n{lines}", *(["-F"] if follow else []), str(path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
        ) as tail:
            try:
                yield from tail.stdout or ()
            finally:
                tail.terminate()


def _configuration(settings: Settings) -> Path:
    return settings.run / "supervisord.conf"


def _socket(settings: Settings) -> Path:
    beside = settings.run / "supervisor.sock"
    if len(str(beside)) <= LONGEST_SOCKET_PATH:
        return beside
    name = hashlib.sha256(str(settings.run).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tandem-{os.getuid()}-{name}.sock"


def _configure(settings: Settings, launches: dict[str, Launch]) -> str:
    import jinja2

    programs = {
        name: (
            " ".join(map(_quote, launch.command)),
            ",".join(f"{key}={_quote(value)}" for key, value in launch.environment.items()),
        )
        for name, launch in launches.items()
    }
    template = jinja2.Template(TEMPLATE.read_text(), trim_blocks=True, undefined=jinja2.StrictUndefined)
    text: str = template.render(
        settings=settings,
        socket=_socket(settings),
        directory=Path.cwd(),
        is_root=os.geteuid() == 0,
        programs=programs,
    )
    if comment := re.search(r"\S.*\s[;#]", text):
        raise PlatformError(
            f"supervisord would read the rest of `{comment[0]}` as a comment; take folders without ` ;` and ` #`"
        )
    # supervisord expands %(name)s, in stdout_logfile twice.
    return text.replace("%", "%%") + "\n"


def _quote(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _start_supervisor(settings: Settings) -> None:
    """Start supervisord; returns when it listens."""
    settings.run.chmod(0o700)
    command = [str(Path(sys.executable).with_name("supervisord")), "-c", str(_configuration(settings))]
    # In its own session: Ctrl-C in the terminal of `make deploy` must not reach the servers.
    done = subprocess.run(
        command, start_new_session=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PlatformError(f"supervisord did not start: {(done.stderr or done.stdout).strip()}")


@contextlib.contextmanager
def _supervisor(settings: Settings) -> Iterator[Any]:
    """Yield the interface of the running supervisord; None if none runs."""
    from supervisor.xmlrpc import SupervisorTransport

    with contextlib.closing(SupervisorTransport(None, None, f"unix://{_socket(settings)}")) as transport:
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport)
        try:
            proxy.supervisor.getState()
        except (OSError, xmlrpc.client.Error):
            yield None
            return
        try:
            yield proxy.supervisor
        except xmlrpc.client.Fault as fault:
            raise PlatformError(f"supervisord refused: {fault.faultString}") from fault


def orphans(settings: Settings) -> list[psutil.Process]:
    """Return the servers of a killed supervisord, found by its address in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SUPERVISOR_SERVER_URL") == f"unix://{_socket(settings)}":
                found.append(process)
    return found


def _end_orphans(settings: Settings) -> int:
    """End the servers of a killed supervisord; returns their number."""
    found = orphans(settings)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=settings.stop_seconds)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    return len(found)


def _reconcile(supervisor: Any, names: list[str]) -> list[str]:  # noqa: ANN401
    [[added, changed, removed]] = supervisor.reloadConfig()
    for name in [*changed, *removed]:
        supervisor.stopProcessGroup(name)
        supervisor.removeProcessGroup(name)
    for name in [*added, *changed]:
        supervisor.addProcessGroup(name)
    started = []
    for name in names:
        if _state(supervisor.getProcessInfo(name)).state in ("stopped", "failed"):
            supervisor.startProcess(name, False)
            started.append(name)
    return started


def _state(info: dict[str, Any]) -> TargetState:
    state = STATES.get(info["statename"], info["statename"].lower())
    if not info["pid"]:
        return TargetState(state)
    try:
        memory = memory_of(info["pid"])
    except psutil.Error:
        return TargetState(state, info["pid"])
    return TargetState(state, info["pid"], info["now"] - info["start"], memory)


def memory_of(pid: int) -> int:
    """Return the resident bytes of a process tree. Raises `psutil.Error`."""
    process = psutil.Process(pid)
    tree = [process, *process.children(recursive=True)]
    return sum(p.memory_info().rss for p in tree)
