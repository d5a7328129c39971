"""The rules of the house: lists that agree, and imports that point one way."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from k8s import generate
from pipelines import exporting
from serving import targets
from serving.server import VERSION
from tests import places

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("models", "serving.progress", "serving.repository", "serving.settings"),
    ("serving.server", "serving.targets", "serving.torchserve", "serving.web"),
    ("serving.platforms", "serving.compare"),
    ("pipelines",),
)


def floor(module: str) -> int | None:
    for number, names in enumerate(FLOORS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    return None


def modules() -> dict[str, Path]:
    paths = [p for package in ("models", "pipelines", "serving") for p in (ROOT / package).rglob("*.py")]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target_is_in_every_place(name: str) -> None:
    assert places.lacking(name) == []
    assert targets.load(name).name == name
    assert "float32" in exporting.load(name).files


def test_what_a_new_target_needs_is_documented_and_little() -> None:
    listed = places.lacking("newtime")
    assert len({place.split(":")[0] for place in listed}) == len(listed) <= 10
    assert "\n".join(listed) in (ROOT / "docs" / "adding-a-target.md").read_text()


def test_what_is_generated_is_what_the_targets_say() -> None:
    stale = [name for name, text in generate.files() if (ROOT / name).read_text() != text]
    assert stale == [], "`make generated` writes them"


def test_no_import_runs_upward() -> None:
    wrong = []
    for module, path in modules().items():
        own = floor(module)
        if own is None:
            continue
        for imported in imports(ast.parse(path.read_text())):
            other = floor(imported)
            if other is not None and other > own:
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_pipelines_has_at_most_ten_parts() -> None:
    parts = {path.name.removesuffix(".py") for path in (ROOT / "pipelines").iterdir()} - {
        "__init__",
        "__pycache__",
    }
    assert len(parts) <= 10, sorted(parts)


def test_docstrings_start_with_what_a_thing_does_or_is() -> None:
    riddle = re.compile(r"(What|How|Where|Why|Whether|Who|Which)\b")
    wrong = [
        f"{module}, line {node.lineno}"
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(text := node.value.value, str) and riddle.match(text)
    ]
    assert wrong == []


def test_the_server_needs_no_framework_and_no_tracing() -> None:
    script = (
        "import sys, serving.server.main, serving.server.backends.onnxruntime, serving.server.backends.litert,"
        " serving.server.oip.rest, serving.server.oip.rpc, serving.server.tfs.flags\n"
        "sys.exit(', '.join({'tensorflow', 'keras', 'torch', 'opentelemetry'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("pins", ["main.txt", "dev.txt", "tfx.txt"])
def test_pins_are_exact_and_hold_no_address(pins: str) -> None:
    lines = [
        line for line in (ROOT / "requirements" / pins).read_text().splitlines() if not line.startswith("#")
    ]
    assert len(lines) > 80
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+( ; .+)?$", line), line


def test_every_pin_has_its_digests_but_torch_which_has_two_builds() -> None:
    hashes = (ROOT / "requirements" / "hashes.txt").read_text()
    assert "://" not in hashes
    digests = re.findall(r"^(\S+)[^\\\n]*\\\n +--hash=sha256:[0-9a-f]{64}", hashes, re.MULTILINE)
    pins = [line.split()[0] for line in (ROOT / "requirements" / "dev.txt").read_text().splitlines()[1:]]
    assert [pin for pin in pins if pin not in digests] == ["torch==2.13.0"]


def test_makefile_help_lists_every_target_with_a_sentence() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    for name in phony[1].split():
        assert re.search(rf"^{name}:.*## \S", makefile, re.MULTILINE), name


@pytest.mark.slow
def test_tensorboard_takes_what_make_gives_it() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "tensorboard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    _, *options = shlex.split(told.stdout.splitlines()[-1])
    command = [sys.executable, "-m", "tensorboard.main", *options, "--version"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_every_place_has_the_same_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    paths = [ROOT / "compose.yaml", ROOT / "docs" / "kubernetes.md", *(ROOT / "k8s").rglob("*.yaml")]
    tag = r"tandem\.invalid/[^\s:]+:(?:\$\{IMAGE_VERSION:-)?(\d+\.\d+\.\d+)|newTag: (\d+\.\d+\.\d+)"
    tags = {one or other for path in paths for one, other in re.findall(tag, path.read_text())}
    assert tags == {VERSION} == {version}
    assert f"\n## {version} - " in (ROOT / "CHANGELOG.md").read_text()
