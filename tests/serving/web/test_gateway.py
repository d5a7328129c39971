import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from serving.repository import model_dir, write_manifest
from serving.settings import Settings
from serving.targets import tfjs
from serving.targets.tfjs import TARGET
from tests.pipelines.test_publish import manifests
from tests.serving.gateway import answering, running, serve_version, settings_in

LIMIT = 16 * 1024 * 1024
IMMUTABLE = "public, max-age=31536000, immutable"


def echo(path: str, body: bytes) -> bytes:
    """Answer with what came; /slow takes a second."""
    time.sleep(path == "/slow")
    return json.dumps({"path": path, "bytes": len(body)}).encode()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    artifacts = tmp_path_factory.mktemp("artifacts with spaces")
    settings = settings_in(artifacts)
    versions = model_dir(settings.repository, "tfjs", "fashion")
    for version in (1, 2):
        folder = versions / str(version)
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps({"format": "graph-model", "padding": "x" * 2000}))
        (folder / "group1-shard1of1.bin").write_bytes(bytes(range(256)))
        write_manifest(folder, manifests("")["tfjs"])
    (versions / ".current.json.123").write_text("half written")
    for target, file in (
        ("litert", "model.tflite"),
        ("onnxruntime", "model.onnx"),
        ("torchserve", "model.mar"),
    ):
        folder = model_dir(settings.repository, target, "fashion") / "1"
        folder.mkdir(parents=True)
        (folder / file).write_bytes(b"model")
    report = artifacts / "reports" / "20261128-051500"
    report.mkdir(parents=True)
    (report / "index.html").write_text("<!doctype html><script>1</script>")
    serve_version(settings, 1)
    return settings


@pytest.fixture(scope="module")
def upstream(settings: Settings) -> Iterator[None]:
    with answering(echo, settings.tf_serving_rest_port):
        yield


@pytest.fixture(scope="module")
def gateway(settings: Settings, upstream: None) -> Iterator[Any]:
    """A function that asks the gateway; of the page's packages it has one wasm file."""
    scripts = settings.artifacts / "scripts"
    (scripts / "litertjs").mkdir(parents=True)
    (scripts / "litertjs" / "some.wasm").write_bytes(b"\0asm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfjs, "install", lambda *_: scripts)
        with running(settings), urllib3.PoolManager(retries=False, timeout=20) as pool:
            base = f"http://{settings.host}:{settings.tfjs_port}"
            yield lambda path, method="GET", **more: pool.request(method, base + path, **more)


@pytest.mark.parametrize(
    ("path", "kind", "cache"),
    [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/litertjs/some.wasm", "application/wasm", "no-cache"),
        ("/config.json", "application/json", "no-cache"),
        ("/healthz", "application/json", None),
        ("/tfjs/fashion/current.json", "application/json", "no-cache"),
        ("/tfjs/fashion/1/manifest.json", "application/json", "no-cache"),
        ("/tfjs/fashion/1/model.json", "application/json", IMMUTABLE),
        ("/tfjs/fashion/1/model.json?sha256=12", "application/json", IMMUTABLE),
        ("/tfjs/fashion/1/group1-shard1of1.bin", "application/octet-stream", IMMUTABLE),
        ("/litert/fashion/1/model.tflite", "application/octet-stream", IMMUTABLE),
        ("/onnxruntime/fashion/1/model.onnx", "application/octet-stream", IMMUTABLE),
        ("/reports/20261128-051500/", "text/html; charset=utf-8", "no-cache"),
    ],
)
def test_files_have_their_type_and_their_lifetime(
    gateway: Any,
    path: str,
    kind: str,
    cache: str | None,
) -> None:
    answer = gateway(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert answer.headers.get("Cache-Control") == cache
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in answer.headers


def test_the_page_may_load_nothing_from_elsewhere(gateway: Any) -> None:
    policy = gateway("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    # A report is a page of its own, with its script within: it gets no origin that could ask the targets.
    policy = gateway("/reports/20261128-051500/").headers["Content-Security-Policy"]
    assert "sandbox allow-scripts;" in policy
    assert "default-src 'none'" in policy


def test_reports_are_listed(gateway: Any) -> None:
    (entry,) = gateway("/reports/", headers={"Accept": "application/json"}).json()
    assert (entry["name"], entry["is_dir"]) == ("20261128-051500/", True)


def test_text_is_compressed(gateway: Any) -> None:
    answer = gateway("/tfjs/fashion/1/model.json", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.json()["format"] == "graph-model"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/tfjs/",
        "/tfjs/fashion/",
        "/tfjs/fashion/3/model.json",
        "/tfjs/nomodel/current.json",
        "/torchserve/fashion/1/model.mar",
        "/tfjs/%2e%2e/torchserve/fashion/1/model.mar",
        "/tfjs/fashion/.current.json.123",
        "/tfjs/%2e%2e/%2e%2e/run/tfjs/config/config.json",
        '/"quoted"\\',
        "/api",
        "/api/nobody/v1",
    ],
)
def test_what_is_not_there_is_a_json_404_that_is_not_kept(gateway: Any, path: str) -> None:
    answer = gateway(path)
    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/json")
    assert list(answer.json()) == ["error"]
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_files_can_only_be_read(gateway: Any, method: str) -> None:
    answer = gateway("/tfjs/fashion/current.json", method)
    assert (answer.status, list(answer.json())) == (405, ["error"])


def test_a_target_is_reached_without_the_prefix(gateway: Any) -> None:
    answer = gateway("/api/tf-serving/v1/models/fashion:predict?a=1", "POST", body=b"12345")
    assert answer.json() == {"path": "/v1/models/fashion:predict?a=1", "bytes": 5}


def test_a_target_that_is_down_is_a_json_502(gateway: Any) -> None:
    answer = gateway("/api/litert/v2/health/ready")
    assert (answer.status, answer.headers["Content-Type"]) == (502, "application/json")
    assert "does not answer" in answer.json()["error"]


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (100_000_000, 413)])
def test_bodies_have_a_limit(gateway: Any, size: int, status: int) -> None:
    answer = gateway("/api/tf-serving/v1", "POST", body=bytes(size))
    assert answer.status == status
    if status == 413:
        assert answer.json() == {"error": f"the body is larger than {LIMIT} bytes"}
    assert gateway("/healthz").status == 200


def test_a_moved_pointer_is_seen_at_once(gateway: Any, settings: Settings) -> None:
    for version in (2, 1, 2, 1):
        serve_version(settings, version)
        assert gateway("/tfjs/fashion/current.json").json()["version"] == version
        assert TARGET.served_version(settings) == version


def test_a_pointer_to_a_version_that_is_not_there_is_not_served(gateway: Any, settings: Settings) -> None:
    serve_version(settings, 7)
    assert TARGET.served_version(settings) is None
    serve_version(settings, 1)
    assert TARGET.served_version(settings) == 1


def test_open_requests_are_answered_when_it_is_stopped(
    settings: Settings, upstream: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfjs, "install", lambda *_: tmp_path)
    other = settings_in(tmp_path)
    other = Settings(**{**vars(other), "tf_serving_rest_port": settings.tf_serving_rest_port})
    answers: list[int] = []
    address = f"http://{other.host}:{other.tfjs_port}/api/tf-serving/slow"
    with running(other):
        thread = threading.Thread(target=lambda: answers.append(urllib3.request("POST", address).status))
        thread.start()
        time.sleep(0.3)
    thread.join()
    assert answers == [200]
