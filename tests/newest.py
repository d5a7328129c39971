"""The newest Python that the pins are for, in an environment without torch: its CPU build has an index of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from requirements import environment
from serving.compare import environments

ROOT = Path(__file__).parents[1]
VERSION = environment.VERSIONS[0]
FOLDER = ROOT / f".venv-{VERSION}"
TORCH = r"(torch|lightning|lightning-utilities|pytorch-lightning|torchmetrics|torch-model-archiver)=="
"""torch, and what is of no use without it."""
NEEDING_TORCH = (
    "tests/models",
    "tests/pipelines/cli",
    "tests/pipelines/exporting",
    "tests/pipelines/cli/profiling",
    "tests/pipelines/test_variants.py",
    "tests/pipelines/training",
    "tests/serving/targets/test_torchserve.py",
    "tests/serving/torchserve/test_handler.py",
)


def missing() -> str:
    """Return the reason why no test runs on it here; "" if they do."""
    found = environment.find(VERSION)
    return "" if found and found.has_venv else f"no python{VERSION} with venv is installed"


def python() -> Path:
    """Its interpreter in an environment of the pins, which is made where it is missing."""
    pins = (ROOT / "requirements" / "dev.txt").read_text() + (
        ROOT / "docker" / "builder" / "uv.txt"
    ).read_text()
    FOLDER.mkdir(exist_ok=True)
    chosen = FOLDER.with_suffix(".txt")
    chosen.write_text("".join(pin for pin in pins.splitlines(keepends=True) if not re.match(TORCH, pin)))
    found = environment.find(VERSION)
    assert found is not None
    installed = environments.install(chosen, FOLDER, Path(found.path))
    environments.uv("pip", "install", "--python", str(installed), "--no-deps", "--editable", str(ROOT))
    return installed


def command() -> list[str]:
    """Runs the fast tests that need no torch."""
    return [str(python()), "-m", "pytest", "-q", *(f"--ignore={path}" for path in NEEDING_TORCH)]


if __name__ == "__main__":
    raise SystemExit(missing() or subprocess.run(command(), cwd=ROOT, check=False).returncode)
