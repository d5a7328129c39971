"""What the gateway tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from serving.repository import model_dir
from serving.settings import Settings
from serving.targets import tfjs
from tests.serving.gateway import running, serve_version, settings_in

Ask = Callable[[str], urllib3.BaseHTTPResponse]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = settings_in(tmp_path_factory.mktemp("artifacts with spaces"))
    for version in (1, 2):
        folder = model_dir(settings.repository, "tfjs", "fashion") / str(version)
        folder.mkdir(parents=True)
        (folder / "model.json").write_text("{}")
    # Neither is a model that is served.
    (settings.repository / "tfjs" / "unpublished").mkdir()
    (settings.repository / "tfjs" / "stray.txt").write_text("")
    serve_version(settings, 1)
    return settings


@pytest.fixture(scope="module")
def gateway(settings: Settings) -> Iterator[Ask]:
    """A function that asks the gateway."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfjs, "install", lambda *_: settings.artifacts)
        with running(settings), urllib3.PoolManager(retries=False, timeout=20) as pool:
            base = f"http://{settings.host}:{settings.tfjs_port}"
            yield lambda path: pool.request("GET", base + path)


def scrape(gateway: Ask) -> Samples:
    answer = gateway("/metrics")
    assert answer.status == 200
    families = text_string_to_metric_families(answer.data.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for f in families
        for sample in f.samples
    }


def versions(samples: Samples) -> list[dict[str, str]]:
    return [dict(labels) for name, labels in samples if name == "tandem_model_version"]


def requests(samples: Samples) -> float:
    return samples.get(
        ("caddy_http_requests_total", frozenset({("handler", "subroute"), ("server", "srv0")})), 0
    )


def test_metrics_are_prometheus_text(gateway: Ask) -> None:
    answer = gateway("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in answer.headers
    names = {name for name, _ in scrape(gateway)}
    assert {
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    } <= names


def test_what_is_served_is_counted_and_scrapes_are_not(gateway: Ask) -> None:
    before = requests(scrape(gateway))
    for path in ("/", "/healthz", "/tfjs/fashion/current.json", "/nothing", "/api/litert/v2"):
        gateway(path)
    samples = scrape(gateway)
    assert requests(samples) - before == 5
    codes = {
        dict(labels)["code"]
        for name, labels in samples
        if name == "caddy_http_request_duration_seconds_bucket" and ("handler", "subroute") in labels
    }
    assert codes == {"200", "404", "502"}


def test_the_version_is_the_one_that_is_served(gateway: Ask, settings: Settings) -> None:
    for version in (2, 1):
        serve_version(settings, version)
        assert versions(scrape(gateway)) == [{"model": "fashion", "version": str(version)}]
    serve_version(settings, 7)
    assert versions(scrape(gateway)) == []
    serve_version(settings, 1)


def test_without_a_repository_there_are_metrics_and_no_version(gateway: Ask, settings: Settings) -> None:
    folder: Path = settings.repository / "tfjs"
    aside = folder.rename(folder.with_name("aside"))
    assert versions(scrape(gateway)) == []
    aside.rename(folder)
    assert len(versions(scrape(gateway))) == 1
