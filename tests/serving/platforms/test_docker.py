"""compose.yaml against the house's rules, and an engine's words against ours; the containers run end to end."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from serving import targets
from serving.platforms import containers, docker, engine, images, provision
from serving.platforms.base import MONITORING, PlatformError
from serving.settings import PREFIX, Settings

COMPOSE = docker.COMPOSE_FILE.read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
SERVERS = [*targets.NAMES, MONITORING]
VARIABLES = {"IMAGE_VERSION", "TF_SERVING_IMAGE", "MODEL_VERSION", "PIPELINE_IMAGE"}


def test_every_target_is_a_service_and_every_image_is_built() -> None:
    assert set(targets.NAMES) < set(SERVICES)
    built = {service["build"]["dockerfile"] for service in SERVICES.values()}
    assert built == {f"docker/{name}/Dockerfile" for name in images.IMAGES}
    for service in SERVICES.values():
        assert (docker.COMPOSE_FILE.parent / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "10001:10001"
    assert service["restart"] == "unless-stopped"
    assert service["networks"] == ["tandem"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert {"mem_limit", "cpu_quota", "pids_limit"} <= set(service), "`cpus: 2` is refused where there is one"
    assert all(port.startswith("${TANDEM_HOST:-127.0.0.1}:") for port in service["ports"])
    for volume in service.get("volumes", []):
        assert volume.endswith(":ro") or volume.startswith("prometheus:")


@pytest.mark.parametrize("name", SERVERS)
def test_published_ports_are_those_of_the_settings(name: str) -> None:
    settings = Settings()
    published = {
        int(default): getattr(settings, variable.removeprefix(PREFIX).lower())
        for variable, default in re.findall(
            r"\$\{(TANDEM_\w+_PORT):-(\d+)\}", " ".join(SERVICES[name]["ports"])
        )
    }
    assert all(default == own for default, own in published.items())
    expected = (
        {settings.prometheus_port} if name == MONITORING else set(targets.load(name).ports(settings).values())
    )
    assert set(published) == expected


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_container_has_the_ports_that_its_target_names(name: str) -> None:
    inside = {int(port.rsplit(":", 1)[1]) for port in SERVICES[name]["ports"]}
    assert inside == set(targets.load(name).container.ports.values())
    asked = " ".join(SERVICES[name].get("healthcheck", {"test": []})["test"])
    image = (docker.COMPOSE_FILE.parent / SERVICES[name]["build"]["dockerfile"]).read_text()
    assert "HEALTHCHECK" in image or str(targets.load(name).container.ports["http"]) in asked


def test_every_variable_is_one_that_is_set() -> None:
    known = {PREFIX + field.upper() for field in vars(Settings())} | VARIABLES
    assert set(re.findall(r"\$\{(\w+)", COMPOSE)) <= known
    for version in re.findall(r"IMAGE_VERSION:-([^}]+)\}|tandem.invalid/tf-serving:([^}]+)\}", COMPOSE):
        assert images.VERSION in version


def container(restarts: int = 0, image: str = "tandem.invalid/litert:1", **state: Any) -> Any:
    whole = {"Status": "running", "Running": True, "Restarting": False} | state
    attributes = {"State": whole, "RestartCount": restarts, "Config": {"Image": image}}
    return SimpleNamespace(attrs=attributes)


MOMENTS = {"StartedAt": "2026-01-01T00:00:00.123456789Z", "FinishedAt": "2026-01-01T00:00:03.5Z"}
LONG = MOMENTS | {"FinishedAt": "2026-01-02T00:00:00Z"}
RESTARTING = {"Status": "restarting", "Restarting": True}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (container(), "running"),
        (container(Health={"Status": "starting"}), "starting"),
        (container(Health={"Status": "healthy"}), "running"),
        (container(Health={"Status": "unhealthy"}), "unhealthy"),
        (container(Status="created", Running=False), "stopped"),
        (container(Status="exited", Running=False, **MOMENTS), "stopped"),
        (container(1, **RESTARTING, **MOMENTS), "restarting"),
        (container(containers.GIVEN_UP, **RESTARTING, **MOMENTS), "failed"),
        (container(containers.GIVEN_UP, **RESTARTING, **LONG), "restarting"),
        (container(Status="dead", Running=False), "failed"),
    ],
)
def test_states_are_told_in_our_words(state: Any, expected: str) -> None:
    assert containers.word(state) == expected


def test_a_full_disk_is_named_with_what_helps() -> None:
    said = engine.explained("one\nwrite /x: no space left on device\n")
    assert said.startswith("one\n")
    assert "docker system prune" in said


def test_what_the_containers_may_not_read_is_named(tmp_path: Path) -> None:
    settings = Settings(artifacts=tmp_path)
    for folder in ("repository", "samples", "run/tf-serving/container", "run/tfjs/config"):
        (tmp_path / folder).mkdir(parents=True)
    # What Caddy keeps as a process is its own.
    (tmp_path / "run" / "tfjs" / "caddy").mkdir(mode=0o700)
    secret = tmp_path / "repository" / "model"
    secret.write_text("")
    docker._require_readable(settings)
    secret.chmod(0o600)
    with pytest.raises(PlatformError, match=f"may not read {secret}: `chmod -R o\\+rX"):
        docker._require_readable(settings)


@pytest.mark.parametrize(
    ("folder", "artifacts", "expected"),
    [
        ("/clone", "./artifacts", "/clone/artifacts"),
        ("/clone", "/elsewhere", "/elsewhere"),
        ("/clone", None, None),
    ],
)
def test_a_deployment_is_known_by_what_it_reads_whoever_started_it(
    folder: str, artifacts: str | None, expected: str | None
) -> None:
    labels = {containers.FOLDER: folder} | ({containers.ARTIFACTS: artifacts} if artifacts else {})
    found: Any = SimpleNamespace(labels=labels)
    assert containers.artifacts_of(found) == (Path(expected) if expected else None)


def test_no_server_starts_before_a_version_is_published() -> None:
    for name in targets.NAMES:
        assert SERVICES[name]["depends_on"] == {"pipeline": {"condition": "service_completed_successfully"}}
    assert SERVICES["pipeline"]["command"] == ["publish", "--containers"]
    assert "profiles" not in SERVICES["pipeline"]


def test_an_unknown_image_is_named_with_those_that_exist() -> None:
    with pytest.raises(PlatformError, match="there is no image 'tfserving'; there are: tf-serving, "):
        provision.build(Settings(), ["tfserving"], lambda *_: None)


def test_the_container_of_tf_serving_has_the_flags_of_its_process() -> None:
    process = {flag.partition("=")[0] for flag in targets.load("tf-serving").launch(Settings()).command[1:]}
    container = {flag.partition("=")[0] for flag in SERVICES["tf-serving"]["command"]}
    assert container == process - {"--host"}
