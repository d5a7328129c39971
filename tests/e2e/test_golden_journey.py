"""The journey of DESIGN: deploy, paste the curl lines, compare, change, roll back, break, take down.

The tests build on one another, in this order, on one deployment.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from models.signature import Arrays, joined
from serving import repository, targets
from serving.compare import report
from tests import needs
from tests.e2e import parity
from tests.e2e.browser import load_runtime, opened
from tests.e2e.conftest import ROOT, TANDEM, TARGETS, Stack, trickle, until
from tests.pictures import Images

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def answers(stack: Stack, pictures: tuple[Images, np.ndarray]) -> dict[tuple[str, str], Arrays]:
    """Every endpoint's outputs for 200 pictures, by target and protocol; tfjs where there is a browser."""
    result = {}
    for name in (name for name in targets.NAMES if name != "tfjs" or not needs.chromium()):
        for protocol, client in targets.load(name).clients(stack.settings).items():
            parts = [client.predict({"image": part}) for part in np.split(pictures[0], 4)]
            client.close()
            result[name, protocol] = joined(parts)
    return result


def test_deploy_ends_with_every_target_on_the_published_version(stack: Stack) -> None:
    assert stack.versions() == dict.fromkeys(targets.NAMES, stack.version)
    status = stack.tandem("status").stdout
    assert status.startswith(f"platform {stack.platform.name} (")
    for name in targets.NAMES:
        assert re.search(rf"^{name} +\d+ +running +{stack.version} ", status, re.MULTILINE), status


def test_curl_lines_work_as_they_were_printed(stack: Stack) -> None:
    lines = stack.curl_lines()
    assert set(lines) == set(targets.NAMES)
    expected = 9
    for name, line in lines.items():
        done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, line
        if name == "tfjs":
            assert "<html" in done.stdout
        elif name in ("tf-serving", "torchserve"):
            (prediction,) = json.loads(done.stdout)["predictions"]
            assert int(np.argmax(prediction["logits"])) == expected
            assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-4)
        else:
            outputs = {o["name"]: o for o in json.loads(done.stdout)["outputs"]}
            assert outputs["logits"]["shape"] == [1, 10]
            assert int(np.argmax(outputs["logits"]["data"])) == expected


@pytest.mark.parametrize("target", TARGETS)
def test_every_endpoint_answers_as_its_source_framework_does(
    answers: dict[tuple[str, str], Arrays], reference: dict[str, np.ndarray], target: str
) -> None:
    own = {protocol: outputs for (name, protocol), outputs in answers.items() if name == target}
    assert {"browser"} == set(own) if target == "tfjs" else {"rest", "grpc"} <= set(own)
    for protocol, outputs in own.items():
        parity.assert_agrees(outputs, reference[targets.load(target).source], f"{target} {protocol}")


def test_frameworks_agree_on_nearly_all_pictures(
    answers: dict[tuple[str, str], Arrays], pictures: tuple[Images, np.ndarray]
) -> None:
    first = next(iter(answers.values()))["logits"].argmax(1)
    for endpoint, outputs in answers.items():
        assert np.mean(outputs["logits"].argmax(1) == pictures[1]) >= 0.65, endpoint
        assert np.mean(outputs["logits"].argmax(1) == first) >= 0.9, endpoint


def test_compare_measures_each_endpoint_and_decide_ranks_them(stack: Stack) -> None:
    short = ["--seconds", "0.2", "--rounds", "1", "--rows", "64", "--target-ms", "1000"]
    said = stack.tandem("compare", "onnxruntime", *short).stdout
    found = report.load(Path(re.search(r"^report: (.+)/index.html$", said, re.MULTILINE)[1]))
    assert [row.protocol for row in found.ways] == ["rest", "rest-binary", "grpc"]
    for row in found.ways:
        assert row.works, row.reason
        assert row.runs == "ONNX Runtime in our server"
        assert row.score > 0.6
        assert row.difference < 1e-5
        assert 0 < row.p50.value <= row.p99.value
        assert row.cpu_us.value > 100
        assert row.goodput.value > 10
        assert row.memory_loaded > 2**24
        assert row.batches["64"] > row.batches["1"]
        assert row.conditions["threads"] == 1
        assert row.start_seconds > 0.1
        assert (row.image_bytes is not None) == (stack.platform.name == "docker")
        # On a busy machine there may be none.
        assert not row.parts or sum(row.parts.values()) == pytest.approx(row.p50.value)
    assert all(row.works for row in found.rows)
    servers = [f"null oip {row.protocol}" for row in found.ways]
    beside = ["null no endpoint", "onnxruntime in process", *servers]
    assert [row.name for row in found.rows if not row.is_way] == beside
    assert {own.name for own in found.frameworks} == {"tensorflow", "pytorch"}
    for own in found.frameworks:
        assert own.peak_bytes > 2**20
        assert min(own.export_seconds.values()) > 0
    assert max(apart for row in found.parity for apart in row if apart is not None) < 1e-5
    ranked = stack.tandem("decide", "--accuracy", "0.6", "--runs-on", "edge").stdout
    assert re.search(
        r"^1\. onnxruntime \S+: p50 .* ms, score 0\.\d+; project: active", ranked, re.MULTILINE
    ), ranked


def test_predict_asks_every_endpoint(stack: Stack) -> None:
    lines = stack.tandem("predict").stdout.splitlines()
    assert len(lines) == 11
    assert all("Ankle boot" in line for line in lines)
    done = stack.tandem("predict", "--input", "Makefile", check=False)
    assert (done.returncode, done.stderr) == (1, "error: Makefile is no picture: expected PNG or JPEG\n")


