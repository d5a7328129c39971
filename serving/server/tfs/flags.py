"""The flags of `tensorflow_model_server`: those that act here, and those that are only taken note of."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from serving.server import VERSION
from serving.server.flags import add_limits, any_seconds, port, seconds_from_0
from serving.server.repository.policies import RetryPolicy
from serving.server.scheduling.run_queue import QueueLimits
from serving.server.tfs.configs_pb2 import BatchingParameters, MonitoringConfig
from serving.server.tfs.text_configs import ConfigError, read

log = logging.getLogger("tandem.server")

MAX_ROWS = 1 << 20
"""The original limits no rows; what a request may hold is bounded by its bytes."""
DAY = 86_400.0
METRICS_PATH = "/monitoring/prometheus/metrics"


def _boolean(text: str) -> bool:
    """As the original reads it."""
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def _path(text: str) -> Path | None:
    return Path(text) if text else None  # As the original has it: what is empty is not given.


OFF: dict[str, Any] = {"type": _boolean, "nargs": "?", "const": True, "default": False}
ON = OFF | {"default": True}

UNIMPLEMENTED = (
    *("enable_grpc_healthcheck_service", "enable_per_model_batching_parameters", "enable_profiler"),
    *("flush_filesystem_caches", "grpc_max_threads", "http_num_threads", "mixed_precision"),
    *("num_load_threads", "num_tflite_interpreters_per_pool", "num_tflite_pools", "num_unload_threads"),
    *("per_process_gpu_memory_fraction", "platform_config_file", "resource_estimation_method"),
    *("remove_unused_fields_from_bundle_metagraph", "response_compression_level", "rest_api_num_threads"),
    *("should_retry_model_load", "skip_initialize_tpu", "tensorflow_session_config_file"),
    *("tensorflow_session_run_timeout_in_ms", "thread_pool_factory_config_file", "use_alts_credentials"),
    *("xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled"),
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
    add = made.add_argument
    add("--port", type=port, default=8500, help="gRPC; 0: none")
    add("--grpc_socket_path", default="", help="gRPC on a Unix socket, too")
    add("--grpc_channel_arguments", default="", help="key=value,... for the gRPC server")
    add("--ssl_config_file", type=_path, help="an SSLConfig in text form: gRPC by TLS only")
    add("--rest_api_port", type=port, default=0, help="REST; 0: none")
    add("--rest_api_timeout_in_ms", type=int, default=30_000, help="of a REST request; 0 or less: a day")
    add("--rest_api_enable_cors_support", **OFF, help="let any page call REST")
    add("--host", default="127.0.0.1", help="address to listen on; the original listens on every one")
    add("--monitoring_config_file", type=_path, help="a MonitoringConfig in text form: where metrics lie")
    add("--model_name", default="default", help="as in URLs; ignored with --model_config_file")
    add("--model_base_path", type=_path, help="holds <version>/; ignored with --model_config_file")
    add("--model_config_file", type=_path, help="a ModelServerConfig in text form")
    often = "read it again so often; 0 or less: never"
    add("--model_config_file_poll_wait_seconds", type=any_seconds, default=0, help=often)
    often = "look for versions so often; 0: once for each configuration"
    add("--file_system_poll_wait_seconds", type=seconds_from_0, default=1, help=often)
    labels = "let labels that name no version yet name one that does not answer"
    add("--allow_version_labels_for_unavailable_models", **OFF, help=labels)
    labels = "let all labels name versions that do not answer"
    add("--force_allow_any_version_labels_for_unavailable_models", **OFF, help=labels)
    add("--max_num_load_retries", type=int, default=5, help="of a version; below 0: for ever")
    add("--load_retry_interval_micros", type=int, default=60_000_000, help="between such attempts")
    add("--saved_model_tags", default="serve", help="of the graph to load, separated by commas")
    add(
        "--prefer_tflite_model", "--use_tflite_model", **OFF, help="serve model.tflite where a version has it"
    )
    add("--enable_model_warmup", **ON, help="run what assets.extra/tf_serving_warmup_requests holds")
    add("--num_request_iterations_for_warmup", type=int, default=0, help="so many times each; 0: once")
    shared = "let requests share runs of models that have no manifest"
    add("--enable_batching", dest="batching", **OFF, help=shared)
    add("--batching_parameters_file", type=_path, help="BatchingParameters in text form")
    add("--enable_signature_method_name_check", **OFF, help="classify and regress only by such signatures")
    add("--enable_serialization_as_tensor_content", **OFF, help="answer Predict with tensor_content")
    add("--tensorflow_session_parallelism", type=int, default=0, help="threads for both of the following")
    add("--tensorflow_intra_op_parallelism", type=int, default=0, help="threads within an operation; 0: one")
    add("--tensorflow_inter_op_parallelism", type=int, default=0, help="operations at a time; 0: one")
    add_limits(made)
    made.set_defaults(max_rows=MAX_ROWS)
    for name in UNIMPLEMENTED:
        add(f"--{name}", nargs="?", const="true", help=argparse.SUPPRESS)
    add("--version", action="version", version=_versions())
    return made


def warn_of_unimplemented(options: argparse.Namespace) -> None:
    """One line for each flag that was given and does nothing here."""
    for name in UNIMPLEMENTED:
        if getattr(options, name) is not None:
            log.warning("--%s is accepted, but does nothing in Tandem's embedded server", name)


def poll_seconds(options: argparse.Namespace) -> float:
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
            "expected --tensorflow_session_parallelism, or those of intra_op and inter_op; got all three"
        )
    if intra <= 0 and inter <= 0:
        intra = inter = both
    return max(intra, 1), max(inter, 1)


def batch_limits(options: argparse.Namespace) -> QueueLimits:
    """Rows in a run that requests share, and requests that wait. Raises `ConfigError`."""
    limits = QueueLimits(options.max_batch_rows, queue=options.max_queue)
    file = options.batching_parameters_file
    if file is None:
        return limits
    if not options.batching:
        raise ConfigError("--batching_parameters_file needs --enable_batching")
    given = read("batching_parameters_file", file, BatchingParameters, lenient=True)
    for field, parameter in given.ListFields():
        if parameter.value < 1:
            got = f"expected {field.name} of at least 1, got {parameter.value}"
            raise ConfigError(f"--batching_parameters_file={file}: {got}")
    rows = given.max_batch_size.value or limits.batch_rows
    return QueueLimits(rows, queue=rows * given.max_enqueued_batches.value or limits.queue)


def retries(options: argparse.Namespace) -> RetryPolicy:
    """Of versions that did not load."""
    count = options.max_num_load_retries if options.max_num_load_retries >= 0 else sys.maxsize
    return RetryPolicy(count, max(options.load_retry_interval_micros, 0) / 1e6)


def monitoring_path(options: argparse.Namespace) -> str | None:
    """Where the metrics lie, None where a MonitoringConfig does not ask for them. Raises `ConfigError`."""
    if options.monitoring_config_file is None:
        return None
    message = read("monitoring_config_file", options.monitoring_config_file, MonitoringConfig)
    config = message.prometheus_config
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
    tensorflow = "unknown"
    for package in ("tensorflow", "tensorflow-cpu"):
        with suppress(PackageNotFoundError):
            tensorflow = version(package)
    return f"TensorFlow ModelServer: {VERSION} (Tandem's stand-in)\nTensorFlow Library: {tensorflow}"
