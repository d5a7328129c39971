"""Every endpoint, called with test rows: what `tandem compare` prints."""

from __future__ import annotations

from collections.abc import Callable

import models.base
from models.task import Task
from pipelines import data
from pipelines.records import tables
from serving import targets
from serving.compare.load import Measurement, measure
from serving.compare.parity import agreements
from serving.settings import Settings
from serving.targets.base import TargetError


def show(settings: Settings, target: str | None, count: int, write: Callable[[str], None]) -> int:
    """Print latency and parity by endpoint and protocol; returns 1 where an endpoint did not answer."""
    model = models.base.load(settings.model)
    if target is not None and target not in targets.NAMES:
        raise TargetError(f"there is no target {target!r}; there are: {', '.join(targets.NAMES)}")
    dataset = data.load(model, settings.artifacts, settings.seed)
    inputs = dataset.test.take(slice(count)).served(model.spec.signature)
    measurements: list[Measurement] = []
    failures: list[str] = []
    for name in [target] if target else targets.NAMES:
        try:
            clients = targets.load(name).clients(settings)
            for protocol, client in clients.items():
                try:
                    measurements.append(measure(name, protocol, client, inputs))
                finally:
                    client.close()
        except TargetError as error:
            failures.append(f"{name}: {error}")
    if measurements:
        write(latency_table(measurements))
        write("")
        write(parity_table(measurements, model.spec.task))
    for failure in failures:
        write(failure)
    return 1 if failures else 0


def latency_table(measurements: list[Measurement]) -> str:
    """p50, p90 and p99 of one row a call over one connection, in milliseconds."""
    rows = [
        [own.target, own.protocol, *(f"{own.percentile(percent):.2f}" for percent in (50, 90, 99))]
        for own in measurements
    ]
    return tables.render(["target", "protocol", "p50 ms", "p90 ms", "p99 ms"], rows)


def parity_table(measurements: list[Measurement], task: Task) -> str:
    """Each endpoint against the first one of the same source framework."""
    source = {name: targets.load(name).source for name in targets.NAMES}
    names = [tensor.name for tensor in task.outputs]
    rows = [
        [
            own.endpoint,
            own.reference,
            "-" if own.same is None else f"{own.same:.1%}",
            *(f"{own.differences[name]:.1e}" for name in names),
        ]
        for own in agreements(measurements, source, task)
    ]
    return tables.render(["endpoint", "against", "same answer", *names], rows)
