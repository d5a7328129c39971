"""Which files of ours a component depends on: TFX keys its cache by inputs and parameters, not by code."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "pipelines", "serving")


def digest(modules: Iterable[str]) -> str:
    """One digest of these modules and of all of ours that they import, directly or not.

    What is imported by a name that is put together at run time has to be among `modules`.
    """
    whole = hashlib.sha256()
    for path in sorted(closure(modules)):
        whole.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return whole.hexdigest()


def closure(modules: Iterable[str]) -> set[Path]:
    """The files of these modules, of what they import, and of the packages that they are in."""
    found: set[Path] = set()
    waiting = [path for name in modules for path in _files(name)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in _imports(path) for file in _files(name)]
    return found


def _files(name: str) -> list[Path]:
    """A module's file and the `__init__.py` of its packages; `a.b.c` may also be the name c in the module a.b."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return []
    folders = [ROOT.joinpath(*parts[:end], "__init__.py") for end in range(1, len(parts) + 1)]
    files = [ROOT.joinpath(*parts[:end]).with_suffix(".py") for end in (len(parts) - 1, len(parts))]
    return [path for path in [*folders, *files] if path.is_file()]


@cache
def _imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)
