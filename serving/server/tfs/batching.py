"""What a file of BatchingParameters says of runs that requests share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from serving.server.tfs.text_configs import ConfigError, read

log = logging.getLogger("tandem.server")

LEAST = {"max_batch_size": 1, "batch_timeout_micros": 0, "max_enqueued_batches": 1, "num_batch_threads": 1}
IDLE = (
    "batch_timeout_micros",
    "num_batch_threads",
    "thread_pool_name",
    "allowed_batch_sizes",
    "pad_variable_length_inputs",
)
"""What does nothing here."""


def batch_limits(file: Path, rows: int, queue: int) -> tuple[int, int]:
    """Rows in a run, and requests that wait, where the file names them; else as given. Raises `ConfigError`."""
    parameters = read("batching_parameters_file", file, "BatchingParameters", lenient=True)
    given = {field.name for field, _ in parameters.ListFields()}
    for name, least in LEAST.items():
        if name in given and getattr(parameters, name).value < least:
            raise ConfigError(
                f"--batching_parameters_file={file}: expected {name} of at least {least}, "
                f"got {getattr(parameters, name).value}"
            )
    if "max_batch_size" in given:
        rows = parameters.max_batch_size.value
        _check_sizes(file, rows, list(parameters.allowed_batch_sizes))
    if "max_enqueued_batches" in given:
        queue = rows * parameters.max_enqueued_batches.value
    for name in IDLE:
        if name in given:
            log.warning("batching parameter %s does nothing here: a batch waits for nothing, unpadded", name)
    return rows, queue


def _check_sizes(file: Path, rows: int, sizes: list[Any]) -> None:
    if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != rows):
        raise ConfigError(
            f"--batching_parameters_file={file}: expected allowed_batch_sizes in increasing order, "
            f"the last one max_batch_size, {rows}; got {', '.join(map(str, sizes))}"
        )
