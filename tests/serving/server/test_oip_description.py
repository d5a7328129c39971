"""Statistics in the protocol's words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from serving.server.protocols.oip_description import statistics
from serving.server.statistics import Statistics


def test_statistics_are_counted_by_request_run_and_row() -> None:
    sums = Statistics()
    sums.request(0.25, succeeded=True)
    sums.request(0.5, succeeded=True)
    sums.request(0.125, succeeded=False)
    sums.wait(0.0625, 0.125)
    sums.run(1, 0.5)
    sums.run(4, 0.25)
    sums.run(4, 0.25)
    version = SimpleNamespace(statistics=sums)
    model = SimpleNamespace(name="fashion", loaded=[3], version={3: version}.get)
    plane: Any = SimpleNamespace(models=SimpleNamespace(names=["fashion"], model={"fashion": model}.get))
    (found,) = statistics(plane, None, None)["model_stats"]
    assert (found["name"], found["version"]) == ("fashion", "3")
    assert (found["inference_count"], found["execution_count"]) == (9, 3)
    assert found["last_inference"] > 1_500_000_000_000
    assert found["inference_stats"]["success"] == {"count": 2, "ns": 750_000_000}
    assert found["inference_stats"]["fail"] == {"count": 1, "ns": 125_000_000}
    assert found["inference_stats"]["queue"] == {"count": 1, "ns": 62_500_000}
    assert [(b["batch_size"], b["compute_infer"]) for b in found["batch_stats"]] == [
        (1, {"count": 1, "ns": 500_000_000}),
        (4, {"count": 2, "ns": 500_000_000}),
    ]
