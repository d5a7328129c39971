"""The files that a component depends on: TFX keys its cache by inputs and parameters, not by code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from modulefinder import ModuleFinder
from pathlib import Path

ROOT = Path(__file__).parents[2]


def digest(modules: Iterable[str]) -> str:
    """Return one digest of these modules and of all of this project's that they import, directly or not.

    A module that is imported by a computed name must be among `modules`.
    """
    whole = hashlib.sha256()
    for path in sorted(closure(modules)):
        whole.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return whole.hexdigest()


def closure(modules: Iterable[str]) -> set[Path]:
    """Return the files of these modules, of their imports, and of the packages that hold them."""
    # The Docker client has the name of our folder of images.
    finder = ModuleFinder([str(ROOT)], excludes=["docker"])
    for name in modules:
        finder.import_hook(name)
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    return {Path(file) for file in files if file}
