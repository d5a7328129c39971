"""Makes or mends a virtual environment from a pin file, and installs this project into it in place.

Started by `requirements/install`, by any Python from 3.8 on: it looks for the right one itself, and it has nothing but
the standard library.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator, NamedTuple  # noqa: UP035 - an older Python may read this

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VERSIONS = ("3.13", "3.12", "3.11")
TFX_VERSIONS = ("3.13",)
GENERAL_INDEX = "https://pypi.org/simple"
FREE_GB = 4
USUALLY = 75
"""Seconds of an installation on two cores, with nothing fetched before."""
QUIET_SECONDS = 8
INTERRUPTED = "interrupted"
"""Lies in an environment as long as packages are put into it: some may be there by half."""
CUDA = "TORCH"
"""`cuda` takes torch as the general index has it, where PyTorch's own index is out of reach."""
ADVICE = {
    r"certificate|UnknownIssuer": "Does a proxy open TLS? Put its certificate into the system's store, or name it: "
    "SSL_CERT_FILE=/path/to/ca.pem make deploy",
    r"No space left": "Free some space and run this again.",
    r"pytorch\.org": "PyTorch's own index has the CPU build. Out of reach? "
    f"{CUDA}=cuda make deploy takes the build of the general index, about 5 GB.",
    r"No solution found|no version of|Hash mismatch": "A pin cannot be had as requirements/ has it: is the index "
    "(PIP_INDEX_URL) or the wheel folder (PIP_FIND_LINKS) complete?",
    r"resolve|connect|timed out|unreachable|error sending request": "Is the package index within reach? A mirror: "
    "PIP_INDEX_URL=...; a proxy: HTTPS_PROXY=...",
}
"""What to do, by what pip or uv said."""


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


class NoPythonError(SetupError):
    """What is missing is a Python; requirements/install knows who has one."""


class Python(NamedTuple):
    """An interpreter, its version, and whether it can make an environment with pip in it."""

    path: str
    version: str
    has_venv: bool


def main(venv: Path, pins: Path) -> None:
    """Have `venv` hold what `pins` says. Raises `SetupError`."""
    versions = TFX_VERSIONS if pins.name == "tfx.txt" else VERSIONS
    if not os.access(venv.parent, os.W_OK):
        raise SetupError(f"{venv.parent} cannot be written to; copy the project to a folder that can")
    with alone(venv):
        home = Path(os.environ.get("HOME", "/nonexistent"))
        if "UV_CACHE_DIR" not in os.environ and not os.access(home, os.W_OK):
            # uv would fail to keep what it fetches there.
            os.environ["UV_NO_CACHE"] = "1"
        found = probe(venv / "bin" / "python")
        if found is None or found.version not in versions or (venv / INTERRUPTED).exists():
            if shutil.disk_usage(venv.parent).free < FREE_GB << 30:
                raise SetupError(
                    f"an environment takes {FREE_GB} GB, and {venv.parent} has less; free some space"
                )
            make(venv, versions)
        elif not (venv / "bin" / "uv").exists():
            bring_uv(venv)
        install(venv, pins)


