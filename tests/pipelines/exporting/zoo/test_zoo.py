"""Every network becomes what docs/conversions.md says of it."""

from __future__ import annotations

import pytest

from tests.pipelines.exporting.zoo import page
from tests.pipelines.exporting.zoo.networks import NETWORKS, Network
from tests.pipelines.exporting.zoo.verdicts import COLUMNS, SLOW, row

EACH = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)


def says(network: Network, columns: tuple[str, ...]) -> dict[str, str]:
    return {column: page.verdicts()[network.name][column] for column in columns}


@pytest.mark.slow
@EACH
def test_frameworks_and_quick_converters(network: Network) -> None:
    columns = tuple(column for column in COLUMNS if column not in SLOW)
    assert row(network, columns) == says(network, columns)


@pytest.mark.thorough
@EACH
def test_slow_converters(network: Network) -> None:
    assert row(network, SLOW) == says(network, SLOW)


def test_the_page_has_these_networks_and_notes() -> None:
    assert page.notes() == {network.name: network.note for network in NETWORKS}
    assert page.PAGE.read_text() == page.text(page.verdicts())
