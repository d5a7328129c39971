"""Makes or mends a virtual environment from a pin file, and installs this project into it in place.

Started by `requirements/install`, by any Python from 3.8 on: it looks for the right one itself, and it has nothing but
the standard library.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple  # noqa: UP035 - an older Python may read this

from requirements.running import CUDA, NoPythonError, SetupError, run, say, watch
from requirements.uv import HERE, bring_uv, fetch_uv, has_torch, settings

ROOT = HERE.parent
VERSIONS = ("3.13", "3.12", "3.11")
APART = {"tfx.txt": ("3.13",), "onnx2tf.txt": ("3.11",)}
"""Pins of environments that do not hold this project, and the Python that they are for."""
FREE_GB = 4
INTERRUPTED = "interrupted"
"""Marks an environment whose installation has not ended: packages may be incomplete."""


class Python(NamedTuple):
    """An interpreter, its version, and whether it can make an environment with pip in it."""

    path: str
    version: str
    has_venv: bool


def main(venv: Path, pins: Path) -> None:
    """Install the packages of `pins` into `venv`. Raises `SetupError`."""
    versions = APART.get(pins.name, VERSIONS)
    if not os.access(venv.parent, os.W_OK):
        raise SetupError(f"{venv.parent} cannot be written to; copy the project to a folder that can")
    with alone(venv):
        home = Path(os.environ.get("HOME", "/nonexistent"))
        if "UV_CACHE_DIR" not in os.environ and not os.access(home, os.W_OK):
            # uv would fail to keep what it fetches there; what is not kept can be moved into place.
            os.environ.update(UV_NO_CACHE="1", UV_LINK_MODE="hardlink")
        # uv does not read pip's settings.
        os.environ.update(settings(), UV_SYSTEM_CERTS="1")
        found = probe(venv / "bin" / "python")
        whole = (venv / "bin" / "uv").exists() and not (venv / INTERRUPTED).exists()
        if found is None or found.version not in versions or not whole:
            if shutil.disk_usage(venv.parent).free < FREE_GB << 30:
                raise SetupError(
                    f"an environment takes {FREE_GB} GB, and {venv.parent} has less; free some space"
                )
            make(venv, versions)
        install(venv, pins)


@contextmanager
def alone(venv: Path) -> Iterator[None]:
    """Hold the lock of this environment."""
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
    """Describe an interpreter; None if it does not run."""
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


def find(version: str) -> Python | None:
    """The interpreter of this version on the PATH, or among pyenv's, whose shim runs only the selected ones."""
    python = probe(f"python{version}")
    if python is None and shutil.which("pyenv"):
        done = subprocess.run(["pyenv", "prefix", version], capture_output=True, text=True, check=False)
        python = probe(Path(done.stdout.strip()) / "bin" / "python") if done.returncode == 0 else None
    return python


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
        run([python.path, "-m", "venv", str(venv)], "venv")
        bring_uv(venv)
        return
    with tempfile.TemporaryDirectory() as folder:
        uv = shutil.which("uv") or str(fetch_uv(Path(folder)))
        if python is None:
            say(f"environment: no Python {', '.join(versions)} here: uv fetches {versions[0]} (usually 30 s)")
            try:
                run([uv, "python", "install", "--quiet", versions[0]], f"uv's Python {versions[0]}")
            except SetupError as error:
                raise NoPythonError(str(error)) from None
        else:
            say(f"environment: Python {python.version} ({python.path}), by uv, as it has no venv of its own")
        command = [
            uv,
            "venv",
            "--quiet",
            "--seed",
            "--python",
            python.path if python else versions[0],
            str(venv),
        ]
        run(command, "uv venv")
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
    probed = [*map(find, versions), probe("python3")]
    found = [python for python in probed if python is not None and python.version in versions]
    found.sort(key=lambda python: (not has_torch(python.version), not python.has_venv))
    return found[0] if found else None


def install(venv: Path, pins: Path) -> None:
    """Install the pins, and this project in place."""
    python = probe(venv / "bin" / "python")
    assert python is not None
    os.environ.setdefault("UV_LINK_MODE", "copy")
    if platform.system() == "Linux" and not has_torch(python.version) and os.environ.get(CUDA) != "cuda":
        # The general index's torch is the CUDA build.
        os.environ.setdefault("UV_TORCH_BACKEND", "cpu")
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        # Without bytecode each start of TensorFlow takes three times as long: where Python may not write it, uv does.
        os.environ["UV_COMPILE_BYTECODE"] = "1"
    uv = [str(venv / "bin" / "uv"), "pip", "install", "--python", python.path]
    (venv / INTERRUPTED).touch()
    try:
        _packages(uv, venv, pins)
    except SetupError:
        # uv has changed nothing, unless the disk is full: what was there works.
        if shutil.disk_usage(venv).free > 1 << 30:
            (venv / INTERRUPTED).unlink()
        raise
    (venv / INTERRUPTED).unlink()


def _packages(uv: list[str], venv: Path, pins: Path) -> None:
    what = f"the packages of {pins.relative_to(ROOT)}"
    if pins.name in APART:
        # Of two of TFX's there are only sources, and this project is run from its folder. The overrides in its
        # pyproject.toml, which uv finds from where it runs, are not for these pins.
        watch(
            [*uv, "--directory", tempfile.gettempdir(), "--no-deps", "--requirement", str(pins)], venv, what
        )
        return
    hashes = ["--constraint", str(HERE / "hashes.txt")]
    watch([*uv, "--no-deps", "--only-binary", ":all:", *hashes, "--requirement", str(pins)], venv, what)
    if os.environ.get(CUDA) == "cuda":
        # A wheel folder's build for CPUs (+cpu) would go first, and one may be installed already.
        os.environ.pop("UV_FIND_LINKS", None)
        own = ["--no-config", "--no-deps", "--require-hashes", "--reinstall-package", "torch"]
        watch([*uv, *own, "--requirement", str(HERE / "cuda.txt")], venv, "torch with its CUDA libraries")
        # The libraries of CUDA 12 would lie in the same folders; only TensorFlow's training has these.
        folder = venv / "tensorflow-cuda"
        (folder / "installed.txt").unlink(missing_ok=True)
        own = ["--no-config", "--no-deps", "--require-hashes", "--target", str(folder)]
        pins = HERE / "tensorflow-cuda.txt"
        watch([*uv, *own, "--requirement", str(pins)], venv, "TensorFlow with its CUDA libraries")
        (folder / "installed.txt").touch()
    run([*uv, "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], "this project")


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