@contextmanager
def alone(venv: Path) -> Iterator[None]:
    """Nobody else works on this environment meanwhile."""
    with venv.with_name(f"{venv.name}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting for process {file.read() or '?'}, which makes {venv} already")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def probe(path: Path | str) -> Python | None:
    """What an interpreter is; None where it is none that runs."""
    script = (
        "import sys, importlib.util as u; print('%d.%d' % sys.version_info[:2], "
        "all(map(u.find_spec, ('venv', 'ensurepip'))))"
    )
    try:
        done = subprocess.run(
            [str(path), "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version, has_venv = done.stdout.split()
    return Python(str(path), version, has_venv == "True")


def make(venv: Path, versions: tuple[str, ...]) -> None:
    """Make an empty environment with uv in it, in place of one that is half-made or of another Python."""
    if venv.exists():
        if not (venv / "pyvenv.cfg").exists() and any(venv.iterdir()):
            raise SetupError(f"{venv} is there and is no virtual environment; move it away")
        say(f"{venv.name} is half-made or of another Python: making it anew")
        shutil.rmtree(venv)
    python = choose(versions)
    if python is not None and python.has_venv:
        say(f"environment: Python {python.version} ({python.path})")
        run([python.path, "-m", "venv", str(venv)])
        bring_uv(venv)
        return
    with tempfile.TemporaryDirectory() as folder:
        uv = shutil.which("uv") or str(fetch_uv(Path(folder)))
        if python is None:
            say(f"environment: no Python {', '.join(versions)} here: uv fetches {versions[0]} (usually 30 s)")
            try:
                run([uv, "python", "install", "--quiet", versions[0]])
            except SetupError as error:
                raise NoPythonError(str(error)) from None
        else:
            say(f"environment: Python {python.version} ({python.path}), by uv, as it has no venv of its own")
        run([uv, "venv", "--quiet", "--seed", "--python", python.path if python else versions[0], str(venv)])
        shutil.copy(uv, venv / "bin" / "uv")


def choose(versions: tuple[str, ...]) -> Python | None:
    """The interpreter to take: the one that PYTHON names, or the first of these versions that has venv.

    Where a wheel folder has torch for some of them only, those go first. None where there is none.
    Raises `SetupError` where PYTHON names another.
    """
    if named := os.environ.get("PYTHON"):
        python = probe(named)
        if python is None or python.version not in versions:
            raise SetupError(
                f"PYTHON={named} is {f'Python {python.version}' if python else 'no Python that runs'}; "
                f"expected {' or '.join(versions)}. Leave it out and one is looked for"
            )
        return python
    probed = [probe(name) for name in [*(f"python{version}" for version in versions), "python3"]]
    found = [python for python in probed if python is not None and python.version in versions]
    found.sort(key=lambda python: (not has_torch(python.version), not python.has_venv))
    return found[0] if found else None


def settings() -> dict[str, str]:
    """pip's settings, which uv does not read: environment variables first, then its files."""
    parser = configparser.ConfigParser(interpolation=None)
    home = Path(os.environ.get("HOME", "/nonexistent"))
    xdg = Path(os.environ.get("XDG_CONFIG_HOME", home / ".config"))
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        xdg / "pip/pip.conf",
    ]
    with suppress(OSError, configparser.Error):
        parser.read([*files, os.environ.get("PIP_CONFIG_FILE", os.devnull)])
    found = {}
    for uv, pip in (("UV_FIND_LINKS", "find-links"), ("UV_DEFAULT_INDEX", "index-url")):
        value = os.environ.get(uv) or os.environ.get("PIP_" + pip.upper().replace("-", "_")) or ""
        if (value := value or parser.get("global", pip, fallback="")).strip():
            # pip separates by white space, uv by commas.
            found[uv] = ",".join(value.split())
    return found


def has_torch(version: str) -> bool:
    """Whether a wheel folder of this machine has a torch for a Python."""
    folders = settings().get("UV_FIND_LINKS", "").split(",")
    return any(list(Path(f).glob(f"torch-*cp{version.replace('.', '')}*")) for f in folders if f)


def pinned_uv() -> tuple[str, list[str]]:
    """uv's pin and its digests."""
    pin = (ROOT / "docker" / "uv.txt").read_text().strip()
    text = (HERE / "hashes.txt").read_text().partition(f"{pin} \\\n")[2]
    digests = re.match(r"(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text)
    return pin, re.findall(r"[0-9a-f]{64}", digests[0]) if digests else []


def bring_uv(venv: Path) -> None:
    """Install uv into an environment that has pip."""
    pin, digests = pinned_uv()
    if certificates := os.environ.get("SSL_CERT_FILE"):
        os.environ.setdefault("PIP_CERT", certificates)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(" ".join([pin, *(f"--hash=sha256:{digest}" for digest in digests)]))
        file.flush()
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        run([str(venv / "bin" / "python"), "-m", "pip", "install", *options, "--requirement", file.name])


def fetch_uv(folder: Path) -> Path:
    """Fetch uv's wheel from the package index, where no pip is at hand. Raises `SetupError`."""
    pin, digests = pinned_uv()
    machine = platform.machine()
    system = "macosx" if platform.system() == "Darwin" else "manylinux"
    index = settings().get("UV_DEFAULT_INDEX", GENERAL_INDEX).rstrip("/") + "/uv/"
    try:
        with urllib.request.urlopen(index, timeout=60) as answer:  # noqa: S310 - the user's own setting
            page = answer.read().decode()
        links = re.findall(r'href="([^"]+)"', page)
        name = f"{pin.replace('==', '-')}-py3-none-{system}"
        link = next(x for x in links if f"/{name}" in x and f"{machine}.whl" in x)
        with urllib.request.urlopen(urllib.parse.urljoin(index, link), timeout=60) as answer:  # noqa: S310
            content = answer.read()
    except (OSError, StopIteration) as error:
        raise NoPythonError(
            f"uv could not be fetched from {index}: {error or f'it has no {pin} for {machine}'}{advice(str(error))}"
        ) from None
    if hashlib.sha256(content).hexdigest() not in digests:
        raise SetupError(f"the wheel of {pin} from {index} is not one of those in requirements/hashes.txt")
    wheel = folder / "uv.whl"
    wheel.write_bytes(content)
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        (folder / "uv").write_bytes(archive.read(member))
    (folder / "uv").chmod(0o755)
    return folder / "uv"


def install(venv: Path, pins: Path) -> None:
    """Install the pins, and this project in place."""
    python = probe(venv / "bin" / "python")
    assert python is not None
    os.environ.update(settings())
    os.environ.setdefault("UV_LINK_MODE", "copy")
    os.environ["UV_SYSTEM_CERTS"] = "1"
    cuda = os.environ.get(CUDA) == "cuda"
    if platform.system() == "Linux" and not has_torch(python.version) and not cuda:
        # The general index's torch is the CUDA build.
        os.environ.setdefault("UV_TORCH_BACKEND", "cpu")
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        # Without bytecode each start of TensorFlow takes three times as long: where Python may not write it, uv does.
        os.environ["UV_COMPILE_BYTECODE"] = "1"
    uv = [str(venv / "bin" / "uv"), "pip", "install", "--python", python.path]
    (venv / INTERRUPTED).touch()
    if pins.name == "tfx.txt":
        # Of two of them there are only sources, and this project is run from its folder.
        watch([*uv, "--no-deps", "--requirement", str(pins)], venv, pins)
    else:
        hashes = ["--constraint", str(HERE / "hashes.txt")]
        watch([*uv, "--no-deps", "--only-binary", ":all:", *hashes, "--requirement", str(pins)], venv, pins)
        if cuda:
            # The pins, and the overrides in pyproject.toml, leave its libraries out.
            watch([*uv, "--no-config", "--constraint", str(pins), "torch"], venv, pins)
        run([*uv, "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    (venv / INTERRUPTED).unlink()


def run(command: list[str]) -> None:
    """Run what takes seconds. Raises `SetupError` with what it said."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SetupError(failure(command, done.stderr))


def watch(command: list[str], venv: Path, pins: Path) -> None:
    """Run uv: on a terminal it shows how far it is; elsewhere lines do. Raises `SetupError`."""
    say(f"environment: the packages of {pins.relative_to(ROOT)} (usually {USUALLY} s)")
    if sys.stderr.isatty():
        if subprocess.run(command, check=False).returncode:
            raise SetupError("uv could not install the packages; what it said is above")
        return
    said: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
            reader.start()
            started = time.monotonic()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(QUIET_SECONDS)
                    break
                seconds = time.monotonic() - started
                say(f"{stage(said, venv)}, {seconds:.0f} s, usually {USUALLY} s", "    environment: ")
            reader.join()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise SetupError(failure(command, "".join(said)))


def stage(said: list[str], venv: Path) -> str:
    """How far an installation is, by the lines that uv wrote and by what lies there."""
    text = "".join(said)
    resolved = re.search(r"Resolved (\d+) packages", text)
    if resolved is None:
        return "asking the index"
    if "Prepared" not in text:
        left = re.findall(r"^Downloading (\S+) (\(.*\))", text, re.MULTILINE)
        done = set(re.findall(r"^ Downloaded (\S+)", text, re.MULTILINE))
        fetching = [f"{name} {size}" for name, size in left if name not in done]
        return f"{resolved[1]} packages, {len(done)} of {len(left)} large ones fetched, now {', '.join(fetching[:3])}"
    if "Installed" not in text:
        installed = len(list(venv.glob("lib/python3*/site-packages/*.dist-info")))
        return f"{min(installed, int(resolved[1]))} of {resolved[1]} packages installed"
    return "compiling bytecode"


def failure(command: list[str], said: str) -> str:
    """What a command said when it failed, and what to do."""
    lines = [
        line
        for line in said.strip().splitlines()
        if not line.startswith(("Using Python", "Downloading", " Down"))
    ]
    program = "pip" if "pip" in command[1:3] and "uv" not in command[0] else "uv"
    return f"{program} failed:\n  " + "\n  ".join(lines[-12:]) + advice(said)


def advice(said: str) -> str:
    """The first advice that fits; empty where none does."""
    return next(
        (f"\n{text}" for pattern, text in ADVICE.items() if re.search(pattern, said, re.IGNORECASE)), ""
    )


def say(line: str, before: str = "==> ") -> None:
    sys.stdout.write(f"{before}{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
    except SetupError as failed:
        sys.stderr.write(f"error: {failed}\n")
        sys.exit(3 if isinstance(failed, NoPythonError) else 1)
    except OSError as failed:
        sys.stderr.write(f"error: the environment could not be made: {failed}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; running this again makes the environment anew\n")
        sys.exit(130)
