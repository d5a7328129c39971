"""What `tandem-tf-serving` is told to serve: flags, configurations, labels."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from serving.repository import RepositoryError
from serving.server import tfs_flags
from serving.server.errors import FailedPreconditionError, InvalidRequestError
from serving.server.model_config import ConfigSource, LabelRules, configs_of
from serving.server.text_configs import ConfigError, read

MODEL = 'name: "m" base_path: "/models/m" model_platform: "tensorflow"'


def message(text: str) -> Any:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    return text_format.Parse(text, ModelServerConfig())


def one(more: str = "", model: str = MODEL) -> Any:
    return message(f"model_config_list {{ config {{ {model} {more} }} }}")


def label(version: int, name: str = "stable") -> str:
    return f'version_labels {{ key: "{name}" value: {version} }}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"model_config_list {{ config {{ {MODEL} }} config {{ {MODEL} }} }}", "list model m multiple times"),
        (
            'model_config_list { config { name: "m" base_path: "m" } }',
            "absolute path or URI; got base_path.*=m$",
        ),
        ('model_config_list { config { name: "m" } }', "absolute path"),
        ('model_config_list { config { name: "m" base_path: "/m" } }', "Illegal setting neither"),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "torch" } }',
            "Model m requests unsupported platform torch",
        ),
        (f"model_config_list {{ config {{ {MODEL} model_type: TENSORFLOW }} }}", "Illegal setting both"),
        (
            f"model_config_list {{ config {{ {MODEL} model_version_policy {{ specific {{}} }} }} }}",
            "names no version",
        ),
        ("custom_model_config {}", "custom model config"),
    ],
)
def test_a_bad_configuration_is_refused_and_changes_nothing(text: str, reason: str) -> None:
    source = ConfigSource.of_one("here", Path("/models/here"))
    with pytest.raises(InvalidRequestError, match=reason):
        source.replace(message(text))
    assert list(source.find()) == ["here"]


def test_a_new_configuration_tells_which_models_are_new() -> None:
    source = ConfigSource.of_one("m", Path("/models/m"))
    other = MODEL.replace('"m"', '"other"')
    assert source.replace(message(f"model_config_list {{ config {{ {MODEL} }} config {{ {other} }} }}")) == {
        "other"
    }
    assert source.replace(message("model_config_list {}")) == set()
    assert source.find() == {}


def test_labels_name_versions_that_answer() -> None:
    source = ConfigSource(configs_of(one()))
    source.available = lambda model, version: (model, version) in {("m", 1), ("m", 2)}
    source.replace(one(label(1)))
    source.replace(one(label(2)))
    with pytest.raises(
        FailedPreconditionError, match="label to version 3 of model m, which is not currently"
    ):
        source.replace(one(label(3)))
    assert source.find()["m"].labels == {"stable": 2}
    source.replace(one())
    assert source.find()["m"].labels == {}


def test_labels_may_name_versions_to_come_by_flag() -> None:
    with pytest.raises(ConfigError, match="version 1 of model m, which is not currently available"):
        ConfigSource(configs_of(one(label(1))))
    unused = ConfigSource(configs_of(one(label(1))), rules=LabelRules(unused=True))
    unused.replace(one(label(1) + label(5, "canary")))
    with pytest.raises(FailedPreconditionError, match="version 2"):
        unused.replace(one(label(2)))
    every = ConfigSource(configs_of(one(label(1))), rules=LabelRules(every=True))
    every.replace(one(label(2)))
    assert every.find()["m"].labels == {"stable": 2}


def test_a_config_file_is_read_again_and_a_broken_one_is_not_followed(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(f"model_config_list {{ config {{ {MODEL} }} }}")
    source = ConfigSource.from_file(file, 1e-9, LabelRules())
    for text in ("garbage", "model_config_list { config { } }"):
        file.write_text(text)
        assert list(source.find()) == ["m"]
    file.unlink()
    assert list(source.find()) == ["m"]
    other = MODEL.replace('"m"', '"other"')
    file.write_text(f"model_config_list {{ config {{ {other} }} }}")
    assert list(source.find()) == ["other"]
    file.write_text("model_config_list { }")
    assert list(source.find()) == []


def test_a_config_file_that_was_emptied_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """server_core.cc, ReloadConfig: from a list to another only; whoever rewrites a file empties it at first."""
    file = tmp_path / "models.config"
    file.write_text("# none yet")
    source = ConfigSource.from_file(file, 1e-9, LabelRules())
    assert list(source.find()) == []
    file.write_text(f"model_config_list {{ config {{ {MODEL} }} }}")
    assert list(source.find()) == ["m"]
    file.write_text("")
    assert list(source.find()) == ["m"]
    assert "only legal to transition from one ModelConfigList to another" in caplog.text


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (1, 512, 5, 60.0)),
        (["--enable_batching"], (64, 512, 5, 60.0)),
        (["--enable_batching=true", "--max_queue=9"], (64, 9, 5, 60.0)),
        (["--max_num_load_retries=0", "--load_retry_interval_micros=-1"], (1, 512, 0, 0.0)),
        (["--max_num_load_retries=-1"], (1, 512, sys.maxsize, 60.0)),
    ],
)
def test_limits_follow_the_flags(flags: list[str], expected: tuple[int, int, int, float]) -> None:
    limits = tfs_flags.limits(tfs_flags.parser().parse_args(flags))
    assert (limits.batch_rows, limits.queue, limits.retries, limits.retry_seconds) == expected


def test_batching_parameters_map_to_the_batcher_s_limits(tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 16 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 3 }\n"
        "allowed_batch_sizes: 8 allowed_batch_sizes: 16 pad_variable_length_inputs: true"
    )
    flags = [f"--batching_parameters_file={file}"]
    limits = tfs_flags.limits(tfs_flags.parser().parse_args(["--enable_batching", *flags]))
    assert (limits.batch_rows, limits.queue) == (16, 48)
    with pytest.raises(ConfigError, match="without setting --enable_batching"):
        tfs_flags.limits(tfs_flags.parser().parse_args(flags))
    file.write_text("max_batch_size: {")
    with pytest.raises(
        ConfigError, match=r"Error parsing text-format tensorflow\.serving.BatchingParameters"
    ):
        tfs_flags.limits(tfs_flags.parser().parse_args(["--enable_batching", *flags]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_batch_size { value: 0 }", "expected max_batch_size of at least 1, got 0"),
        ("max_batch_size { value: -5 }", "expected max_batch_size of at least 1, got -5"),
        ("batch_timeout_micros { value: -1 }", "expected batch_timeout_micros of at least 0, got -1"),
        ("max_enqueued_batches { value: -1 }", "expected max_enqueued_batches of at least 1, got -1"),
        ("num_batch_threads { value: 0 }", "expected num_batch_threads of at least 1, got 0"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "the last one max_batch_size, 8; got 4"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [4, 2, 8]", "in increasing order"),
    ],
)
def test_batching_parameters_that_make_no_sense_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    """shared_batch_scheduler.h, AddQueue; session_bundle_config.proto, num_batch_threads and allowed_batch_sizes."""
    (tmp_path / "batching").write_text(text)
    flags = ["--enable_batching", f"--batching_parameters_file={tmp_path / 'batching'}"]
    with pytest.raises(ConfigError, match=reason):
        tfs_flags.limits(tfs_flags.parser().parse_args(flags))


def test_fields_that_nobody_knows_do_not_go_unnoticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "batching").write_text("max_batch_size { value: 9 } max_bach_size { value: 8 }")
    flags = ["--enable_batching", f"--batching_parameters_file={tmp_path / 'batching'}"]
    assert tfs_flags.limits(tfs_flags.parser().parse_args(flags)).batch_rows == 9
    assert "max_bach_size" in caplog.text
    (tmp_path / "monitoring").write_text("prometheus_config { enabled: true }")
    with pytest.raises(ConfigError, match=r"enabled.* Invalid protobuf file: '.*monitoring'"):
        tfs_flags.monitoring_path(
            tfs_flags.parser().parse_args([f"--monitoring_config_file={tmp_path / 'monitoring'}"])
        )


@pytest.mark.parametrize(
    ("flag", "seconds"), [("", 30.0), ("=250", 0.25), ("=0", tfs_flags.DAY), ("=-1", tfs_flags.DAY)]
)
def test_no_time_for_a_rest_request_is_no_limit(flag: str, seconds: float) -> None:
    """http_rest_api_handler.cc sets a timeout above 0 only."""
    given = [f"--rest_api_timeout_in_ms{flag}"] if flag else []
    assert tfs_flags.rest_seconds(tfs_flags.parser().parse_args(given)) == seconds


@pytest.mark.parametrize("flag", ["--file_system_poll_wait_seconds=-1", "--port=-1", "--max_batch_rows=0"])
def test_a_number_that_makes_no_sense_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """main.cc keeps a negative --file_system_poll_wait_seconds to its tests: nothing would ever be served."""
    with pytest.raises(SystemExit):
        tfs_flags.parser().parse_args([flag])
    name, _, value = flag.partition("=")
    assert re.search(rf"{name}.*: expected .*, got '{value}'", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        ([], 1.0),
        (["--file_system_poll_wait_seconds=5", "--model_config_file_poll_wait_seconds=3"], 3.0),
        (["--file_system_poll_wait_seconds=5", "--model_config_file_poll_wait_seconds=-1"], 5.0),
        (["--file_system_poll_wait_seconds=0"], 60.0),
        (["--file_system_poll_wait_seconds=0", "--load_retry_interval_micros=0"], 1.0),
    ],
)
def test_how_often_anything_is_looked_at(flags: list[str], seconds: float) -> None:
    assert tfs_flags.poll_seconds(tfs_flags.parser().parse_args(flags)) == seconds


def test_folders_that_are_looked_at_once_are_so_for_each_configuration(tmp_path: Path) -> None:
    """main.cc, --file_system_poll_wait_seconds: 0 is exactly once; a folder that is not there yet is none."""
    source = ConfigSource.of_one("m", tmp_path / "m", once=True)

    def wanted() -> list[int]:
        model = source.find()["m"]
        return model.policy(model.directory)

    with pytest.raises(RepositoryError):
        wanted()
    (tmp_path / "m" / "1").mkdir(parents=True)
    assert wanted() == [1]
    (tmp_path / "m" / "2").mkdir()
    assert wanted() == [1]
    source.replace(one(model=f'name: "m" base_path: "{tmp_path}/m" model_platform: "tensorflow"'))
    assert wanted() == [2]


@pytest.mark.parametrize(
    "name",
    [
        *("model_base_path", "model_config_file", "batching_parameters_file"),
        *("monitoring_config_file", "ssl_config_file"),
    ],
)
def test_a_path_that_is_empty_is_not_given(name: str) -> None:
    """main.cc and server.cc look at what is not empty only, and templates of commands leave flags empty."""
    assert getattr(tfs_flags.parser().parse_args([f"--{name}="]), name) is None


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_config_file_that_is_not_polled_is_read_once(tmp_path: Path, seconds: float) -> None:
    file = tmp_path / "models.config"
    file.write_text(f"model_config_list {{ config {{ {MODEL} }} }}")
    source = ConfigSource.from_file(file, seconds, LabelRules())
    file.write_text("model_config_list {}")
    assert list(source.find()) == ["m"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (1, 1)),
        (["--tensorflow_session_parallelism=4"], (4, 4)),
        (["--tensorflow_intra_op_parallelism=2"], (2, 1)),
        (["--tensorflow_inter_op_parallelism=3", "--tensorflow_session_parallelism=2"], (1, 3)),
    ],
)
def test_threads_follow_the_flags(flags: list[str], expected: tuple[int, int]) -> None:
    assert tfs_flags.threads(tfs_flags.parser().parse_args(flags)) == expected


def test_monitoring_and_channel_arguments(tmp_path: Path) -> None:
    def path_of(text: str) -> str | None:
        (tmp_path / "monitoring.config").write_text(text)
        flag = f"--monitoring_config_file={tmp_path / 'monitoring.config'}"
        return tfs_flags.monitoring_path(tfs_flags.parser().parse_args([flag]))

    assert tfs_flags.monitoring_path(tfs_flags.parser().parse_args([])) is None
    assert path_of("prometheus_config { enable: true }") == tfs_flags.METRICS_PATH
    assert path_of('prometheus_config { enable: true path: "/m" }') == "/m"
    assert path_of('prometheus_config { path: "/m" }') is None
    given = tfs_flags.parser().parse_args(["--grpc_channel_arguments=a.b=-1,c=d,e=--5"])
    assert tfs_flags.channel_arguments(given) == (("a.b", -1), ("c", "d"), ("e", "--5"))
    with pytest.raises(ConfigError, match="key=value"):
        tfs_flags.channel_arguments(tfs_flags.parser().parse_args(["--grpc_channel_arguments=a"]))


def test_a_configuration_that_is_none_says_which_file_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--ssl_config_file .*No such file"):
        read("ssl_config_file", tmp_path / "none", "SSLConfig")
    (tmp_path / "bad").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="--model_config_file"):
        ConfigSource.from_file(tmp_path / "bad", 0, LabelRules())
