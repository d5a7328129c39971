"""Images without an engine: what their contexts hold, what makes them be built again, and how a build fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound

from serving.platforms import builder, command, contexts, images, wheels
from serving.platforms.base import PlatformError
from serving.platforms.wheels import BOOKWORM, TRIXIE
from serving.settings import Settings

DOCKER = contexts.ROOT / "docker"
PYTHON_IMAGES = ("server", "tf-serving", "torchserve", "web", "pipeline")
DOCKERFILE = """\
# What every tool needs.
FROM scratch AS builder
RUN --mount=type=bind,source=docker/builder,target=/build \\
  --mount=type=bind,source=docker/tool,target=/tool --mount=type=cache,target=/var/cache/uv,sharing=locked \\
  /build/install

FROM scratch AS dependencies
COPY --from=builder /elsewhere /

FROM dependencies
COPY code /app/code
LABEL title="tool"
"""


class Engine:
    """As much of the Docker SDK as a build asks for."""

    def __init__(self) -> None:
        self.present: dict[str, Any] = {}
        self.images = self
        self.add(BOOKWORM.image, {})

    def add(self, name: str, labels: dict[str, str]) -> None:
        self.present[name] = SimpleNamespace(id=f"sha256:{name}", labels=labels, tags=[name])

    def get(self, name: str) -> Any:
        if name not in self.present:
            raise ImageNotFound(name)
        return self.present[name]

    def list(self, name: str) -> list[Any]:
        return [image for tag, image in self.present.items() if tag.startswith(f"{name}:")]

    def remove(self, name: str) -> None:
        self.present.pop(name, None)

    def version(self) -> dict[str, str]:
        return {"Arch": "amd64"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one image, `tool`."""
    root = tmp_path / "root"
    for name, text in {
        "docker/tool/Dockerfile": DOCKERFILE,
        "docker/builder/install": "",
        "docker/tool/requirements.txt": "numpy==1\n",
        "docker/tool/requirements.in": "numpy\n",
        "code/main.py": "print()\n",
        "code/__pycache__/main.pyc": "",
        "other.py": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(contexts, "ROOT", root)
    monkeypatch.setattr(images, "ROOT", root)
    monkeypatch.setattr(builder.engine, "find", lambda: ("unix:///nowhere", "0"))
    monkeypatch.setattr(builder.engine, "has_buildkit", lambda: True)
    monkeypatch.setattr(images, "has_buildkit", lambda: True)
    return root


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(Settings(), artifacts=tmp_path / "artifacts")


def quiet(line: str) -> None:
    """Nobody reads the report."""


def all_wheels(*arguments: Any) -> bool:
    """Every wheel was fetched."""
    return True


def docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Puts a `docker` on the PATH that does `script`, after it has noted its arguments and its context."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir(exist_ok=True)
    command = folder / "docker"
    note = f'for last; do :; done\necho "$*" >> {calls}\n(cd "$last" && find . -type f | sort >> {calls})\n'
    command.write_text(f"#!/bin/sh\n{note}{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return calls


def digest(settings: Settings, base: str = "base", machine: str = "x86_64") -> str:
    text = contexts.dockerfile("tool")
    return contexts.digest(text, contexts.context_files(settings, text), base, machine)


def publish(settings: Settings, version: int) -> None:
    model = settings.repository / "litert" / "fashion"
    for number in range(1, version + 1):
        (model / str(number)).mkdir(parents=True, exist_ok=True)
        (model / str(number) / "model.tflite").write_text(f"weights {number}")
        (model / str(number) / "manifest.json").write_text(f'{{"version": {number}}}')
    pointer = settings.repository / "fashion.json"
    pointer.write_text(f'{{"version": {version}, "previous": null, "held": false}}')


def test_the_digest_changes_with_each_file_that_is_copied_and_with_no_other(
    root: Path, settings: Settings
) -> None:
    first = digest(settings)
    (root / "other.py").write_text("changed")
    (root / "docker/tool/requirements.in").write_text("changed")
    (root / "code/__pycache__/main.pyc").write_text("changed")
    os.utime(root / "code/main.py", (0, 0))
    assert digest(settings) == first

    (root / "code/main.py").chmod(0o755)
    executable = digest(settings)
    (root / "code/main.py").write_text("print(1)\n")
    changed = digest(settings)
    (root / "code/more.py").touch()
    added = digest(settings)
    (root / "docker/tool/requirements.txt").write_text("numpy==2\n")
    others = [digest(settings), digest(settings, base="another"), digest(settings, machine="aarch64")]
    assert len({first, executable, changed, added, *others}) == 7


def test_a_context_holds_exactly_what_is_copied_readable_by_any_user(
    root: Path, settings: Settings, tmp_path: Path
) -> None:
    (root / "code/main.py").chmod(0o600)
    context = tmp_path / "context"
    (context / "left-over").mkdir(parents=True)
    text = contexts.dockerfile("tool")
    contexts.fill(context, "tool", text, contexts.context_files(settings, text))
    files = {path.relative_to(context).as_posix(): path for path in context.rglob("*") if path.is_file()}
    assert set(files) == {
        "Dockerfile",
        "code/main.py",
        "docker/builder/install",
        "docker/tool/requirements.txt",
    }
    assert files["code/main.py"].stat().st_mode & 0o777 == 0o644


def test_a_dockerfile_that_copies_what_is_not_there_is_named(root: Path, settings: Settings) -> None:
    (root / "code/main.py").unlink()
    (root / "code/__pycache__/main.pyc").unlink()
    (root / "code/__pycache__").rmdir()
    (root / "code").rmdir()
    with pytest.raises(PlatformError, match="code is missing"):
        digest(settings)


def test_the_models_image_is_named_by_the_version_that_it_holds(settings: Settings) -> None:
    text = contexts.dockerfile("models")
    with pytest.raises(images.ImageError, match="tandem publish"):
        contexts.context_files(settings, text)
    publish(settings, 2)
    files = contexts.context_files(settings, text)
    folder = "artifacts/repository/litert/fashion"
    assert {f"{folder}/2/manifest.json", f"{folder}/2/model.tflite"} < set(files)
    assert not any(name.startswith(f"{folder}/1") for name in files)
    assert images.reference("models", settings) == "tandem.invalid/models:fashion-2"
    publish(settings, 3)
    assert images.reference("models", settings) == "tandem.invalid/models:fashion-3"


@pytest.mark.parametrize("version", [1, 3])
def test_whoever_builds_the_models_image_gets_one_version(
    settings: Settings, tmp_path: Path, version: int
) -> None:
    """Its script, with the folders of the build under another root."""
    publish(settings, 2)
    script = (DOCKER / "models" / "collect").read_text()
    script = script.replace("/repository", f"{settings.repository}").replace("/models", f"{tmp_path}/models")
    done = subprocess.run(
        ["sh", "-c", script],
        env=os.environ | {"MODEL": "fashion", "MODEL_VERSION": str(version)},
        capture_output=True,
        text=True,
    )
    found = {p.relative_to(tmp_path / "models").as_posix() for p in (tmp_path / "models").rglob("*.*")}
    if version == 1:
        own = {"fashion.json", "litert/fashion/current.json"}
        assert found == own | {f"litert/fashion/1/{name}" for name in ("manifest.json", "model.tflite")}
        assert '"version": 1' in (tmp_path / "models" / "litert" / "fashion" / "current.json").read_text()
    else:
        assert (done.returncode, found) == (1, set())
        assert "version 3 of fashion is not in the model repository" in done.stderr


def test_wheels_are_fetched_for_new_dependencies_and_not_for_changed_code(
    root: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = Engine()
    fetched = []

    def fetch(pins: list[str], machine: str, folder: Path, log: Path, *_base_and_sdists: Any) -> bool:
        folder.mkdir(exist_ok=True)
        (folder / "numpy.whl").touch()
        fetched.append((list(pins), machine))
        return True

    monkeypatch.setattr(wheels, "fetch", fetch)
    calls = docker_command(tmp_path, monkeypatch, "exit 0")

    def build() -> list[str]:
        calls.write_text("")
        assert not images.is_current(engine, settings, "tool")
        images.build(engine, settings, "tool", BOOKWORM.image, quiet)
        for call in re.findall("^build .*$", calls.read_text(), re.MULTILINE):
            tag = re.search("--tag=([^ ]+)", call)
            assert tag
            engine.add(tag[1], dict(re.findall("--label=([^= ]+)=([^ ]*)", call)))
        return calls.read_text().splitlines()

    dependencies, *first = build()
    assert fetched == [(["numpy==1"], "x86_64")]
    assert "--target=dependencies" in dependencies
    assert "UV_OFFLINE=1" in dependencies
    sent = ["./Dockerfile", "./docker/builder/fetched/numpy.whl", "./docker/builder/install"]
    assert first[:4] == [*sent, "./docker/tool/requirements.txt"]
    assert first[5:] == ["./Dockerfile", "./code/main.py"]
    assert images.is_current(engine, settings, "tool")

    (root / "code/main.py").write_text("changed")
    dockerfile = root / "docker/tool/Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("every tool needs", "it needs"))
    dockerfile.write_text(dockerfile.read_text().replace('"tool"', '"another"'))
    again = build()
    assert len(fetched) == 1
    assert len([line for line in again if line.startswith("build ")]) == 1

    (root / "docker/tool/requirements.txt").write_text("numpy==2\n")
    build()
    assert len(fetched) == 2
    assert len([name for name in engine.present if "dependencies" in name]) == 1, "the older one is removed"
    assert not (settings.artifacts / "docker" / "tool").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "for i in $(seq 30); do echo line $i; done; exit 1",
            r"build-tool\.log:\n  line 16\n(.*\n)+  line 30$",
        ),
        ("echo 'write /x: no space left on device' >&2; exit 1", "The disk is full; `docker system prune`"),
    ],
)
def test_a_failed_build_says_why(
    root: Path,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    said: str,
) -> None:
    monkeypatch.setattr(wheels, "fetch", all_wheels)
    docker_command(tmp_path, monkeypatch, script)
    with pytest.raises(images.ImageError, match=said):
        images.build(Engine(), settings, "tool", BOOKWORM.image, quiet)  # type: ignore[arg-type]
    assert not (settings.artifacts / "docker" / "tool").exists()


