"""What does a request cost in Tandem's servers, and in others? `python -m tests.benchmarks.servers`

Serves one model by tandem-server (ONNX Runtime, LiteRT), tandem-tf-serving, MLServer, KServe's SDK, LitServe,
BentoML and tritonserver (of the nvidia-pytriton wheel), all on this machine; calls them in turns with one
picture at a time; and prints a table, then each figure that Tandem is to reach beside what was read.

CPU us: CPU time a request of the server's whole process tree at concurrency 1, the median of the rounds and
half of their range. over: what of it the model alone, in-process, does not take, measured in the same rounds on
the same settings (1 intra-op thread, no spinning). x ours: that overhead by tandem-ort's over the same protocol,
or over JSON. start s: to the first right answer. PSS MB: alone, after a short load. Every answer is compared with
the in-process one. CPU time and memory come from /proc: Linux only.

The peers are installed on first use, each into an environment of its own, from the pins in tests/benchmarks/peers.
docs/benchmarks.md has the last table and says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

from . import environments, export, inprocess, report
from .bench import Bench
from .callers import Target
from .contenders import CONTENDERS, ROOT, Artifacts, Contender, earlier
from .processes import ServerError
from .readings import Endpoint, Measured, Results
from .worker import Worker

SHORT_CALLS, SHORT_SECONDS = 50, 0.5
"""The load before memory is read."""


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def interpreter(contender: Contender, folder: Path, base: Path | None) -> tuple[Path, dict[str, str]]:
    """The Python of a server and what is installed beside it. Raises `InstallError`."""
    if contender.code == ROOT and not contender.peer and base is None:
        installed = {dist.name: dist.version for dist in metadata.distributions()}
        return Path(sys.executable), {"Python": platform.python_version(), **installed}
    say(f"{contender.name}: environment {folder / contender.name}")
    python = environments.install(contender.pins, folder / contender.name, base or Path(sys.executable))
    return python, environments.versions(python)


def checkout(stack: ExitStack, commit: str) -> Path:
    """The project as it was at a commit, for as long as `stack` lasts."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "before")

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(ROOT), "worktree", *arguments], check=True, capture_output=True)

    git("add", "--detach", str(folder), commit)
    stack.callback(git, "remove", "--force", str(folder))
    return folder


def read_alone(bench: Bench, contender: Contender, options: argparse.Namespace) -> tuple[Path, Measured]:
    """Start one server with no other beside it, and read its start and its memory.

    Raises `InstallError` and `ServerError`.
    """
    python, versions = interpreter(contender, options.environments, options.python)
    say(f"{contender.name}: start and memory")
    server, seconds, targets = bench.start(contender, python)
    with server:
        for target in targets:
            turn = bench.call(target, 1, calls=SHORT_CALLS)
            if not turn.latencies:
                raise ServerError(f"{target.protocol.name}: {turn.faults[0]}")
            bench.call(target, options.concurrency, seconds=SHORT_SECONDS)
        endpoints = {protocol.name: Endpoint(contender.runtime) for protocol in contender.protocols}
        return python, Measured(contender, versions, [seconds], server.pss(), endpoints)


def measure(options: argparse.Namespace, artifacts: Artifacts, stack: ExitStack) -> Results:
    """Each server alone; then all of them, in turns."""
    bench, results = Bench(artifacts, stack), Results(options.concurrency)
    pythons: dict[str, Path] = {}
    contenders = [CONTENDERS[name] for name in options.servers]
    if options.against:
        contenders.append(earlier(checkout(stack, options.against)))
    for contender in contenders:
        name = contender.name
        try:
            pythons[name], results.servers[name] = read_alone(bench, contender, options)
        except (environments.InstallError, ServerError) as error:
            results.left_out[name] = str(error)
            say(f"{name}: left out: {error}")
    running: dict[str, list[Target]] = {}
    for name, measured in results.servers.items():
        say(f"{name}: start")
        server, seconds, running[name] = bench.start(measured.contender, pythons[name])
        stack.enter_context(server)
        measured.starts.append(seconds)
    runtimes = {measured.contender.runtime for measured in results.servers.values()}
    for number in range(options.rounds):
        results.load.append(os.getloadavg()[0])
        say(f"round {number + 1} of {options.rounds}, load average {results.load[-1]:.1f}")
        results.additions.append(inprocess.python_speed(options.python or Path(sys.executable)))
        for runtime in sorted(runtimes):
            results.alone[runtime].append(bench.alone(runtime, options.calls))
        for name, targets in running.items():
            for target in targets:
                endpoint = results.servers[name].endpoints[target.protocol.name]
                endpoint.single.append(bench.call(target, 1, calls=options.calls))
                endpoint.many.append(bench.call(target, options.concurrency, seconds=options.seconds))
    results.load.append(os.getloadavg()[0])
    return results


def exported(stack: ExitStack, names: Sequence[str]) -> Path:
    """A repository of the project's own network, for as long as `stack` lasts."""
    root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    targets = sorted({"onnxruntime", *(CONTENDERS[name].target for name in names)})
    say(f"exporting the project's network for {', '.join(targets)}")
    # The frameworks would stay in this process's memory.
    with Worker() as worker:
        worker.do(export.repository, root, "fashion", targets)
    return root


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks.servers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = list(CONTENDERS)
    add("--servers", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}")
    add(
        "--model",
        type=Path,
        help="a model repository (artifacts/repository); else our own network, untrained",
    )
    add("--rounds", type=int, default=5, help="turns of each server (5)")
    add("--calls", type=int, default=200, help="at concurrency 1, in a turn (200)")
    add("--concurrency", type=int, default=32, help="for the requests a second (32)")
    add("--seconds", type=float, default=1.0, help="at that concurrency, in a turn (1)")
    add("--against", metavar="COMMIT", help="measure tandem-ort as it was at this commit, too: tandem-before")
    peers = ROOT / "artifacts" / "peers"
    add(
        "--python",
        type=Path,
        metavar="FILE",
        help="make the environments of all servers with it, Tandem's from the pins of its images; "
        "else Tandem's run in this environment",
    )
    add("--environments", type=Path, default=peers, metavar="DIR", help=f"of the servers ({peers})")
    add("--json", type=Path, metavar="FILE", help="write all readings there")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = command_line()
    options = parser.parse_args(arguments)
    # So that being told to stop ends the servers, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    with ExitStack() as stack:
        try:
            artifacts = Artifacts.find(options.model or exported(stack, options.servers))
        except FileNotFoundError as error:
            parser.error(str(error))
        results = measure(options, artifacts, stack)
    results.seconds = time.monotonic() - begun
    print(report.render(results), report.notes(results, options), report.verdicts(results), sep="\n\n")
    if options.json:
        options.json.write_text(json.dumps(report.document(results), indent=1))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; every server has been ended")
