"""The flags of `tensorflow_model_server`: those that have an effect here, and those that are only accepted."""

from __future__ import annotations

import argparse
import logging
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from serving.server import VERSION
from serving.server.flags import add_common, number, port, seconds_from_0
from serving.server.tfs.configs_pb2 import BatchingParameters, MonitoringConfig

log = logging.getLogger("tandem.server")

AnyMessage = TypeVar("AnyMessage", bound=Message)

MAX_ROWS = 1 << 20
"""The original has no limit of rows, only one of bytes."""
DAY = 86_400.0
METRICS_PATH = "/monitoring/prometheus/metrics"
UNIMPLEMENTED = (
    *("enable_grpc_healthcheck_service", "enable_per_model_batching_parameters", "enable_profiler"),
    *("enable_serialization_as_tensor_content", "enable_signature_method_name_check"),
    *("flush_filesystem_caches", "grpc_max_threads", "http_num_threads", "mixed_precision"),
    *("num_load_threads", "num_request_iterations_for_warmup"),
    *("num_tflite_interpreters_per_pool", "num_tflite_pools", "num_unload_threads"),
    *("per_process_gpu_memory_fraction", "platform_config_file"),
    *("remove_unused_fields_from_bundle_metagraph", "resource_estimation_method"),
    *("response_compression_level", "rest_api_num_threads", "should_retry_model_load"),
    *("skip_initialize_tpu", "tensorflow_session_config_file", "tensorflow_session_run_timeout_in_ms"),
    *("thread_pool_factory_config_file", "xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled"),
)
"""Flags of the original without effect here."""
ENCRYPTION = ("ssl_config_file", "use_alts_credentials")
"""Flags that are refused: without their effect, whoever gives them would send in the clear."""


class ConfigError(Exception):
    """A flag, or a file that it names, is invalid."""


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def _path(text: str) -> Path | None:
    return Path(text) if text else None  # As in the original: empty means not given.


def _port(text: str) -> int | None:
    return port(text) or None


def _channel_arguments(text: str) -> tuple[tuple[str, str | int], ...]:
    made: list[tuple[str, str | int]] = []
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"expected key=value, got {pair!r}")
        made.append((key, int(value) if re.fullmatch(r"-?[0-9]+", value) else value))
    return tuple(made)