def test_two_builds_at_once_do_not_take_each_others_context(
    root: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "fetch", all_wheels)
    docker_command(tmp_path, monkeypatch, 'sleep 0.2; test -e "$last/Dockerfile"')
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        builds = [
            pool.submit(images.build, Engine(), settings, "tool", BOOKWORM.image, said.append)  # type: ignore[arg-type]
            for _ in range(2)
        ]
    assert [build.exception() for build in builds] == [None, None]
    assert said.count("waiting for another command that builds it") == 1


def test_without_a_docker_command_it_is_said(
    root: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "fetch", all_wheels)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(images.ImageError, match="no `docker` command is on the PATH"):
        images.build(Engine(), settings, "tool", BOOKWORM.image, quiet)  # type: ignore[arg-type]


def test_an_image_without_its_base_is_still_current(root: Path, settings: Settings) -> None:
    engine: Any = Engine()
    labels = {images.LABEL: digest(settings, base="old"), images.BASE_LABEL: "old"}
    engine.add(images.reference("tool"), labels)
    assert not images.is_current(engine, settings, "tool")
    engine.remove(BOOKWORM.image)
    assert images.is_current(engine, settings, "tool")


def test_a_base_that_cannot_be_pulled_is_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = Engine()
    engine.remove(BOOKWORM.image)

    def refuse(name: str, tag: str) -> None:
        raise APIError("500 Server Error", explanation=f"no route to the registry of {name}@{tag}")

    engine.pull = refuse
    script = root / "docker" / "base-image"
    script.write_text(f'#!/bin/sh\necho "$1" > {root}/made\n')
    script.chmod(0o755)
    said: list[str] = []
    assert images.find_base(engine, root / "log", said.append) == BOOKWORM.image
    assert (root / "made").read_text() == f"{BOOKWORM.image}\n"
    assert any("no route to the registry of debian@sha256:" in line for line in said)

    script.write_text("#!/bin/sh\necho error: mmdebstrap is missing >&2\nexit 1\n")
    with pytest.raises(images.ImageError, match="mmdebstrap is missing"):
        images.find_base(engine, root / "log", said.append)


