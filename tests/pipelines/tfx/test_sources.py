"""The code in a component's cache key: that which it runs, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.tfx import sources

TREE = {
    "models/__init__.py": "",
    "models/spec.py": "SIZE = 1",
    "pipelines/__init__.py": "",
    "pipelines/train.py": "from models import spec\nimport numpy",
    "pipelines/gates.py": "import json",
    "pipelines/late.py": "def run():\n    from pipelines.gates import Check",
}


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    return tmp_path


def test_a_changed_import_changes_the_digest_and_another_file_does_not(tree: Path) -> None:
    before = sources.digest(["pipelines.train"])
    (tree / "pipelines" / "gates.py").write_text("import csv")
    assert sources.digest(["pipelines.train"]) == before
    (tree / "models" / "spec.py").write_text("SIZE = 2")
    assert sources.digest(["pipelines.train"]) != before


def test_imports_within_functions_and_the_packages_files_count(tree: Path) -> None:
    names = {path.relative_to(tree).as_posix() for path in sources.closure(["pipelines.late"])}
    assert names == {"pipelines/__init__.py", "pipelines/late.py", "pipelines/gates.py"}