OFF: dict[str, Any] = {"type": _boolean, "nargs": "?", "const": True, "default": False}
any_seconds = number(float, math.isfinite, "a number of seconds")
milliseconds = number(lambda text: int(text) / 1e3, math.isfinite, "a whole number of milliseconds")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. An unknown flag ends the process with an error."""
    made = argparse.ArgumentParser(
        "tandem-tf-serving",
        description="Tandem's server for SavedModels, with TensorFlow Serving's protocols and flags.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_common(made)
    made.set_defaults(max_rows=MAX_ROWS)
    add = made.add_argument
    add("--port", type=_port, default=8500, dest="grpc_port", help="gRPC; 0: none")
    add("--grpc_socket_path", default="", dest="grpc_socket", help="gRPC on a Unix socket, too")
    add(
        "--grpc_channel_arguments",
        type=_channel_arguments,
        default=(),
        dest="grpc_options",
        metavar="K=V,...",
    )
    add("--rest_api_port", type=_port, dest="http_port", help="REST; none unless it is given; 0: none")
    timeout: dict[str, Any] = {"type": milliseconds, "default": 30.0, "dest": "request_timeout_seconds"}
    add("--rest_api_timeout_in_ms", **timeout, help="of a REST request; 0 or less: a day")
    add("--rest_api_enable_cors_support", **OFF, dest="cors", help="let any page call REST")
    add("--monitoring_config_file", type=_path, help="a MonitoringConfig in text form: where metrics lie")
    add("--model_name", default="default", help="as in URLs; ignored with --model_config_file")
    add("--model_base_path", type=_path, help="holds <version>/; ignored with --model_config_file")
    add("--model_config_file", type=_path, help="a ModelServerConfig in text form")
    add("--model_config_file_poll_wait_seconds", type=any_seconds, default=0, help="0: never")
    add("--file_system_poll_wait_seconds", type=seconds_from_0, default=1, help="0: once")
    labels = "let labels that name no version yet name one that does not answer"
    always = "--force_allow_any_version_labels_for_unavailable_models"
    add("--allow_version_labels_for_unavailable_models", always, **OFF, help=labels)
    add("--saved_model_tags", default="serve", choices=["serve"], help="of the graph to load")
    add("--max_num_load_retries", type=int, default=5, help="of a version; below 0: for ever")
    add("--load_retry_interval_micros", type=int, default=60_000_000, help="between such attempts")
    add("--prefer_tflite_model", "--use_tflite_model", **OFF, help="serve model.tflite if there is one")
    add("--enable_model_warmup", **OFF | {"default": True}, help="run a version's own requests")
    add("--enable_batching", dest="batching", **OFF, help="share runs of models without a manifest")
    add("--batching_parameters_file", type=_path, help="BatchingParameters in text form")
    add("--tensorflow_session_parallelism", type=int, default=0, help="threads for both of the following")
    add("--tensorflow_intra_op_parallelism", type=int, default=0, help="threads within an operation; 0: one")
    add("--tensorflow_inter_op_parallelism", type=int, default=0, help="operations at a time; 0: one")
    for name in (*UNIMPLEMENTED, *ENCRYPTION):
        add(f"--{name}", nargs="?", const="true", help=argparse.SUPPRESS)
    add("--version", action="version", version=f"TensorFlow ModelServer: {VERSION} (Tandem's stand-in)")
    return made


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags, and the files that they name, into the options of `tandem-server`. Raises `ConfigError`.

    Adds `metrics_path` (None: no metrics) and the threads `intra_op` and `inter_op`. Logs each flag without effect.
    """
    options = parser().parse_args(arguments)
    for name in UNIMPLEMENTED:
        if getattr(options, name) is not None:
            log.warning("--%s is accepted, but does nothing in Tandem's embedded server", name)
    for name in ENCRYPTION:
        if (getattr(options, name) or "").lower() not in ("", "0", "false"):
            raise ConfigError(f"--{name} is not implemented here: put a gateway with TLS before this server")
    if not (options.grpc_port or options.http_port or options.grpc_socket):
        raise ConfigError("expected --port, --rest_api_port or --grpc_socket_path, got nothing to listen on")
    if options.request_timeout_seconds <= 0:
        options.request_timeout_seconds = DAY
    options.retries = options.max_num_load_retries if options.max_num_load_retries >= 0 else sys.maxsize
    options.retry_seconds = max(options.load_retry_interval_micros, 0) / 1e6
    waits = [options.file_system_poll_wait_seconds, options.model_config_file_poll_wait_seconds]
    if not options.file_system_poll_wait_seconds:  # Then only versions that failed to load are tried again.
        waits.append(max(options.retry_seconds, 1.0))
    options.poll_seconds = min([wait for wait in waits if wait > 0], default=DAY)
    options.intra_op, options.inter_op = _threads(options)
    options.metrics_path = None
    if options.monitoring_config_file is not None:
        given = read("monitoring_config_file", options.monitoring_config_file, MonitoringConfig)
        path = given.prometheus_config.path or METRICS_PATH
        options.metrics_path = path if given.prometheus_config.enable else None
    if options.batching_parameters_file is not None:
        _read_batching_parameters(options)
    return options


def read(flag: str, file: Path, kind: type[AnyMessage], lenient: bool = False) -> AnyMessage:
    """Read the message in text form from a flag's file; `lenient`: log unknown fields. Raises `ConfigError`."""
    try:
        text = file.read_text()
        try:
            return text_format.Parse(text, kind())
        except text_format.ParseError as error:
            if not lenient:
                raise
            known = ", ".join(kind.DESCRIPTOR.fields_by_name)
            log.warning("--%s=%s: only %s act here: %s", flag, file, known, error)
            return text_format.Parse(text, kind(), allow_unknown_field=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--{flag}={file}: {error}") from error
    except text_format.ParseError as error:
        expected = f"expected a {kind.DESCRIPTOR.name} in text form"
        raise ConfigError(f"--{flag}={file}: {expected}, got: {error}") from error


def _threads(options: argparse.Namespace) -> tuple[int, int]:
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


def _read_batching_parameters(options: argparse.Namespace) -> None:
    """Set the maximum rows of a shared run, and the maximum of waiting requests."""
    file = options.batching_parameters_file
    if not options.batching:
        raise ConfigError("--batching_parameters_file needs --enable_batching")
    given = read("batching_parameters_file", file, BatchingParameters, lenient=True)
    for field, parameter in given.ListFields():
        if parameter.value < 1:
            got = f"expected {field.name} of at least 1, got {parameter.value}"
            raise ConfigError(f"--batching_parameters_file={file}: {got}")
    options.max_batch_rows = given.max_batch_size.value or options.max_batch_rows
    options.max_queue = options.max_batch_rows * given.max_enqueued_batches.value or options.max_queue
