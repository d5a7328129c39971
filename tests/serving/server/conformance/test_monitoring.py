"""The page for Prometheus: serving_config ("Monitoring Configuration"), util/prometheus_exporter.cc and its test."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from ..processes import ServerProcess
from .clients import Grpc, floats, predict, predict_request, value

PAGE = "/monitoring/prometheus/metrics"
COUNT = ":tensorflow:serving:request_count"


def page(server: ServerProcess) -> str:
    answer = server.call("GET", PAGE)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return answer.body.decode()


def sample(text: str, name: str, **labels: str) -> float:
    """The value of a sample; 0 if there is none yet."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if (sample.name, sample.labels) == (name, labels))


def test_the_form_of_the_page(server: ServerProcess) -> None:
    """prometheus_exporter_test.cc: `# TYPE` lines, names with colons; and Tandem's own figures."""
    value(server, "half_plus", {"instances": [2.0]})
    text = page(server)
    assert f"# TYPE {COUNT} " in text
    assert "# TYPE :tensorflow:serving:request_latency histogram\n" in text
    assert 'tandem_requests_total{code="OK",model="half_plus",protocol="tfs-rest"' in text


def test_requests_are_counted_by_model_and_status(server: ServerProcess, grpc_client: Grpc) -> None:
    """servables/tensorflow/util.cc: request_count{model_name, status}, the status by its code's name."""
    before = page(server)
    value(server, "half_plus", {"instances": [2.0]})
    value(server, "half_plus", {"instances": [2.0]})
    grpc_client.predict(predict_request("half_plus", x=floats([2.0])))
    assert predict(server, "half_plus", {"instances": ["text"]}).status == 400
    after = page(server)
    for status, count in (("OK", 3), ("INVALID_ARGUMENT", 1)):
        labels = {"model_name": "half_plus", "status": status}
        assert sample(after, COUNT, **labels) - sample(before, COUNT, **labels) == count, status


def test_latencies(server: ServerProcess, grpc_client: Grpc) -> None:
    """servables/tensorflow/util.cc: request_latency by model, API and entrypoint, in microseconds."""
    name = ":tensorflow:serving:request_latency"
    value(server, "half_plus", {"instances": [2.0]})
    grpc_client.predict(predict_request("half_plus", x=floats([2.0])))
    text = page(server)
    for labels in (
        {"model_name": "half_plus", "API": "predict", "entrypoint": "REST"},
        {"model_name": "half_plus", "API": "Predict", "entrypoint": "GRPC"},
    ):
        count = sample(text, f"{name}_count", **labels)
        assert count >= 1, labels
        assert sample(text, f"{name}_sum", **labels) > 0
        assert sample(text, f"{name}_bucket", **labels, le="+Inf") == count
    # runtime_latency by model, API and runtime.
    runs = {"model_name": "half_plus", "API": "Predict", "runtime": "TF1"}
    assert sample(text, ":tensorflow:serving:runtime_latency_count", **runs) >= 2
