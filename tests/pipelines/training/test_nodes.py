"""Several machines, here processes and threads of one: they meet, end with the weights of one, and end together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import models.base
from pipelines import data, training
from pipelines.training import nodes as module
from pipelines.training.nodes import Nodes
from pipelines.training.record import Trained, TrainingError
from tests.pipelines.training.test_devices import assert_nearly_same_weights, ranks, train_phrases
from tests.pipelines.training.test_training import assert_same_weights, train_sample


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def together(*functions: Callable[[], object]) -> list[object]:
    """What they return at the same time, or the message of the `TrainingError` that they raise."""

    def call(function: Callable[[], object]) -> object:
        try:
            return function()
        except TrainingError as error:
            return str(error)

    with ThreadPoolExecutor(len(functions)) as threads:
        return list(threads.map(call, functions))


def member(
    port: int, rank: int, work: Callable[[module.Agent], None], training: str = "a", seconds: int = 20
) -> Callable[[], None]:
    def run() -> None:
        with Nodes(2, rank, "127.0.0.1", port, seconds).met(training) as agent:
            assert agent
            work(agent)

    return run


def watch(agent: module.Agent) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        agent.watch()
        time.sleep(0.05)


def sleep(_agent: module.Agent) -> None:
    time.sleep(4)


def fail(_agent: module.Agent) -> None:
    raise TrainingError("the process of rank 1, of 2, ended by SIGKILL")


def test_an_error_of_one_node_ends_all_and_is_told_by_all(port: int) -> None:
    assert (
        together(member(port, 0, watch), member(port, 1, fail))
        == ["the process of rank 1, of 2, ended by SIGKILL"] * 2
    )


def cut_off(agent: module.Agent) -> None:
    agent.nodes = replace(agent.nodes, address="192.0.2.1")
    agent.watch()


def test_a_node_that_falls_silent_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST_SECONDS", 1)
    told, _ = together(member(port, 0, watch), member(port, 1, sleep))
    assert str(told).startswith("node 1 of 2 is lost: not a word for 1 s")
    told = together(member(port, 0, watch), member(port, 1, cut_off))
    assert str(told[1]) == "node 0 of 2 ended, or is lost: see there why"


def test_a_node_that_does_not_come_or_is_another_is_named_in_time(port: int) -> None:
    started = time.monotonic()
    (told,) = together(member(port, 0, watch, seconds=1))
    assert f"node 1 of 2 did not come to 127.0.0.1:{port} within 1 s" in str(told)
    (told,) = together(member(port, 1, watch, seconds=1))
    assert f"node 0 did not listen on 127.0.0.1:{port}" in str(told)
    (told,) = together(lambda: module.Agent(Nodes(2, 0, "192.0.2.1", port)))
    assert f"node 0 cannot listen on 192.0.2.1:{port} (Cannot assign" in str(told)
    assert time.monotonic() - started < 30
    for told in together(member(port, 0, watch), member(port, 1, watch, "b")):
        assert str(told) in (
            "node 1 of 2 would train b, and others a",
            "node 0 of 2 would train a, and others b",
        )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_nodes_end_with_the_weights_of_one_after_fifty_steps(port: int, tmp_path: Path) -> None:
    def train(rank: int) -> Trained:
        nodes = Nodes(2, rank, "127.0.0.1", port, 60)
        return train_phrases("pytorch", tmp_path / f"node{rank}" / "run", 2, nodes)

    first, second = together(lambda: train(0), lambda: train(1))
    assert isinstance(first, Trained), first
    assert isinstance(second, Trained), second
    assert_same_weights(first, second)
    assert first.history.epochs == second.history.epochs
    assert (tmp_path / "node0/run/tensorboard").exists()
    assert not (tmp_path / "node1/run/tensorboard").exists(), "the first writes the curves"
    assert_nearly_same_weights(train_phrases("pytorch", tmp_path / "one", 1), first)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_killed_node_ends_both_which_go_on_from_the_last_epoch_of_the_first(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many threads in each process, on one machine or two: then they are equal to the last bit.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def train(rank: int) -> Callable[[], Trained]:
        nodes = Nodes(2, rank, "127.0.0.1", port, 60)
        return lambda: train_sample(
            "pytorch", tmp_path / f"node{rank}" / "run", epochs=2, devices=2, nodes=nodes
        )

    def kill() -> None:
        checkpoint = tmp_path / "node0/run/pytorch/checkpoints/epoch-000.ckpt"
        deadline = time.monotonic() + 300
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        ranks()[1].kill()

    told = together(train(0), train(1), kill)
    assert str(told[0]).startswith("pytorch: the process of rank 1, of 2, ended by SIGKILL")
    assert told[0] == told[1]
    first, second = together(train(0), train(1))
    assert isinstance(first, Trained), first
    whole = train_sample("pytorch", tmp_path / "whole", epochs=2, devices=2)
    assert_same_weights(first, whole)
    assert first.history.step_losses == whole.history.step_losses
    assert isinstance(second, Trained), second


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_the_same_command_on_two_nodes_trains_one_model(port: int, tmp_path: Path) -> None:
    def start(rank: int) -> subprocess.Popen[str]:
        own = {"NODES": 2, "NODE_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        own |= {"MODEL": "language", "PROFILE": "smoke", "ARTIFACTS": tmp_path / str(rank)}
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "train"],
            env=os.environ | {f"TANDEM_{name}": str(value) for name, value in own.items()},
            stdout=subprocess.PIPE,
            text=True,
        )

    running = [start(rank) for rank in (0, 1)]
    output = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], output
    assert "node 1 of 2 has done its part; node 0 exports and publishes" in output[1]
    (one,), (other,) = ((tmp_path / own / "runs").iterdir() for own in ("0", "1/nodes/1"))
    assert sorted(path.parent.name for path in one.glob("*/weights.npz")) == ["pytorch", "tensorflow"]
    assert [path.parent.name for path in other.glob("*/weights.npz")] == ["pytorch"]
    first, second = (Trained.read("pytorch", run / "pytorch") for run in (one, other))
    assert first is not None
    assert second is not None
    assert_same_weights(first, second)
    model = models.base.load("language")
    dataset, profile = data.load(model, tmp_path / "0", 1), model.spec.profile("smoke")
    alone = training.train("pytorch", model, profile, 1, dataset, tmp_path / "alone")
    assert_nearly_same_weights(alone, first)
