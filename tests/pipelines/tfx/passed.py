"""The day and the sources on which the DAG's tests last passed: CI need not run them again on the same."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from pipelines.tfx.sources import ROOT, closure

FILE = Path(__file__).with_name("passed.txt")
OTHERS = (
    "docker/tfx",
    "docker/builder/install",
    "docker/builder/uv.txt",
    "requirements/tfx.txt",
    "tests/pipelines/tfx",
    "tests/pictures.py",
    "tests/data",
)


def digest() -> str:
    """Of everything that the image and the tests are made from, but for Debian's packages.

    Of serving/ that is what models/ and pipelines/ import.
    """
    modules = [path for name in ("models", "pipelines") for path in (ROOT / name).rglob("*.py")]
    files = closure(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in modules)
    for name in ("models", "pipelines", *OTHERS):
        files |= {path for path in (ROOT / name).rglob("*") if path.is_file()} or {ROOT / name}
    # What they share with the tests beside them.
    files |= set((ROOT / "tests" / "pipelines").glob("*.py"))
    whole = hashlib.sha256()
    for path in sorted(path for path in files - {FILE} if "__pycache__" not in path.parts):
        whole.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return whole.hexdigest()


def unchanged_since() -> str:
    """The day on which they passed on what is here now; "" where they did not."""
    known, _, day = FILE.read_text().strip().partition(" ") if FILE.exists() else ("", "", "")
    return day if known == digest() else ""


def remember() -> None:
    """They passed on what is here now."""
    FILE.write_text(f"{digest()} {datetime.now(UTC).date()}\n")
