"""Prometheus: its rules, its image, and the dashboard over them."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.platforms import images
from serving.server.metrics import Metrics, RequestRecord
from serving.targets import NAMES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "prometheus"
FLAGS = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]

OF_PROMETHEUS = {"up", "ALERTS"}
OF_CADDY = {
    "caddy_http_requests_total",
    "caddy_http_request_duration_seconds",
    "process_resident_memory_bytes",
}
# Read in the sources of TensorFlow Serving, whose image cannot be had here.
OF_TENSORFLOW_SERVING = {
    ":tensorflow:serving:request_count",
    ":tensorflow:serving:request_latency",
    ":tensorflow:serving:batching_session:queuing_latency",
    ":tensorflow:cc:saved_model:load_attempt_count",
}

Ask = Callable[[str], Any]


def in_docker(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.docker(pytest.mark.timeout(600)(test))


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


RULES = [rule for group in read("rules.yml")["groups"] for rule in group["rules"]]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "dashboard.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def metrics_in(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads: its names that are no functions, keywords or labels."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on)\s*\([^)]*\)", " ", text)
    names = re.findall(r"(?<![\w:.])([A-Za-z_:][\w:]*)(?!\s*\(|[\w:])", text)
    return set(names) - {"or", "and", "unless", "by", "on"}


def family(name: str) -> str:
    """A histogram's name from that of one of its series."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def exported() -> set[str]:
    """What the endpoints tell: our server's own page, and TorchServe's own list."""
    metrics = Metrics()
    metrics.show(lambda: [("fashion", 1, 0)])
    metrics.request(
        RequestRecord("POST", "/", "", protocol="oip-rest", model="fashion", version="1", run_seconds=0.001)
    )
    metrics.run("fashion", 1, 0.001)
    ours = {s.name for f in text_string_to_metric_families(metrics.page().decode()) for s in f.samples}
    spec = find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    lists = yaml.safe_load((Path(spec.origin).parent / "configs" / "metrics.yaml").read_text())["ts_metrics"]
    torchserve = {metric["name"] for kind in lists.values() for metric in kind}
    return {*ours, *torchserve, *OF_CADDY, *OF_PROMETHEUS, *OF_TENSORFLOW_SERVING}


def test_rules_read_only_what_is_there() -> None:
    known = exported()
    for rule in RULES:
        for name in metrics_in(rule["expr"]) - RECORDED:
            assert name in known or family(name) in known, f"{rule.get('record', rule.get('alert'))}: {name}"


def test_an_alert_says_what_is_wrong_and_what_to_do() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert set(alert["annotations"]) == {"summary", "action"}, alert["alert"]


def test_every_alert_is_tested_firing_and_quiet() -> None:
    tests = [case for test in read("rules.test.yml")["tests"] for case in test.get("alert_rule_test", [])]
    for alert in ALERTS:
        outcomes = {bool(case["exp_alerts"]) for case in tests if case["alertname"] == alert["alert"]}
        assert outcomes == {True, False}, alert["alert"]


def test_every_rule_stands_in_the_documentation() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for name in {*RECORDED, *(alert["alert"] for alert in ALERTS)}:
        assert f"`{name}`" in page, name


def test_the_dashboard_reads_only_what_is_recorded() -> None:
    for expression in EXPRESSIONS:
        names = metrics_in(expression)
        assert names
        assert names <= RECORDED | OF_PROMETHEUS, expression


def test_the_dashboard_works_with_any_datasource() -> None:
    assert DASHBOARD["schemaVersion"] >= 38
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", " ".join(EXPRESSIONS))) <= variables


def docker(*arguments: str) -> str:
    """Run the engine's command line; what it refuses fails the test."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.fail("no container engine is installed, and the marker `docker` asks for one")
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def image() -> str:
    name = images.reference("prometheus")
    docker("image", "inspect", name)
    return name


@pytest.fixture(scope="module")
def prometheus(image: str) -> Iterator[Ask]:
    """A function that asks the API of a Prometheus whose targets are not there."""
    run = ["run", "--detach", *FLAGS, "--tmpfs=/prometheus:mode=1777", "--publish=127.0.0.1::9090"]
    container = docker(*run, image).strip()
    try:
        port = int(docker("port", container, "9090/tcp").split(":")[-1])
        _wait(container, port)
        yield lambda path: _get(port, f"/api/v1/{path}")["data"]
    finally:
        docker("rm", "--force", "--volumes", container)


def _get(port: int, path: str) -> Any:
    answer = urllib3.request("GET", f"http://127.0.0.1:{port}{path}", timeout=10)
    assert answer.status == 200, f"{path}: {answer.data!r}"
    return answer.json()


def _wait(container: str, port: int) -> None:
    for _ in range(150):
        try:
            _get(port, "/api/v1/status/runtimeinfo")
        except (urllib3.exceptions.HTTPError, AssertionError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"Prometheus was not ready within 30 s: {docker('logs', container)}")


@in_docker
def test_promtool_accepts_the_configuration_and_the_rules_do_what_their_tests_say(image: str) -> None:
    run = ["run", "--rm", *FLAGS, f"--volume={FOLDER}:/rules:ro", "--entrypoint=promtool", image]
    docker(*run, "check", "config", "/etc/prometheus/prometheus.yml")
    docker(*run, "test", "rules", "/rules/rules.test.yml")


@in_docker
def test_every_rule_is_evaluated(prometheus: Ask) -> None:
    rules = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert [rule["name"] for rule in rules if rule.get("lastError")] == []


@in_docker
def test_every_target_is_asked_for(prometheus: Ask) -> None:
    jobs: set[str] = set()
    end = time.monotonic() + 30  # it takes some seconds to find them
    while len(jobs) <= len(NAMES) and time.monotonic() < end:
        time.sleep(0.5)
        jobs = {target["labels"]["job"] for target in prometheus("targets")["activeTargets"]}
    assert jobs == {*NAMES, "prometheus"}


@in_docker
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_can_be_asked(prometheus: Ask, expression: str) -> None:
    query = urllib.parse.urlencode({"query": expression.replace("$target", ".*")})
    assert prometheus(f"query?{query}")["resultType"] == "vector"