@pytest.mark.browser
def test_the_page_runs_the_artifacts_of_other_targets_too(stack: Stack) -> None:
    with opened(stack.settings, 1280) as page:
        page.route("**/model.onnx*", lambda route: route.fulfill(body=b"no graph"))
        row = page.locator("#in-browser tr", has_text="ONNX Runtime Web on WebAssembly")
        row.get_by_role("button").click()
        row.locator("td:has-text('of fashion cannot be loaded')").wait_for()
        page.unroute("**/model.onnx*")
        for runtime in ("LiteRT.js", "ONNX Runtime Web"):
            load_runtime(page, runtime)
        agreeing = "#in-browser tr.agrees, #in-browser tr:has-text('same class')"
        values = page.locator(agreeing).all_inner_texts()
        assert [text.split()[0] for text in values] == ["LiteRT.js", "ONNX"]
        assert len(page.locator("#values thead th").all()) == 7
        page.locator("#samples button").nth(2).click()
        page.wait_for_selector("#summary:has-text('endpoints')")
        page.click("#start")
        page.wait_for_selector("#race-status:has-text('lowest median')", timeout=60_000)
        assert page.locator("#times tbody tr").count() == 7
        assert page.locator("#times tbody tr.down").count() == 0


def test_deploy_again_has_nothing_to_do(stack: Stack) -> None:
    pids = {name: state.pid for name, state in stack.platform.states(stack.settings).items()}
    before = stack.version
    output = stack.deploy()
    assert stack.version == before
    assert "nothing to train, export or publish" in output
    assert "==> train" not in output
    assert {name: state.pid for name, state in stack.platform.states(stack.settings).items()} == pids
    assert stack.seconds < 30


def test_a_change_is_served_without_a_failed_request_and_rolled_back(
    stack: Stack, pictures: tuple[Images, np.ndarray]
) -> None:
    before = stack.version
    with trickle(stack, pictures[0][:1]) as calls:
        time.sleep(1)
        # Other weights in three of the targets: a new version, without another training.
        stack.deploy("--source", "pytorch")
        assert stack.version != before
        assert stack.versions() == dict.fromkeys(targets.NAMES, stack.version)
        time.sleep(2)
        rolled_back = stack.tandem("rollback").stdout
        assert f"version {before} is published" in rolled_back
        assert stack.versions() == dict.fromkeys(targets.NAMES, before)
        time.sleep(2)
    assert calls.failures == []
    assert min(calls.calls.values()) > 50, calls.calls


def test_all_targets_from_one_framework_agree_to_the_last_digits(
    stack: Stack, pictures: tuple[Images, np.ndarray], reference: dict[str, np.ndarray]
) -> None:
    stack.tandem("rollback")
    for name in (name for name in targets.NAMES if name != "tfjs" or not needs.chromium()):
        for client in list(targets.load(name).clients(stack.settings).values())[:1]:
            logits = client.predict({"image": pictures[0][:50]})["logits"]
            client.close()
            np.testing.assert_allclose(logits, reference["pytorch"][:50], rtol=0, atol=5e-5, err_msg=name)
    stack.tandem("rollback")


@pytest.mark.parametrize("name", TARGETS)
def test_a_killed_target_answers_again_within_its_start_time(stack: Stack, name: str) -> None:
    target, pid = targets.load(name), stack.platform.states(stack.settings)[name].pid
    assert pid is not None
    before = target.served_version(stack.settings)
    server = psutil.Process(pid)
    if stack.platform.name == "docker":
        # The first process of a container only passes signals on.
        (server,) = server.children()
    workers = server.children(recursive=True)
    server.kill()
    until(lambda: stack.platform.states(stack.settings)[name].pid not in (None, pid), 20)
    seconds = until(lambda: target.served_version(stack.settings) == before, 90)
    client = next(iter(target.clients(stack.settings).values()))
    client.predict({"image": np.zeros((1, 28, 28, 1), np.float32)})
    client.close()
    until(lambda: not any(worker.is_running() for worker in workers), 20)
    assert seconds < 60


def test_killed_deploy_leaves_what_is_served_and_the_next_one_repairs(stack: Stack) -> None:
    served, root = stack.versions(), stack.settings.repository
    before = {p: p.read_bytes() for p in root.rglob("*.json")}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [str(TANDEM), "deploy", "--source", "tensorflow"]
    process = subprocess.Popen(command, cwd=ROOT, env=stack.environment, **quiet)
    candidates = stack.settings.artifacts / "candidates"
    until(lambda: any(candidates.glob("*/*")), 120)
    process.kill()
    process.wait()
    assert stack.versions() == served
    assert {p: p.read_bytes() for p in before} == before
    highest = max(repository.versions(repository.model_dir(root, "tfjs", "fashion")))
    stack.deploy("--source", "tensorflow")
    assert stack.version == highest + 1
    for name in targets.NAMES:
        repository.verify(repository.version_dir(root, name, "fashion", stack.version))
    assert not list(root.rglob(".incoming*"))


def test_down_stops_everything_that_was_started(stack: Stack) -> None:
    processes = []
    for state in stack.platform.states(stack.settings).values():
        assert state.pid is not None
        parent = psutil.Process(state.pid)
        processes += [parent, *parent.children(recursive=True)]
    assert len(processes) >= 5
    stack.tandem("down")
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes), 20)
    assert stack.versions() == dict.fromkeys(targets.NAMES)
    assert stack.tandem("status", check=False).returncode == 1