def test_a_base_is_pulled_by_its_digest(root: Path) -> None:
    engine: Any = Engine()
    engine.remove(BOOKWORM.image)
    engine.pull = lambda name, tag: engine.add(f"{name}:bookworm-slim@{tag}", {})
    said: list[str] = []
    assert images.find_base(engine, root / "log", said.append) == f"{BOOKWORM.image}@{BOOKWORM.digest}"
    assert images.find_base(engine, root / "log", said.append) == f"{BOOKWORM.image}@{BOOKWORM.digest}"
    assert said == [f"pulling {BOOKWORM.image}", "ready"], "and only once"


def test_wheels_are_chosen_for_the_engines_machine() -> None:
    pins = (DOCKER / "tf-serving" / "requirements.txt").read_text().splitlines()
    for machine, tensorflow in {"x86_64": "tensorflow-cpu", "aarch64": "tensorflow"}.items():
        found = [pin.split("==")[0] for pin in wheels.for_machine(pins, machine)]
        assert [name for name in found if name in ("tensorflow", "tensorflow-cpu")] == [tensorflow]
        assert all(tag.endswith(machine) for tag in wheels.platforms(machine))
    assert "manylinux_2_36_x86_64" in wheels.platforms("x86_64")
    assert "manylinux_2_38_x86_64" not in wheels.platforms("x86_64")
    assert "manylinux_2_38_x86_64" in wheels.platforms("x86_64", TRIXIE)


