"""Commands that take long or fail: progress while they run, advice when they fail. For any Python from 3.8 on."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable  # noqa: UP035 - an older Python may read this

USUALLY = 75
"""Seconds of an installation on two cores, with nothing fetched before."""
QUIET_SECONDS = 8
CUDA = "TORCH"
"""`cuda` takes torch as the general index has it, where PyTorch's own index is out of reach."""
ADVICE = {
    r"certificate|UnknownIssuer": "Does a proxy open TLS? Put its certificate into the system's store, or name it: "
    "SSL_CERT_FILE=/path/to/ca.pem make deploy",
    r"No space left": "Free some space and run this again.",
    r"pytorch\.org": "PyTorch's own index has the CPU build. Out of reach? "
    "`make setup DEVICE=gpu` takes the build of the general index, about 5 GB.",
    r"No solution found|no version of|Hash mismatch": "A pin cannot be had as requirements/ has it: is the index "
    "(PIP_INDEX_URL) or the wheel folder (PIP_FIND_LINKS) complete?",
    r"resolve|connect|timed out|unreachable|error sending request": "Is the package index within reach? A mirror: "
    "PIP_INDEX_URL=...; a proxy: HTTPS_PROXY=...",
}
"""Advice by the message of pip or uv."""
NOISE = re.compile(r"Using Python|Resolved| ?Download|WARNING: Retrying")


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


class NoPythonError(SetupError):
    """No Python fits; requirements/install fetches one."""


def run(command: list[str], what: str, stage: Callable[[list[str]], str] | None = None) -> None:
    """Run a command and show its purpose and, by the lines that it writes, its stage.

    Raises `SetupError` with what it said.
    """
    said: list[str] = []
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
            reader.start()
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(QUIET_SECONDS)
                    continue
                say(
                    f"{stage(said) if stage else what}, {time.monotonic() - started:.0f} s",
                    "    environment: ",
                )
            reader.join()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        lines = [line.rstrip() for line in said if line.strip() and not NOISE.match(line)]
        raise SetupError("\n  ".join([f"{what} failed:", *lines[-12:]]) + advice("".join(said)))


def watch(command: list[str], venv: Path, what: str) -> None:
    """Run uv with its own progress on a terminal, with lines elsewhere. Raises `SetupError`."""
    say(f"environment: {what} (usually {USUALLY} s)")
    if not sys.stderr.isatty():
        run(command, what, lambda said: stage(said, venv))
    elif subprocess.run(command, check=False).returncode:
        raise SetupError(f"{what}: uv could not install them; what it said is above")


def stage(said: list[str], venv: Path) -> str:
    """The progress of an installation, by the lines of uv and the packages installed so far."""
    text = "".join(said)
    resolved = re.search(r"Resolved (\d+) packages", text)
    if resolved is None:
        return "asking the index"
    if "Prepared" not in text:
        left = re.findall(r"^Downloading (\S+) (\(.*\))", text, re.MULTILINE)
        done = set(re.findall(r"^ Downloaded (\S+)", text, re.MULTILINE))
        if not left:
            return f"{resolved[1]} packages, taking them from the cache"
        fetching = ", ".join([f"{name} {size}" for name, size in left if name not in done][:3])
        return f"{resolved[1]} packages, {len(done)} of {len(left)} large ones fetched, now {fetching}"
    if "Installed" not in text:
        installed = len(list(venv.glob("lib/python3*/site-packages/*.dist-info")))
        return f"{min(installed, int(resolved[1]))} of {resolved[1]} packages installed"
    return "compiling what was installed, and clearing up"


def advice(said: str) -> str:
    """The first advice that fits, or an empty string."""
    return next(
        (f"\n{text}" for pattern, text in ADVICE.items() if re.search(pattern, said, re.IGNORECASE)), ""
    )


def say(line: str, before: str = "==> ") -> None:
    sys.stdout.write(f"{before}{line}\n")
    sys.stdout.flush()
