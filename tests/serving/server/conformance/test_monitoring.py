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


def test_requests_are_counted_and_timed(server: ServerProcess, grpc_client: Grpc) -> None:
    """servables/tensorflow/util.cc: request_count{model_name, status}, the status by its code's name.

    request_latency by model, API and entrypoint, and runtime_latency by runtime, in microseconds.
    prometheus_exporter_test.cc: `# TYPE` lines, names with colons; and Tandem's own figures.
    """
    name = ":tensorflow:serving:request_latency"
    before = page(server)
    value(server, "half_plus", {"instances": [2.0]})
    value(server, "half_plus", {"instances": [2.0]})
    grpc_client.predict(predict_request("half_plus", x=floats([2.0])))
    assert predict(server, "half_plus", {"instances": ["text"]}).status == 400
    after = page(server)
    for status, count in (("OK", 3), ("INVALID_ARGUMENT", 1)):
        labels = {"model_name": "half_plus", "status": status}
        assert sample(after, COUNT, **labels) - sample(before, COUNT, **labels) == count, status
    assert f"# TYPE {COUNT} " in after
    assert f"# TYPE {name} histogram\n" in after
    assert 'tandem_requests_total{code="OK",model="half_plus",protocol="tfs-rest"' in after
    for api, entrypoint in (("predict", "REST"), ("Predict", "GRPC")):
        labels = {"model_name": "half_plus", "API": api, "entrypoint": entrypoint}
        count = sample(after, f"{name}_count", **labels)
        assert count >= 1, labels
        assert sample(after, f"{name}_sum", **labels) > 0
        assert sample(after, f"{name}_bucket", **labels, le="+Inf") == count
    runs = {"model_name": "half_plus", "API": "Predict", "runtime": "TF1"}
    assert sample(after, ":tensorflow:serving:runtime_latency_count", **runs) >= 2
