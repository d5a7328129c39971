from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.settings import Settings, SettingsError


def test_defaults_are_the_documented_addresses() -> None:
    settings = Settings.from_environment({"PATH": "/bin"})
    assert (settings.host, settings.tf_serving_rest_port, settings.tfjs_port) == ("127.0.0.1", 8501, 8090)
    assert settings.artifacts == Path.cwd() / "artifacts"


def test_values_come_from_the_environment() -> None:
    settings = Settings.from_environment({"TANDEM_TFJS_PORT": "9999", "TANDEM_ARTIFACTS": "/somewhere"})
    assert settings.tfjs_port == 9999
    assert settings.repository == Path("/somewhere/repository")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TANDEM_TFJS_PORT", "http", "expected int"),
        ("TANDEM_TFJS_PORT", "70000", "a port is 1 to 65535"),
        ("TANDEM_SOURCE", "jax", "expected one of '', 'tensorflow', 'pytorch'"),
        ("TANDEM_READY_SECONDS", "0", "at least 1 second"),
        ("TANDEM_SEED", "-1", "expected 0 to 4294967295"),
        ("TANDEM_TARGETS", ",", "expected names of targets"),
        ("TANDEM_NODES", "0", "expected at least 1"),
        ("TANDEM_NODE_RANK", "1", "expected 0 to 0, as TANDEM_NODES is 1"),
        ("TANDEM_PROT", "1", "unknown setting TANDEM_PROT"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_may_be(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as failure:
        Settings.from_environment({name: value})
    assert name in str(failure.value)


def test_a_value_that_replaces_another_is_held_against_the_same_rules() -> None:
    with pytest.raises(
        SettingsError, match="TANDEM_PRECISION='fp8': expected one of 'float32', 'bf16', 'fp16'"
    ):
        dataclasses.replace(Settings(), precision="fp8")


def test_nodes_need_the_address_of_the_first_and_keep_their_runs_apart() -> None:
    with pytest.raises(SettingsError, match="TANDEM_MASTER_ADDR='': expected node 0's address"):
        Settings.from_environment({"TANDEM_NODES": "2"})
    first, second = (Settings(nodes=2, devices=2, node_rank=rank, master_addr="127.0.0.1") for rank in (0, 1))
    assert (first.alone.devices, first.own) == (4, first.artifacts)
    assert second.own == first.artifacts / "nodes" / "1"
