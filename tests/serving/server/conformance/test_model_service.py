"""ModelService.HandleReloadConfigRequest: serving_config, model_service_impl.cc, server_core.cc."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..processes import ServerProcess, running_tfs
from .clients import (
    Grpc,
    code_and_details,
    eventually,
    floats,
    predict,
    predict_request,
    value,
    write_warm_up,
)
from .saved_models import model_config

ONE_AND_TWO = "model_version_policy { specific { versions: 1 versions: 2 } }"


def label(name: str, version: int) -> str:
    return f' version_labels {{ key: "{name}" value: {version} }}'


@pytest.fixture(scope="module")
def reloaded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose config the tests replace."""
    folder = tmp_path_factory.mktemp("model_service")
    config = folder / "models.config"
    config.write_text(model_config(half_plus=f"{models}/half_plus {ONE_AND_TWO}"))
    flags = (f"--model_config_file={config}", "--max_num_load_retries=0", "--enable_model_warmup=false")
    with running_tfs(folder, *flags, models=("half_plus/versions/2",)) as server:
        yield server


@pytest.fixture
def client(reloaded: ServerProcess, models: Path) -> Iterator[Grpc]:
    """Its stubs, with versions 1 and 2 of half_plus served and no labels."""
    with Grpc(reloaded.grpc) as stubs:
        stubs.reload(model_config(half_plus=f"{models}/half_plus {ONE_AND_TWO}"))
        eventually(
            lambda: predict(reloaded, "half_plus", {"instances": [2.0]}).json() == {"predictions": [3.0]}
        )
        yield stubs


def test_models_come_and_go(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """server_core.cc, ReloadConfig: new models are available when the call returns; those left out are unloaded.

    servable_state_monitor.h: what was served stays known as END.
    """
    base = f"{models}/half_plus {ONE_AND_TWO}"
    answer = client.reload(model_config(half_plus=base, gone=f"{models}/half_plus"))
    assert (answer.status.error_code, answer.status.error_message) == (0, "")
    assert value(reloaded, "gone", {"instances": [2.0]}) == [4.0]
    assert client.status("gone") == {3: ("AVAILABLE", 0, "")}
    client.reload(model_config(half_plus=base))
    eventually(lambda: client.status("gone") == {3: ("END", 0, "")})
    assert predict(reloaded, "gone", {"instances": [2.0]}).status == 404
    (status,) = reloaded.call("GET", "/v1/models/gone").json()["model_version_status"]
    assert (status["version"], status["state"]) == ("3", "END")


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [3]),
        ("model_version_policy { latest { num_versions: 2 } }", [2, 3]),
        ("model_version_policy { all { } }", [1, 2, 3]),
        ("model_version_policy { specific { versions: 1 versions: 3 } }", [1, 3]),
    ],
)
def test_version_policies(
    reloaded: ServerProcess, client: Grpc, models: Path, policy: str, served: list[int]
) -> None:
    """serving_config, "Serving a Specific Version of a Model"; the latest one if unset."""
    client.reload(model_config(half_plus=f"{models}/half_plus {policy}"))

    def available() -> list[int]:
        return sorted(v for v, state in client.status("half_plus").items() if state[0] == "AVAILABLE")

    eventually(lambda: available() == served)
    assert value(reloaded, "half_plus", {"instances": [2.0]}) == [1.0 + served[-1]]


def test_labels(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """serving_config, "Assigning String Labels to Model Versions": by REST and gRPC, moved by another config."""
    base = f"{models}/half_plus {ONE_AND_TWO}"
    body = {"instances": [2.0]}
    client.reload(model_config(half_plus=base + label("stable", 1) + label("canary", 2)))
    assert value(reloaded, "half_plus", body, "/labels/stable") == [2.0]
    assert value(reloaded, "half_plus", body, "/labels/canary") == [3.0]
    request = predict_request("half_plus", x=floats([2.0]))
    request.model_spec.version_label = "stable"
    answer = client.predict(request)
    assert list(answer.outputs["y"].float_val) == [2.0]
    assert answer.model_spec.version.value == 1
    metadata = reloaded.call("GET", "/v1/models/half_plus/labels/stable/metadata")
    assert metadata.status == 200
    assert metadata.json()["model_spec"]["version"] == "1"
    assert reloaded.call("GET", "/v1/models/half_plus/labels/stable").status == 200
    client.reload(model_config(half_plus=base + label("stable", 2)))
    assert value(reloaded, "half_plus", body, "/labels/stable") == [3.0]
    assert predict(reloaded, "half_plus", body, "/labels/canary").status == 400


def test_configs_that_are_refused(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """server_core.cc, ValidateModelConfigList and the labels of what is not available: what was served still is."""
    for config, code in (
        ('model_config_list { config { name: "new" base_path: "models" } }', "INVALID_ARGUMENT"),
        ("", "INVALID_ARGUMENT"),
        (model_config(half_plus=f"{models}/half_plus" + label("stable", 9)), "FAILED_PRECONDITION"),
    ):
        assert code_and_details(client.reload, config)[0] == code, config
        assert value(reloaded, "half_plus", {"instances": [2.0]}, "/versions/1") == [2.0]


def test_another_base_path(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """server_core_test.cc, ReloadConfigChangeModelBasePath: the versions of the new folder take over."""
    client.reload(model_config(half_plus=f"{models}/half_plus_two"))
    eventually(
        lambda: predict(reloaded, "half_plus", {"instances": [[2.0]]}).json() == {"predictions": [[3.0]]}
    )
    eventually(lambda: client.status("half_plus")[2][0] == "END")
    assert client.status("half_plus")[123][0] == "AVAILABLE"


def test_warm_up_can_be_off(reloaded: ServerProcess, client: Grpc, models: Path, tmp_path: Path) -> None:
    """main.cc, --enable_model_warmup: a version loads though the requests that it brings along cannot be read."""
    write_warm_up(shutil.copytree(models / "half_plus" / "1", tmp_path / "cold" / "1"), b"garbage")
    client.reload(model_config(cold=str(tmp_path / "cold")))
    assert value(reloaded, "cold", {"instances": [2.0]}) == [2.0]


def test_an_empty_list_unloads_everything(reloaded: ServerProcess, client: Grpc) -> None:
    """model_service_impl.cc takes any ModelConfigList, and serving_config: only what the new one has is served."""
    assert client.reload("model_config_list { }").status.error_code == 0
    eventually(lambda: predict(reloaded, "half_plus", {"instances": [2.0]}).status == 404)