def test_what_has_no_wheel_comes_as_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(command, "run", lambda pip, _log: asked.append(pip) or 0)
    assert wheels.fetch(["pyfarmhash==1"], "x86_64", tmp_path, tmp_path / "log", TRIXIE, ["pyfarmhash"])
    (pip,) = asked
    assert pip.index("--only-binary=:all:") < pip.index("--no-binary=pyfarmhash")
    assert {"--python-version=3.13", "--abi=cp313", "--platform=manylinux_2_41_x86_64"} <= set(pip)
    pins = (contexts.ROOT / "requirements" / "tfx.txt").read_text()
    for name in (DOCKER / "tfx" / "sdists").read_text().split():
        assert f"\n{name}==" in pins


def test_torch_never_comes_from_the_general_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(command, "run", lambda pip, _log: asked.append(pip) or int("--no-index" in pip))
    assert not wheels.fetch(["numpy==1", "torch==2"], "x86_64", tmp_path, tmp_path / "log")
    assert ["torch==2" in pip for pip in asked] == [False, True]


def test_what_pip_cannot_fetch_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(images.ImageError, match="aarch64"):
        wheels.fetch(["no-such-distribution==1"], "aarch64", tmp_path, tmp_path / "log")
    assert "no-such-distribution" in (tmp_path / "log").read_text()


def test_every_pin_of_an_image_is_that_of_the_main_environment() -> None:
    def pins(path: Path) -> dict[str, str]:
        lines = [line.partition(" ; ")[0] for line in path.read_text().splitlines() if line[0] != "#"]
        return dict(line.split("==") for line in lines)

    main = pins(contexts.ROOT / "requirements" / "main.txt")
    files = sorted(DOCKER.glob("*/requirements.txt"))
    assert len(files) >= 4
    for file in files:
        wanted = re.findall(r"^([a-z][\w-]*)", file.with_name("requirements.in").read_text(), re.MULTILINE)
        assert set(wanted) <= set(pins(file)), f"{file}: `make lock`"
        assert pins(file).items() <= main.items(), file


