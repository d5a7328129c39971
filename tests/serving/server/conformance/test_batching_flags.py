"""Shared runs by the command line: serving_config, "Batching Configuration", batching/batching_session.cc."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..processes import ServerProcess
from .clients import Grpc, code_and_details, floats, predict, predict_request, value
from .conftest import Start

BODY = {"instances": [2.0]}


def batched(start: Start, models: Path, tmp_path: Path) -> ServerProcess:
    """A server of `shapes` with the parameters that serving_config shows."""
    parameters = tmp_path / "batching.config"
    parameters.write_text(
        "max_batch_size { value: 128 } batch_timeout_micros { value: 1000 } max_enqueued_batches { value: 1000000 } "
        "num_batch_threads { value: 2 } allowed_batch_sizes: 8 allowed_batch_sizes: 128"
    )
    server = start(
        f"--model_base_path={models}/shapes",
        "--model_name=shapes",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
    )
    server.wait_for("/v1/models/shapes", "AVAILABLE")
    return server


def test_batching(start: Start, models: Path, tmp_path: Path) -> None:
    """serving_config, "Batching Configuration": every caller gets the rows of his own."""
    import concurrent.futures

    server = batched(start, models, tmp_path)

    def ask(number: int) -> bool:
        rows = [float(number)] * (1 + number % 5)
        body = {"signature_name": "two_out", "inputs": rows}
        return bool(
            value(server, "shapes", body)
            == {"double": [2.0 * number] * len(rows), "half": [number / 2] * len(rows)}
        )

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))


def test_batching_needs_a_first_dimension(start: Start, models: Path, tmp_path: Path) -> None:
    """batching/batching_session.cc, ComputeInputSize: one dimension at least, and the first of one size."""
    server = batched(start, models, tmp_path)
    for body in (
        {"signature_name": "scalar", "inputs": 1.0},
        {"signature_name": "two_in", "inputs": {"a": [1.0], "b": [1.0, 2.0]}},
    ):
        answer = predict(server, "shapes", json.dumps(body).encode())
        assert answer.status == 400
        assert answer.error.startswith("Batching Run() input tensors must have")
    with Grpc(server.grpc) as client:
        request = predict_request("shapes", "scalar", x=floats(1.0))
        code, details = code_and_details(client.predict, request)
        assert code == "INVALID_ARGUMENT"
        assert details.startswith("Batching Run() input tensors must have at least one dimension")
        request.output_filter.append("y")
        assert client.predict(request).outputs["y"].float_val == [2.0]


def test_batching_parameters_of_a_model(start: Start, models: Path, tmp_path: Path) -> None:
    """main.cc, --enable_per_model_batching_parameters: batching_params.pbtxt in the version's folder."""
    export = tmp_path / "half_plus" / "1"
    shutil.copytree(models / "half_plus" / "1", export)
    (export / "batching_params.pbtxt").write_text(
        "max_batch_size { value: 4 } batch_timeout_micros { value: 0 }"
    )
    flags = ("--enable_batching", "--enable_per_model_batching_parameters")
    server = start(f"--model_base_path={export.parent}", *flags)
    server.wait_for("/v1/models/default", "AVAILABLE")
    assert value(server, "default", BODY) == [2.0]
