"""The documents: short, linked, and with commands that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import parsing
from serving import targets
from serving.server import flags
from serving.server.tfs import flags as tfs_flags
from serving.settings import Settings

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*ROOT.glob("*.md"), *DOCS]
README = (ROOT / "README.md").read_text()
WORDS = 6000
SETTABLE = (ROOT / "Makefile").read_text() + (ROOT / "requirements" / "running.py").read_text()
FLAGS = {"server.md": (flags.parser, tfs_flags.parser), "tf-serving.md": (tfs_flags.parser,)}


PROGRAMS = {
    "make",
    "tandem",
    "tandem-server",
    "tandem-tf-serving",
    "pytest",
    "promtool",
    "curl",
    "docker",
    "uv",
    "uvx",
}
PROGRAMS |= {"kind", "kubectl"}
NOT_RUN = re.findall(r"`([^`]+)`", " ".join((ROOT / "docs" / "not-run.md").read_text().split()))
RUN = {
    start: test
    for line in (ROOT / "tests" / "commands.txt").read_text().splitlines()
    for test, _, starts in [line.rpartition(": ")]
    for start in starts.split(", ")
}
"""The test that runs the commands which start so, or the verb that the Makefile calls for them."""


def commands(page: Path) -> list[tuple[str, ...]]:
    """Return the words of each command in a page's code."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks for line in block.splitlines()] + [" ".join(i.split()) for i in inline]
    parts = [part for line in lines for part in re.split(r" && | \|\| ", line.partition(" #")[0])]
    found = [tuple(part.removeprefix("$ ").removeprefix(".venv/bin/").split()) for part in parts]
    return [words for words in found if len(words) > 1 and words[0] in PROGRAMS]


COMMANDS = sorted({words for page in PAGES if page.name != "CHANGELOG.md" for words in commands(page)})
OURS = [words for words in COMMANDS if words[0] in ("make", "tandem")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_lines_are_short(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link
        if anchor and link.endswith(".md"):
            headings = re.findall(r"^#+ (.+)$", (page.parent / link).read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings}
    assert [line for line in page.read_text().splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_a_command_exists(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    if words[0] == "make":
        for word in words[1:]:
            name, is_variable, _ = word.partition("=")
            pattern = rf"\b{name}\b" if is_variable else rf"^{name}:"
            assert word.startswith("-") or re.search(pattern, SETTABLE, re.MULTILINE), word
    else:
        with pytest.raises(SystemExit, match="0"):
            parsing.parser().parse_args([words[1], "--help"])
        known = capsys.readouterr().out
        assert [word for word in words if word.startswith("--") and word not in known] == []


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_run_by_a_test_or_named_as_not_run(words: tuple[str, ...]) -> None:
    # `make a b` is two commands.
    variables = [word for word in words[1:] if "=" in word]
    each = [["make", word, *variables] for word in words[1:] if word not in variables]
    for line in map(" ".join, each if words[0] == "make" else [words]):
        starts = [start for start in (*RUN, *NOT_RUN) if line.startswith(start)]
        assert starts, (
            f"{line}: name the test that runs it in tests/commands.txt, or the command in docs/not-run.md"
        )
        file, _, test = RUN.get(max(starts, key=len), "docs/not-run.md").partition("::")
        assert not test or f"\ndef {test}(" in (ROOT / file).read_text()


def test_no_command_is_listed_that_no_page_has() -> None:
    lines = [" ".join(words) for words in COMMANDS]
    lines += [f"make {word}" for words in COMMANDS if words[0] == "make" for word in words[1:]]
    assert [start for start in RUN if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.parametrize("page", FLAGS)
def test_flags_exist(page: str) -> None:
    known = "".join(parser().format_help() for parser in FLAGS[page])
    for flag in re.findall(r"`(--[a-z_-]+)", (ROOT / "docs" / page).read_text()):
        assert flag in known


@pytest.mark.slow
def test_the_bridge_is_called_as_the_page_says() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "migrating.md").read_text(), re.M | re.S)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=110)


def test_every_page_is_in_the_index_and_all_are_short() -> None:
    assert [page.name for page in DOCS if f"(docs/{page.name})" not in README] == []
    assert sum(len(page.read_text().split()) for page in DOCS) <= WORDS
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("name", targets.NAMES)
def test_the_first_page_has_the_endpoints_of_the_targets(name: str, tmp_path: Path) -> None:
    target, settings = targets.load(name), Settings()
    (tmp_path / "picture.png").touch()
    row = next(line for line in README.splitlines() if line.startswith(f"| {name} | "))
    assert target.source in row
    for port in target.ports(settings).values():
        assert f":{port}" in row
    curl = target.endpoints(settings, 1, tmp_path)[0].curl.replace(str(tmp_path), "artifacts/samples")
    assert curl in README or not target.page_protocol