@pytest.mark.parametrize("name", images.IMAGES)
def test_dockerfiles_are_alike(name: str) -> None:
    text = contexts.dockerfile(name)
    base = images.base_of(name)
    assert f"ARG BASE={base.image}@{base.digest}\n" in text
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"${BASE}", "dependencies", "python"}
    final = text[text.rindex("\nFROM ") :]
    assert "USER 10001:10001" in final
    assert "type=bind" not in final, "the legacy builder would leave it in the image"
    for label in ("title", "description", "licenses", "revision", "version"):
        assert f"org.opencontainers.image.{label}=" in final
    if name in PYTHON_IMAGES:
        # One layer for all of them.
        stage = contexts.dockerfile("server").split("FROM python AS builder")[0]
        assert text.startswith(stage)
    if name in (*PYTHON_IMAGES, "tfx"):
        assert contexts.stages(text)[1]


@pytest.mark.parametrize("name", images.IMAGES)
def test_the_legacy_builder_gets_a_dockerfile_without_mounts(name: str) -> None:
    text = contexts.plain(contexts.dockerfile(name))
    assert "--mount" not in text
    for line in text.splitlines():
        if "apt-get" in line:
            assert line.endswith("&& rm -rf /var/cache/apt/* /var/lib/apt/lists/*")


@pytest.mark.parametrize("name", images.IMAGES)
def test_a_plain_build_is_sent_what_the_dockerfile_copies(name: str, settings: Settings) -> None:
    publish(settings, 1)
    lines = (contexts.ROOT / ".dockerignore").read_text().splitlines()
    sent = [line[1:] for line in lines if line.startswith("!")]
    for file in map(Path, contexts.context_files(settings, contexts.dockerfile(name))):
        assert any(part.match(pattern) for pattern in sent for part in (file, *file.parents)), file


def test_the_modules_that_a_server_imports_are_in_its_image(settings: Settings, tmp_path: Path) -> None:
    torchserve = ("launch", "trial")
    for name, modules in {
        "server": ["serving.server.main"],
        "tf-serving": ["serving.server.main"],
        "torchserve": [f"serving.torchserve.{module}" for module in torchserve],
    }.items():
        text = contexts.dockerfile(name)
        context = tmp_path / name
        contexts.fill(context, name, text, contexts.context_files(settings, text))
        # What the environment finds in the working tree by itself would stand in for what the image lacks.
        script = (
            f"import sys; sys.path.insert(0, {str(context)!r}); "
            "sys.meta_path[:] = [finder for finder in sys.meta_path if 'ditable' not in repr(finder)]; "
            f"import {', '.join(modules)}, serving; print(serving.__file__)"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.stdout.startswith(str(context)), done.stderr


def test_an_engine_that_starts_no_container_is_named_and_nothing_is_left_in_it() -> None:
    removed: list[bool] = []

    def remove(force: bool) -> None:
        removed.append(force)

    def refuse() -> None:
        raise APIError("500 Server Error", explanation="OCI runtime create failed")

    container = SimpleNamespace(start=refuse, remove=remove)
    engine: Any = Engine()
    engine.containers = SimpleNamespace(create=lambda *_, **__: container)
    with pytest.raises(
        PlatformError, match=r"starts no container: OCI runtime create failed\. PLATFORM=process"
    ):
        images.require_startable(engine, BOOKWORM.image)
    assert removed == [True]
    images.require_startable(engine, "none:here")


def test_an_image_built_by_hand_is_current_while_it_is_younger_than_its_sources(
    root: Path, settings: Settings
) -> None:
    engine: Any = Engine()
    engine.add(images.reference("tool"), {})
    image = engine.get(images.reference("tool"))
    image.attrs = {"Created": "2999-01-01T00:00:00.123456789Z"}
    assert images.is_current(engine, settings, "tool")
    image.attrs = {"Created": "2001-01-01T00:00:00.123456789Z"}
    assert not images.is_current(engine, settings, "tool")
