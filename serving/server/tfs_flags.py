"""The flags of `tensorflow_model_server`: those that act here, and those that are only taken note of."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from serving.server.flags import add_limits, port

log = logging.getLogger("tandem.server")

UNIMPLEMENTED = (
    "allow_version_labels_for_unavailable_models",
    "batching_parameters_file",
    "enable_batching",
    "enable_cors_support",
    "enable_model_warmup",
    "enable_per_model_batching_parameters",
    "enable_profiler",
    "enable_serialization_as_tensor_content",
    "enable_signature_method_name_check",
    "flush_filesystem_caches",
    "force_allow_any_version_labels_for_unavailable_models",
    "grpc_channel_arguments",
    "grpc_max_threads",
    "grpc_socket_path",
    "load_retry_interval_micros",
    "max_num_load_retries",
    "mixed_precision",
    "num_load_threads",
    "num_request_iterations_for_warmup",
    "num_unload_threads",
    "per_process_gpu_memory_fraction",
    "platform_config_file",
    "prefer_tflite_model",
    "remove_unused_fields_from_bundle_metagraph",
    "resource_estimation_method",
    "response_compression_level",
    "rest_api_num_threads",
    "saved_model_tags",
    "should_retry_model_load",
    "skip_initialize_tpu",
    "ssl_config_file",
    "tensorflow_inter_op_parallelism",
    "tensorflow_session_config_file",
    "tensorflow_session_parallelism",
    "tensorflow_session_run_timeout_in_ms",
    "thread_pool_factory_config_file",
    "use_alts_credentials",
    "use_tflite_model",
    "xla_cpu_compilation_enabled",
)


def parser() -> argparse.ArgumentParser:
    """The command line. An unknown flag ends the process with an error, as in the original."""
    made = argparse.ArgumentParser(
        "tandem-tf-serving",
        description="Tandem's server for SavedModels, with TensorFlow Serving's protocols and flags.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--port", type=port, default=8500, help="gRPC; 0: none")
    add("--rest_api_port", type=port, default=0, help="REST; 0: none")
    add(
        "--rest_api_timeout_in_ms",
        type=int,
        default=30_000,
        help="for a REST request's body and answer together",
    )
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on (not in the original, which takes every one)",
    )
    add("--model_name", default="default", help="as in URLs; ignored with --model_config_file")
    add("--model_base_path", type=Path, help="holds <version>/; ignored with --model_config_file")
    add("--model_config_file", type=Path, help="a ModelServerConfig in text form")
    add(
        "--model_config_file_poll_wait_seconds",
        type=float,
        default=0,
        help="read it again so often; 0: never",
    )
    add("--file_system_poll_wait_seconds", type=float, default=1, help="look for versions so often; 0: once")
    add(
        "--monitoring_config_file", type=Path, help="a MonitoringConfig in text form: the path of the metrics"
    )
    add("--tensorflow_intra_op_parallelism", type=int, default=1, help="threads within one run of a model")
    add_limits(made)
    for name in UNIMPLEMENTED:
        add(f"--{name}", nargs="?", const="true", help=argparse.SUPPRESS)
    return made


def warn_of_unimplemented(options: argparse.Namespace) -> None:
    """One line for each flag that was given and does nothing here."""
    for name in UNIMPLEMENTED:
        if getattr(options, name) is not None:
            log.warning("--%s is accepted, but does nothing in Tandem's embedded server", name)


def poll_seconds(options: argparse.Namespace) -> float:
    """How often anything is to be looked at again."""
    waits = [options.file_system_poll_wait_seconds, options.model_config_file_poll_wait_seconds]
    return min([wait for wait in waits if wait > 0], default=86_400.0)
