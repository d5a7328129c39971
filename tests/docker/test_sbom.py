"""docker/sbom, with stand-ins for syft and the engine, and with the real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "sed", "dirname", "mkdir", "mv", "rm", "wc", "tr", "sort")
SYFT = """\
#!/bin/sh
echo "$@" >>"$TANDEM_ARTIFACTS/asked"
for argument; do case $argument in spdx-json=*) file=${argument#spdx-json=} ;; *broken*) exit 1 ;; esac; done
echo '{}' >"$file"
"""
ENGINE = """\
#!/bin/sh
case "$*" in
  images*) echo tandem.invalid/web:0.1.0; echo tandem.invalid/litert:0.1.0 ;;
  *missing*) exit 1 ;;
esac
"""


class Place:
    """A checkout of two files, and a PATH of the few tools that the script may need."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.sbom = self.artifacts / "sbom"
        (self.artifacts / "repository").mkdir(parents=True)
        (root / "docker").mkdir()
        shutil.copy(ROOT / "docker" / "sbom", root / "docker" / "sbom")
        (root / "pyproject.toml").write_text('version = "0.1.0"\n')
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (root / "bin").mkdir(exist_ok=True)
            (root / "bin" / name).symlink_to(found)
        self.install("syft", SYFT)

    def install(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def run(self, *images: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.root / "bin"), "TANDEM_ARTIFACTS": str(self.artifacts)}
        command = [str(self.root / "docker" / "sbom"), *images]
        return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "a checkout")


def test_the_repository_and_every_image_of_this_version(place: Place) -> None:
    place.install("docker", ENGINE)
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert {path.name for path in place.sbom.iterdir()} == {
        "model-repository.spdx.json",
        "tandem.invalid-litert-0.1.0.spdx.json",
        "tandem.invalid-web-0.1.0.spdx.json",
    }
    asked = (place.artifacts / "asked").read_text()
    assert "docker:tandem.invalid/web:0.1.0" in asked
    assert f"dir:{place.artifacts}/repository" in asked


@pytest.mark.parametrize(
    ("engine", "images", "message"),
    [
        ("#!/bin/sh\nexit 1\n", (), "no container engine answers"),
        ("#!/bin/sh\n", (), "there is no image tandem.invalid/*:0.1.0 yet"),
        (ENGINE, ("tandem.invalid/missing:1",), "there is no image tandem.invalid/missing:1"),
        (ENGINE, ("tandem.invalid/broken:1",), "syft could not read docker:tandem.invalid/broken:1"),
    ],
)
def test_an_error_says_what_is_missing(
    place: Place, engine: str, images: tuple[str, ...], message: str
) -> None:
    place.install("docker", engine)
    done = place.run(*images)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert [path.name for path in place.sbom.iterdir()] == ["model-repository.spdx.json"]


def test_without_syft_or_a_repository(place: Place) -> None:
    (place.artifacts / "repository").rmdir()
    assert "there is no model repository" in place.run().stderr
    (place.root / "bin" / "syft").unlink()
    assert "syft is missing" in place.run().stderr


@pytest.mark.docker
@pytest.mark.timeout(600)
def test_syft_finds_what_is_in_an_image_and_in_the_repository(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "litert" / "fashion" / "1"
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(b"weights")
    environment = {**os.environ, "TANDEM_ARTIFACTS": str(tmp_path)}
    command = [str(ROOT / "docker" / "sbom"), "debian:bookworm-slim"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    of_image = json.loads((tmp_path / "sbom" / "debian-bookworm-slim.spdx.json").read_text())
    assert of_image["spdxVersion"] == "SPDX-2.3"
    assert "libc6" in {package["name"] for package in of_image["packages"]}
    of_models = json.loads((tmp_path / "sbom" / "model-repository.spdx.json").read_text())
    assert str(tmp_path) not in json.dumps(of_models)
    digests = {file["fileName"]: file["checksums"][0]["algorithm"] for file in of_models["files"]}
    assert digests["litert/fashion/1/model.tflite"] == "SHA256"
