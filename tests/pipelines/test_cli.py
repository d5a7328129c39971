"""The command as a user types it, in a process of its own."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving import targets

TANDEM = Path(sys.executable).with_name("tandem")


def tandem(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")}
    return subprocess.run(
        [str(TANDEM), *arguments],
        env=own | {"TANDEM_ARTIFACTS": str(folder), "TANDEM_PLATFORM": "process"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_lists_every_verb(tmp_path: Path) -> None:
    done = tandem("--help", folder=tmp_path)
    assert done.returncode == 0
    verbs = "deploy status logs down train export publish rollback pipeline import lineage reproduce compare decide"
    for verb in f"{verbs} predict doctor".split():
        assert re.search(rf"^    {verb}\s", done.stdout, re.MULTILINE), verb
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_wrong_call_exits_with_2(tmp_path: Path) -> None:
    assert tandem("conquer", folder=tmp_path).returncode == 2
    done = tandem("status", folder=tmp_path, TANDEM_TFJS_PORT="x")
    assert done.returncode == 2
    assert done.stderr == "error: TANDEM_TFJS_PORT='x': expected int\n"


@pytest.mark.parametrize(
    ("verb", "told"),
    [("train", "nothing half-made .* a training goes on"), ("down", "`tandem status` shows")],
)
def test_ctrl_c_says_what_it_leaves(verb: str, told: str, tmp_path: Path) -> None:
    script = f"""
from pipelines import cli
from pipelines.cli import verbs
def {verb}(*_): raise KeyboardInterrupt
verbs.{verb} = {verb}
raise SystemExit(cli.main(["{verb}"]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130
    assert re.fullmatch(rf"error: interrupted; {told}.*\n", done.stderr)


def test_tab_completes_verbs_choices_models_and_targets(tmp_path: Path) -> None:
    for line, offered in (
        ("tandem depl", {"deploy"}),
        ("tandem deploy --profile ", {"smoke", "quick", "full", "few"}),
        ("tandem logs t", {"tf-serving", "tfjs", "torchserve"}),
        ("tandem lineage fas", {"fashion"}),
    ):
        answer = tmp_path / "offered"
        environment = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9"}
        environment |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        tandem(folder=tmp_path, _ARGCOMPLETE_STDOUT_FILENAME=str(answer), **environment)
        assert {word.strip() for word in answer.read_text().splitlines()} == offered, line


@pytest.mark.parametrize("platform", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_status_and_down_where_nothing_runs(tmp_path: Path, platform: str) -> None:
    done = tandem("status", folder=tmp_path, TANDEM_PLATFORM=platform)
    assert done.returncode == 1
    assert done.stdout.startswith(f"platform {platform} (")
    for name in targets.NAMES:
        assert f"\n{name} " in done.stdout
    assert "0 of 5 targets answer" in done.stdout
    done = tandem("down", folder=tmp_path, TANDEM_PLATFORM=platform)
    assert (done.returncode, done.stdout) == (0, "==> nothing ran\n")


def test_docker_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "no.sock"
    done = tandem("status", folder=tmp_path, TANDEM_PLATFORM="docker", DOCKER_HOST=f"unix://{nowhere}")
    assert (done.returncode, done.stderr) == (1, f"error: no container engine answers at {nowhere}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["settings"], ["down"]])
def test_help_and_status_import_no_heavy_library(tmp_path: Path, arguments: list[str]) -> None:
    """Nor does the parser import what only verbs need: where that is missing, `tandem` can name it."""
    script = """
import sys, pipelines.cli
pipelines.cli.parsing.parser()
found = {'numpy', 'psutil', 'rich', 'jinja2', 'docker'} & {*sys.modules}
try: pipelines.cli.main(sys.argv[1:])
except SystemExit: pass
found |= {'tensorflow', 'torch', 'keras', 'numpy', 'onnxruntime', 'grpc', 'rich'} & {*sys.modules}
sys.exit(f'imported {found}' if found else 0)
"""
    own = {"TANDEM_ARTIFACTS": str(tmp_path), "TANDEM_PLATFORM": "process"}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_one_clear_line(tmp_path: Path) -> None:
    nothing = "no version of fashion is published; `make deploy` publishes the first"
    models = "there is no model 'nothing' in models/; there are: fashion, garments, language"
    for arguments, message in (
        (["publish", "--model", "nothing"], models),
        (["logs", "redis"], f"there is no target 'redis'; there are: {', '.join(targets.NAMES)}"),
        (["rollback"], nothing),
        (["predict"], nothing),
    ):
        done = tandem(*arguments, folder=tmp_path)
        assert (done.returncode, done.stderr) == (1, f"error: {message}\n"), arguments


def test_two_at_once_is_refused_with_the_holder(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711")
        file.flush()
        done = tandem("rollback", folder=tmp_path)
    assert done.returncode == 1
    assert "process 4711 is changing" in done.stderr


def test_settings_show_where_a_value_comes_from(tmp_path: Path) -> None:
    done = tandem("settings", folder=tmp_path, TANDEM_SEED="7")
    assert done.returncode == 0
    assert re.search(r"^TANDEM_PROFILE +quick ", done.stdout, re.MULTILINE)
    assert re.search(r"^TANDEM_SEED +7 ", done.stdout, re.MULTILINE)
