"""Calls beside a slow one: server.h gives HTTP and gRPC threads of their own, and no call waits for another's run."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ..processes import ServerProcess
from .clients import Grpc, floats, predict, predict_request, value

ROUNDS = 6000


def slow_grpc(server: ServerProcess) -> Any:
    with Grpc(server.grpc) as client:
        request = predict_request("shapes", "slow", rounds=np.array([ROUNDS], np.int32))
        return list(client.predictions.Predict(request, 100).outputs["y"].float_val)


def slow_rest(server: ServerProcess) -> Any:
    return predict(server, "shapes", {"signature_name": "slow", "instances": [ROUNDS]}).json()["predictions"]


def ask_status(server: ServerProcess) -> None:
    assert server.call("GET", "/v1/models/half_plus").status == 200


def ask_rest(server: ServerProcess) -> None:
    assert value(server, "half_plus", {"instances": [2.0]}) == [4.0]


def ask_the_same_model(server: ServerProcess) -> None:
    assert value(server, "shapes", {"signature_name": "scalar", "inputs": 1.0}) == 2.0


def ask_grpc(server: ServerProcess) -> None:
    with Grpc(server.grpc) as client:
        client.status("half_plus")
        client.predict(predict_request("half_plus", x=floats([2.0])))


@pytest.mark.parametrize("slow", [slow_grpc, slow_rest])
def test_calls_do_not_wait_for_a_slow_one(
    server: ServerProcess, slow: Callable[[ServerProcess], Any]
) -> None:
    """Status, other models and other signatures are answered while a run of seconds goes on."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(slow, server)
        with pytest.raises(concurrent.futures.TimeoutError):
            running.result(0.5)
        waited = []
        for ask in (ask_status, ask_rest, ask_grpc, ask_the_same_model):
            ask(server)
            if running.done():
                waited.append(ask.__name__)
        assert running.result() == [float(ROUNDS)]
    assert waited == []
