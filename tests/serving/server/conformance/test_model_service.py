"""ModelService.HandleReloadConfigRequest: serving_config, model_service_impl.cc, server_core.cc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..processes import ServerProcess, tandem_tf_serving
from .clients import Grpc, code_and_details, eventually, floats, predict, predict_request, value
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
    process = tandem_tf_serving(folder / "log", f"--model_config_file={config}", "--max_num_load_retries=0")
    process.wait_for("/v1/models/half_plus/versions/2", "AVAILABLE", 30)
    yield process
    process.stop()


@pytest.fixture
def client(reloaded: ServerProcess, models: Path) -> Iterator[Grpc]:
    """Its stubs, with versions 1 and 2 of half_plus served and no labels."""
    with Grpc(reloaded.grpc) as stubs:
        stubs.reload(model_config(half_plus=f"{models}/half_plus {ONE_AND_TWO}"))
        eventually(
            lambda: predict(reloaded, "half_plus", {"instances": [2.0]}).json() == {"predictions": [3.0]}
        )
        yield stubs


def test_add_and_remove_a_model(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """server_core.cc, ReloadConfig: new models are available when the call returns; those left out are unloaded."""
    one = f"{models}/half_plus {ONE_AND_TWO}"
    answer = client.reload(model_config(half_plus=one, half_plus_two=f"{models}/half_plus_two"))
    assert (answer.status.error_code, answer.status.error_message) == (0, "")
    assert value(reloaded, "half_plus_two", {"instances": [[2.0]]}) == [[3.0]]
    assert value(reloaded, "half_plus", {"instances": [2.0]}) == [3.0]
    client.reload(model_config(half_plus=one))
    eventually(lambda: predict(reloaded, "half_plus_two", {"instances": [[2.0]]}).status == 404)
    assert value(reloaded, "half_plus", {"instances": [2.0]}) == [3.0]


def test_the_state_of_what_was_removed(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """servable_state_monitor.h keeps states: END without an error, over gRPC and REST."""
    client.reload(
        model_config(half_plus=f"{models}/half_plus model_version_policy {{ specific {{ versions: 2 }} }}")
    )
    eventually(lambda: client.status("half_plus").get(1) == ("END", 0, ""))
    assert client.status("half_plus")[2] == ("AVAILABLE", 0, "")
    answer = reloaded.call("GET", "/v1/models/half_plus/versions/1").json()
    status = {"error_code": "OK", "error_message": ""}
    assert answer == {"model_version_status": [{"version": "1", "state": "END", "status": status}]}
    assert predict(reloaded, "half_plus", {"instances": [2.0]}, "/versions/1").status == 404


def test_the_states_of_a_model_that_was_removed(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """servable_state_monitor.h: what was served stays known as END, until it is served again."""
    two = {"half_plus": f"{models}/half_plus {ONE_AND_TWO}", "gone": f"{models}/half_plus"}
    client.reload(model_config(**two))
    assert client.status("gone") == {3: ("AVAILABLE", 0, "")}
    client.reload(model_config(half_plus=two["half_plus"]))
    eventually(lambda: client.status("gone") == {3: ("END", 0, "")})
    assert predict(reloaded, "gone", {"instances": [2.0]}).status == 404
    answer = reloaded.call("GET", "/v1/models/gone").json()
    assert [(one["version"], one["state"]) for one in answer["model_version_status"]] == [("3", "END")]
    two["gone"] = f"{models}/half_plus {ONE_AND_TWO}"
    client.reload(model_config(**two))
    assert {version: state for version, (state, _, _) in client.status("gone").items()} == {
        **{1: "AVAILABLE", 2: "AVAILABLE", 3: "END"}
    }


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


def test_labels_of_versions_that_are_not_available(
    reloaded: ServerProcess, client: Grpc, models: Path
) -> None:
    """serving_config: labels are for versions already loaded; server_core.cc: FAILED_PRECONDITION, nothing changes."""
    base = f"{models}/half_plus {ONE_AND_TWO}"
    client.reload(model_config(half_plus=base + label("stable", 1)))
    policy = "model_version_policy { all { } }"
    for config in (base + label("stable", 9), f"{models}/half_plus {policy}" + label("stable", 3)):
        code, _ = code_and_details(client.reload, model_config(half_plus=config))
        assert code == "FAILED_PRECONDITION"
        assert value(reloaded, "half_plus", {"instances": [2.0]}, "/labels/stable") == [2.0]


def test_configs_that_are_refused(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """server_core.cc, ValidateModelConfigList, GetPlatform: INVALID_ARGUMENT, and what was served still is."""
    entry = f'config {{ name: "half_plus" base_path: "{models}/half_plus" model_platform: "tensorflow" }}'
    for config in (
        f"model_config_list {{ {entry} {entry} }}",
        'model_config_list { config { name: "new" base_path: "models/half_plus" model_platform: "tensorflow" } }',
        f'model_config_list {{ config {{ name: "new" base_path: "{models}/half_plus" }} }}',
        f'model_config_list {{ config {{ name: "new" base_path: "{models}/half_plus" model_platform: "caffe" }} }}',
        f'model_config_list {{ config {{ name: "half_plus" base_path: "{models}/half_plus" model_platform: "x" }} }}',
        "",
    ):
        code, _ = code_and_details(client.reload, config)
        assert code == "INVALID_ARGUMENT", config
        assert value(reloaded, "half_plus", {"instances": [2.0]}, "/versions/1") == [2.0]


def test_the_deprecated_type_of_a_model(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """server_core.cc, GetPlatform: model_type TENSORFLOW in place of the platform; not both."""
    entry = f'name: "half_plus" base_path: "{models}/half_plus" model_type: TENSORFLOW'
    client.reload(f"model_config_list {{ config {{ {entry} }} }}")
    eventually(lambda: predict(reloaded, "half_plus", {"instances": [2.0]}).json() == {"predictions": [4.0]})
    both = f'model_config_list {{ config {{ {entry} model_platform: "tensorflow" }} }}'
    assert code_and_details(client.reload, both)[0] == "INVALID_ARGUMENT"


def test_another_base_path(reloaded: ServerProcess, client: Grpc, models: Path) -> None:
    """server_core_test.cc, ReloadConfigChangeModelBasePath: the versions of the new folder take over."""
    client.reload(model_config(half_plus=f"{models}/half_plus_two"))
    eventually(
        lambda: predict(reloaded, "half_plus", {"instances": [[2.0]]}).json() == {"predictions": [[3.0]]}
    )
    eventually(lambda: client.status("half_plus")[2][0] == "END")
    assert client.status("half_plus")[123][0] == "AVAILABLE"


def test_an_empty_list_unloads_everything(reloaded: ServerProcess, client: Grpc) -> None:
    """model_service_impl.cc takes any ModelConfigList, and serving_config: only what the new one has is served."""
    assert client.reload("model_config_list { }").status.error_code == 0
    eventually(lambda: predict(reloaded, "half_plus", {"instances": [2.0]}).status == 404)
