"""Every endpoint, called with test pictures: what `tandem compare` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import models.base
from pipelines import data, table
from serving import platforms, targets
from serving.compare.load import Measurement, measure
from serving.compare.parity import agreements
from serving.repository import model_dir, served_version
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.targets.runtime import runs


def show(settings: Settings, target: str | None, pictures: int, write: Callable[[str], None]) -> int:
    """Print latency and parity by endpoint and protocol; returns 1 where an endpoint did not answer."""
    spec = models.base.load(settings.model).spec
    if target is not None and target not in targets.NAMES:
        raise TargetError(f"there is no target {target!r}; there are: {', '.join(targets.NAMES)}")
    dataset = data.load(spec.data, settings.artifacts / "data" / spec.data.name, settings.seed)
    images = data.to_floats(dataset.test.images[:pictures])
    measurements: list[Measurement] = []
    failures: list[str] = []
    for name in [target] if target else targets.NAMES:
        try:
            clients = targets.load(name).clients(settings)
            for protocol, client in clients.items():
                try:
                    measurements.append(measure(name, protocol, client, images))
                finally:
                    client.close()
        except TargetError as error:
            failures.append(f"{name}: {error}")
    if measurements:
        write(latency_table(measurements, running(settings)))
        write("")
        write(parity_table(measurements))
    for failure in failures:
        write(failure)
    return 1 if failures else 0


def latency_table(measurements: list[Measurement], running: Mapping[str, str]) -> str:
    """p50, p90 and p99 of one picture a call over one connection, in milliseconds; `running` by target."""
    rows = [
        [
            one.target,
            one.protocol,
            *(f"{one.percentile(percent):.2f}" for percent in (50, 90, 99)),
            running[one.target],
        ]
        for one in measurements
    ]
    return table.render(["target", "protocol", "p50 ms", "p90 ms", "p99 ms", "runs"], rows)


def running(settings: Settings) -> dict[str, str]:
    """What runs in each target, as it is served now."""
    platform, _ = platforms.choose(settings)
    states = platform.states(settings)
    found = {}
    for name in targets.NAMES:
        version = served_version(model_dir(settings.repository, name, settings.model))
        found[name] = runs(settings, name, version, states[name].image if name in states else "")
    return found


def parity_table(measurements: list[Measurement]) -> str:
    """Each endpoint against the first one of the same source framework."""
    source = {name: targets.load(name).source for name in targets.NAMES}
    rows = [
        [one.one, one.other, f"{one.same_class:.1%}", f"{one.logits:.1e}", f"{one.probabilities:.1e}"]
        for one in agreements(measurements, source)
    ]
    return table.render(["endpoint", "against", "same class", "logits", "probabilities"], rows)
