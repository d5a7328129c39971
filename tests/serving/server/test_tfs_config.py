"""What `tandem-tf-serving` is told to serve: flags, configurations, labels."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from serving.repository import RepositoryError
from serving.server.errors import FailedPreconditionError, InvalidRequestError
from serving.server.main import tandem_tf_serving
from serving.server.tfs import flags
from serving.server.tfs.model_config import ConfigSource

MODEL = 'name: "m" base_path: "/models/m" model_platform: "tensorflow"'
OTHER = MODEL.replace('"m"', '"other"')


def listed(*models: str) -> str:
    return "model_config_list {" + "".join(f" config {{ {model} }}" for model in models) + " }"


def message(text: str) -> Any:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    return text_format.Parse(text, ModelServerConfig())


def labelled(version: int, name: str = "stable") -> str:
    return f'{MODEL} version_labels {{ key: "{name}" value: {version} }}'


def parsed(*arguments: str) -> argparse.Namespace:
    return flags.parse(arguments)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (listed(MODEL, MODEL), "'m' once, got it twice"),
        (listed('base_path: "/m"'), "expected a name"),
        (listed('name: "m" base_path: "m"'), "absolute base_path, got 'm'"),
        (listed('name: "m" base_path: "/m"'), 'model_platform: "tensorflow"'),
        (listed('name: "m" base_path: "/m" model_platform: "torch"'), "got 'torch'"),
        (listed(f"{MODEL} model_version_policy {{ specific {{}} }}"), "no version"),
        ("custom_model_config {}", "custom_model_config"),
    ],
)
def test_a_bad_configuration_is_refused_and_changes_nothing(text: str, reason: str) -> None:
    source = ConfigSource(parsed("--model_name=here", "--model_base_path=/models/here"))
    with pytest.raises(InvalidRequestError, match=reason):
        source.replace(message(text))
    assert list(source.find()) == ["here"]


def test_labels_name_versions_that_answer_or_may_not_by_flag(tmp_path: Path) -> None:
    source = ConfigSource(parsed("--model_name=m", "--model_base_path=/models/m"))
    source.available = lambda model, version: (model, version) in {("m", 1), ("m", 2)}
    source.replace(message(listed(labelled(1))))
    source.replace(message(listed(labelled(2))))
    with pytest.raises(FailedPreconditionError, match=r"label 'stable' .* version 3 of model m"):
        source.replace(message(listed(labelled(3))))
    assert source.find()["m"].labels == {"stable": 2}
    source.replace(message(listed(MODEL)))
    assert source.find()["m"].labels == {}
    file = tmp_path / "labels"
    file.write_text(listed(labelled(1)))
    given = f"--model_config_file={file}"
    unused = ConfigSource(parsed(given, "--allow_version_labels_for_unavailable_models"))
    unused.replace(message(listed(labelled(5, "canary"))))
    with pytest.raises(FailedPreconditionError, match="version 2"):
        unused.replace(message(listed(labelled(2, "canary"))))


def test_a_config_file_is_read_again_and_a_broken_one_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """server_core.cc, ReloadConfig: from a list to another only; whoever rewrites a file empties it at first."""
    file = tmp_path / "models.config"
    file.write_text("# none yet")
    given, again = f"--model_config_file={file}", "--model_config_file_poll_wait_seconds"
    source = ConfigSource(parsed(given, f"{again}=1e-9"))
    assert list(source.find()) == []
    file.write_text(listed(MODEL))
    never = ConfigSource(parsed(given, f"{again}=-1"))
    assert list(source.find()) == ["m"]
    for broken in ("garbage", "model_config_list { config { } }", ""):
        file.write_text(broken)
        assert list(source.find()) == ["m"]
    file.unlink()
    assert list(source.find()) == ["m"]
    assert "expected a model_config_list" in caplog.text
    file.write_text(listed(OTHER))
    assert list(source.find()) == ["other"]
    source.replace(message(listed(MODEL)))
    assert list(source.find()) == ["m"], "a file that did not change undoes no reload"
    file.write_text("model_config_list { }")
    assert list(source.find()) == []
    assert list(never.find()) == ["m"]


POLL = "--file_system_poll_wait_seconds"
RETRY_AT_ONCE = "--load_retry_interval_micros=-1"


@pytest.mark.parametrize(
    ("read", "given", "expected"),
    [
        (lambda o: o.batching, "--enable_batching=0", False),
        (lambda o: (o.max_batch_rows, o.max_queue), "--max_batch_rows=7 --max_queue=9", (7, 9)),
        (lambda o: (o.retries, o.retry_seconds), "", (5, 60.0)),
        (lambda o: (o.retries, o.retry_seconds), f"--max_num_load_retries=0 {RETRY_AT_ONCE}", (0, 0.0)),
        (lambda o: o.retries, "--max_num_load_retries=-1", sys.maxsize),
        # http_rest_api_handler.cc sets a timeout above 0 only.
        (lambda o: o.request_timeout_seconds, "--rest_api_timeout_in_ms=0", flags.DAY),
        (lambda o: (o.intra_op, o.inter_op), "", (1, 1)),
        (lambda o: (o.intra_op, o.inter_op), "--tensorflow_session_parallelism=4", (4, 4)),
        (
            lambda o: (o.intra_op, o.inter_op),
            "--tensorflow_inter_op_parallelism=3 --tensorflow_session_parallelism=2",
            (1, 3),
        ),
        (lambda o: o.poll_seconds, "", 1.0),
        (lambda o: o.poll_seconds, f"{POLL}=5 --model_config_file_poll_wait_seconds=3", 3.0),
        (lambda o: o.poll_seconds, f"{POLL}=5 --model_config_file_poll_wait_seconds=-1", 5.0),
        (lambda o: o.poll_seconds, f"{POLL}=0", 60.0),
        (lambda o: o.poll_seconds, f"{POLL}=0 {RETRY_AT_ONCE}", 1.0),
        # main.cc and server.cc look at what is not empty only, and templates of commands leave flags empty.
        (lambda o: o.model_base_path, "--model_base_path= --ssl_config_file=", None),
        (lambda o: o.model_base_path, "--model_base_path= --use_alts_credentials=False", None),
    ],
)
def test_what_flags_say(read: Callable[[argparse.Namespace], object], given: str, expected: object) -> None:
    assert read(parsed(*given.split())) == expected


def test_batching_parameters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 16 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 3 }\n"
        "allowed_batch_sizes: 8 allowed_batch_sizes: 16 max_bach_size { value: 8 }"
    )
    found = parsed("--enable_batching", f"--batching_parameters_file={file}")
    assert (found.max_batch_rows, found.max_queue) == (16, 48)
    assert "only max_batch_size, max_enqueued_batches act here: " in caplog.text
    caplog.clear()
    file.write_text("max_batch_size { value: 16 }")
    parsed("--enable_batching", f"--batching_parameters_file={file}")
    assert not caplog.text


GOOD = "--model_base_path=/models/m"
BATCHED = (GOOD, "--enable_batching", "--batching_parameters_file")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--model_name=m"], "--model_base_path or --model_config_file, got neither"),
        ([GOOD, "--port=0"], "got nothing to listen on"),
        ([GOOD, "--rest_api_timeout_in_ms=soon"], "'soon'"),
        ([GOOD, "--enable_batching=perhaps"], "'perhaps'"),
        ([GOOD, "--no_such_flag=1"], "--no_such_flag=1"),
        ([GOOD, "--port=-1"], "--port: expected .*, got '-1'"),
        ([GOOD, "--max_batch_rows=0"], "--max_batch_rows: expected .*, got '0'"),
        # main.cc keeps a negative one to its tests: nothing would ever be served.
        ([GOOD, "--file_system_poll_wait_seconds=-1"], "expected .*, got '-1'"),
        (["--model_config_file={folder}/wrong"], "--model_config_file=.*wrong: expected a ModelServerConfig"),
        (["--model_config_file={folder}/binary"], "--model_config_file=.*binary"),
        (["--model_config_file={folder}/missing"], "--model_config_file=.*No such file"),
        (["--model_config_file={folder}/twice"], "twice"),
        (["--model_config_file={folder}/labels"], "label 'stable'"),
        # In the clear, where the flags say encrypted, is worse than not at all.
        ([GOOD, "--ssl_config_file=/tls"], "--ssl_config_file is not implemented here: put a gateway"),
        ([GOOD, "--use_alts_credentials"], "--use_alts_credentials is not implemented here: put a gateway"),
        ([GOOD, "--saved_model_tags=serve,gpu"], "'serve,gpu'"),
        ([GOOD, "--monitoring_config_file={folder}/wrong"], "expected a MonitoringConfig"),
        ([GOOD, "--monitoring_config_file={folder}/misspelt"], "enabled"),
        ([GOOD, "--batching_parameters_file={folder}/wrong"], "needs --enable_batching"),
        ([*BATCHED, "{folder}/wrong"], "expected a BatchingParameters"),
        ([*BATCHED, "{folder}/least"], "expected max_batch_size of at least 1, got 0"),
        ([GOOD, "--grpc_channel_arguments=a"], "expected key=value, got 'a'"),
        (
            [GOOD, *(f"--tensorflow_{kind}_parallelism=1" for kind in ("session", "intra_op", "inter_op"))],
            "got all three",
        ),
    ],
)
def test_flags_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], reason: str
) -> None:
    """main.cc, server.cc: no value, no model at all, files that are none. An unknown flag must not go unnoticed."""
    for name, text in {
        "wrong": "this is no protobuf",
        "twice": listed(MODEL, MODEL),
        "labels": listed(labelled(1)),
        "misspelt": "prometheus_config { enabled: true }",
        "least": "max_batch_size { value: 0 }",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(SystemExit) as ended:
        tandem_tf_serving([flag.format(folder=tmp_path) for flag in given])
    assert ended.value.code not in (0, None)
    assert re.search(reason, f"{ended.value.code} {capsys.readouterr().err}")


def test_folders_that_are_looked_at_once_are_so_for_each_configuration(tmp_path: Path) -> None:
    """main.cc, --file_system_poll_wait_seconds: 0 is exactly once; a folder that is not there yet is none."""
    source = ConfigSource(parsed("--model_name=m", f"--model_base_path={tmp_path}/m", f"{POLL}=0"))

    def wanted() -> list[int]:
        model = source.find()["m"]
        return list(model.policy(model.directory))

    with pytest.raises(RepositoryError):
        wanted()
    (tmp_path / "m" / "1").mkdir(parents=True)
    assert wanted() == [1]
    (tmp_path / "m" / "2").mkdir()
    assert wanted() == [1]
    source.replace(message(listed(MODEL.replace("/models", str(tmp_path)))))
    assert wanted() == [2]
