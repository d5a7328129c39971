"""The flags of `tensorflow_model_server`: those that act here, and those that are only taken note of."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc

from serving.server.flags import add_limits, any_seconds, port, seconds_from_0
from serving.server.lifecycle import Listening
from serving.server.repository.retries import RetryPolicy
from serving.server.tfs.configs_pb2 import MonitoringConfig
from serving.server.tfs.text_configs import ConfigError, read, read_batch_limits

log = logging.getLogger("tandem.server")

MAX_ROWS = 1 << 20
"""The original limits no rows; what a request may hold is bounded by its bytes."""
DAY = 86_400.0
METRICS_PATH = "/monitoring/prometheus/metrics"


def boolean(text: str) -> bool:
    """As the original reads it."""
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def _path(text: str) -> Path | None:
    return Path(text) if text else None  # As the original has it: what is empty is not given.


UNIMPLEMENTED = (
    *("enable_grpc_healthcheck_service", "enable_per_model_batching_parameters", "enable_profiler"),
    *("flush_filesystem_caches", "grpc_max_threads", "http_num_threads", "mixed_precision"),
    *("num_load_threads", "num_tflite_interpreters_per_pool", "num_tflite_pools", "num_unload_threads"),
    *("per_process_gpu_memory_fraction", "platform_config_file"),
    *("remove_unused_fields_from_bundle_metagraph", "resource_estimation_method"),
    *("response_compression_level", "rest_api_num_threads", "should_retry_model_load"),
    *("skip_initialize_tpu", "tensorflow_session_config_file", "tensorflow_session_run_timeout_in_ms"),
    *("thread_pool_factory_config_file", "use_alts_credentials", "xla_cpu_compilation_enabled"),
    *("xla_gpu_compilation_enabled",),
)
"""Flags of the original that do nothing here."""


def parser() -> argparse.ArgumentParser:
    """The command line. An unknown flag ends the process with an error."""
    made = argparse.ArgumentParser(
        "tandem-tf-serving",
        description="Tandem's server for SavedModels, with TensorFlow Serving's protocols and flags.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for add in (_add_listening, _add_models, _add_loading, _add_running, add_limits):
        add(made)
    made.set_defaults(max_rows=MAX_ROWS)
    for name in UNIMPLEMENTED:
        made.add_argument(f"--{name}", nargs="?", const="true", help=argparse.SUPPRESS)
    made.add_argument("--version", action="version", version=_versions())
    return made


def _add_boolean(
    made: argparse.ArgumentParser, name: str, default: bool, text: str, *others: str, dest: str | None = None
) -> None:
    names = [f"--{name}", *(f"--{other}" for other in others)]
    made.add_argument(
        *names, dest=dest or name, type=boolean, nargs="?", const=True, default=default, help=text
    )


def _add_listening(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--port", type=port, default=8500, help="gRPC; 0: none")
    add("--grpc_socket_path", default="", help="gRPC on a Unix socket, too")
    add("--grpc_channel_arguments", default="", help="key=value,... for the gRPC server")
    add("--ssl_config_file", type=_path, help="an SSLConfig in text form: gRPC by TLS only")
    add("--rest_api_port", type=port, default=0, help="REST; 0: none")
    add(
        "--rest_api_timeout_in_ms",
        type=int,
        default=30_000,
        help="for a REST request's body and answer together; 0 or less: a day",
    )
    _add_boolean(made, "rest_api_enable_cors_support", False, "let any page call REST")
    add("--host", default="127.0.0.1", help="address to listen on; the original listens on every one")
    add(
        "--monitoring_config_file",
        type=_path,
        help="a MonitoringConfig in text form: whether and where metrics lie",
    )


def _add_models(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--model_name", default="default", help="as in URLs; ignored with --model_config_file")
    add("--model_base_path", type=_path, help="holds <version>/; ignored with --model_config_file")
    add("--model_config_file", type=_path, help="a ModelServerConfig in text form")
    add(
        "--model_config_file_poll_wait_seconds",
        type=any_seconds,
        default=0,
        help="read it again so often; 0 or less: never",
    )
    add(
        "--file_system_poll_wait_seconds",
        type=seconds_from_0,
        default=1,
        help="look for versions so often; 0: once for each configuration",
    )
    labels = "let labels that name no version yet name one that does not answer"
    _add_boolean(made, "allow_version_labels_for_unavailable_models", False, labels)
    labels = "let all labels name versions that do not answer"
    _add_boolean(made, "force_allow_any_version_labels_for_unavailable_models", False, labels)


def _add_loading(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--max_num_load_retries", type=int, default=5, help="after a version did not load; below 0: for ever")
    add("--load_retry_interval_micros", type=int, default=60_000_000, help="between such attempts")
    add("--saved_model_tags", default="serve", help="of the graph to load, separated by commas")
    _add_boolean(
        made, "prefer_tflite_model", False, "serve model.tflite where a version has it", "use_tflite_model"
    )
    _add_boolean(made, "enable_model_warmup", True, "run what assets.extra/tf_serving_warmup_requests holds")
    add("--num_request_iterations_for_warmup", type=int, default=0, help="so many times each; 0: once")


def _add_running(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    _add_boolean(
        made,
        "enable_batching",
        False,
        "let requests share runs of models that have no manifest",
        dest="batching",
    )
    add(
        "--batching_parameters_file",
        type=_path,
        help="BatchingParameters in text form; needs --enable_batching",
    )
    _add_boolean(
        made, "enable_signature_method_name_check", False, "classify and regress only by such signatures"
    )
    _add_boolean(made, "enable_serialization_as_tensor_content", False, "answer Predict with tensor_content")
    session = "threads for both of the following"
    add("--tensorflow_session_parallelism", type=int, default=0, help=session)
    add("--tensorflow_intra_op_parallelism", type=int, default=0, help="threads within an operation; 0: one")
    add("--tensorflow_inter_op_parallelism", type=int, default=0, help="operations at a time; 0: one")


def warn_of_unimplemented(options: argparse.Namespace) -> None:
    """One line for each flag that was given and does nothing here."""
    for name in UNIMPLEMENTED:
        if getattr(options, name) is not None:
            log.warning("--%s is accepted, but does nothing in Tandem's embedded server", name)


def listening(options: argparse.Namespace, tls: grpc.ServerCredentials | None) -> Listening:
    """Where to listen; a port of 0 is none."""
    return Listening(
        options.host,
        options.rest_api_port or None,
        options.port or None,
        _poll_seconds(options),
        options.pause_seconds,
        options.grace_seconds,
        options.max_connections,
        options.idle_timeout_seconds,
        grpc_socket=options.grpc_socket_path,
        grpc_tls=tls,
    )


def _poll_seconds(options: argparse.Namespace) -> float:
    """How often anything is to be looked at again."""
    waits = [options.file_system_poll_wait_seconds, options.model_config_file_poll_wait_seconds]
    if not options.file_system_poll_wait_seconds:  # Then only a version that did not load is tried again.
        waits.append(max(options.load_retry_interval_micros / 1e6, 1.0))
    return min([wait for wait in waits if wait > 0], default=DAY)


def rest_seconds(options: argparse.Namespace) -> float:
    """What a REST request may take."""
    return options.rest_api_timeout_in_ms / 1000 if options.rest_api_timeout_in_ms > 0 else DAY


def threads(options: argparse.Namespace) -> tuple[int, int]:
    """Intra-op and inter-op threads. Raises `ConfigError`."""
    both: int = options.tensorflow_session_parallelism
    intra: int = options.tensorflow_intra_op_parallelism
    inter: int = options.tensorflow_inter_op_parallelism
    if both > 0 and intra > 0 and inter > 0:
        raise ConfigError(
            "expected --tensorflow_session_parallelism, or --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism; got all three"
        )
    if intra <= 0 and inter <= 0:
        intra = inter = both
    return max(intra, 1), max(inter, 1)


def batch_limits(options: argparse.Namespace) -> tuple[int, int]:
    """Rows in a run that requests share, and requests that wait. Raises `ConfigError`."""
    rows, queue = options.max_batch_rows, options.max_queue
    if options.batching_parameters_file is None:
        return rows, queue
    if not options.batching:
        raise ConfigError("--batching_parameters_file needs --enable_batching")
    return read_batch_limits(options.batching_parameters_file, rows, queue)


def retries(options: argparse.Namespace) -> RetryPolicy:
    """Of versions that did not load."""
    count = options.max_num_load_retries if options.max_num_load_retries >= 0 else sys.maxsize
    return RetryPolicy(count, max(options.load_retry_interval_micros, 0) / 1e6)


def monitoring_path(options: argparse.Namespace) -> str | None:
    """Where the metrics lie, None where a MonitoringConfig does not ask for them. Raises `ConfigError`."""
    if options.monitoring_config_file is None:
        return None
    config = read(
        "monitoring_config_file", options.monitoring_config_file, MonitoringConfig()
    ).prometheus_config
    return str(config.path) or METRICS_PATH if config.enable else None


def channel_arguments(options: argparse.Namespace) -> tuple[tuple[str, str | int], ...]:
    """What --grpc_channel_arguments says. Raises `ConfigError`."""
    made: list[tuple[str, str | int]] = []
    for pair in filter(None, options.grpc_channel_arguments.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--grpc_channel_arguments: expected key=value, got {pair!r}")
        made.append((key, int(value) if re.fullmatch(r"-?[0-9]+", value) else value))
    return tuple(made)


def _versions() -> str:
    def known(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return ""

    tensorflow = known("tensorflow-cpu") or known("tensorflow") or "unknown"
    tandem = known("tandem") or "unknown"
    return f"TensorFlow ModelServer: {tandem} (Tandem's stand-in)\nTensorFlow Library: {tensorflow}"
