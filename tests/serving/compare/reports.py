"""Reports written by hand."""

from __future__ import annotations

from typing import Any

from serving.compare.report import Figure, Framework, Point, Report, Row

FAST, SLOW = "onnxruntime grpc", "torchserve rest"


def row(target: str, protocol: str, ms: float, rate: float, **changes: Any) -> Row:
    """A row whose p99 is twice its median, and whose CPU time is its latency."""
    framework = "tensorflow" if target in ("tf-serving", "litert", "tfjs") else "pytorch"
    made = Row(
        target,
        protocol,
        framework,
        f"{target} 1.0",
        artifact_bytes=int(ms * 2**20),
        score=0.9,
        difference=ms * 1e-7,
        p50=Figure(ms, ms / 100),
        p90=Figure(ms * 1.5, ms / 50),
        p99=Figure(ms * 2, ms / 20),
        quantiles=[ms * (0.5 + i / 100) for i in range(101)],
        sweep=[
            Point(rate / 2, rate / 2, ms, ms * 2, cpu_us=ms * 500),
            Point(rate * 2, rate, ms * 9, ms * 50, "late", cpu_us=ms * 400),
        ],
        goodput=Figure(rate, rate / 20),
        batches={"1": rate, "8": rate * 3},
        cpu_us=Figure(ms * 1000, ms * 10),
        generator_us=ms * 100,
        memory_idle=100 * 2**20,
        memory_loaded=120 * 2**20,
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def framework(name: str, **changes: Any) -> Framework:
    """A framework's way of two epochs."""
    epochs = [{"loss": 1.0, "metric": 0.7, "validation_loss": 0.9, "validation_metric": 0.8}] * 2
    trained = 300 * 2**20, "float32 on 1 cpu", 0.0271, 0.012
    made = Framework(name, f"{name} 2.0", epochs, 61.0, 0.91, *trained, {"litert": 9.0}, {"network": 40})
    for field, value in changes.items():
        setattr(made, field, value)
    return made


def report(*rows: Row, **changes: Any) -> Report:
    """A report of these rows, by default of a fast and a slow one, on a quiet machine of four cores."""
    chosen = list(rows) or [row("onnxruntime", "grpc", 1.0, 1000), row("torchserve", "rest", 6.1, 90)]
    machine = {
        **{
            "processor": "A processor",
            "cores": 4,
            "memory_bytes": 2**33,
            "system": "Linux",
            "python": "3.11",
        },
        **{"governor": "performance", "instructions": ["avx2"], "versions": {"torch": "2.13.0"}},
    }
    settings = {"seconds": 1.0, "rounds": 3, "target_ms": 20.0, "connections": 8, "batches": [1, 8]}
    made = Report("fashion", 3, "accuracy", settings, machine, "process", "2026-11-28T00:00:00Z", chosen)
    made.parity = [[0.0 if i == j else 1e-7 for j in range(len(chosen))] for i in range(len(chosen))]
    for name, value in changes.items():
        setattr(made, name, value)
    return made
