"""Every network becomes what docs/conversions.md says of it."""

from __future__ import annotations

import pytest

from tests.pipelines.exporting.zoo import page
from tests.pipelines.exporting.zoo.networks import NETWORKS, Network
from tests.pipelines.exporting.zoo.verdicts import COLUMNS, SLOW, row

QUICK = tuple(column for column in COLUMNS if column not in SLOW)
EACH = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
FEW = (
    "strided convolution, padded before",
    "layer norm of values near 1e4",
    "a loop over the rows of a batch",
    "dropout that is left on",
    "a weight of 7e4 in float16",
)
"""Networks of which each verdict comes out."""


def says(network: Network, columns: tuple[str, ...]) -> dict[str, str]:
    return {column: page.verdicts()[network.name][column] for column in columns}


@pytest.mark.slow
@EACH
def test_frameworks(network: Network) -> None:
    assert row(network, ("both",)) == says(network, ("both",))


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_quick_converters_of_a_few(name: str) -> None:
    (network,) = (network for network in NETWORKS if network.name == name)
    assert row(network, QUICK) == says(network, QUICK)


@pytest.mark.thorough
@EACH
def test_every_converter(network: Network) -> None:
    assert row(network) == says(network, COLUMNS)


def test_the_page_has_these_networks_and_notes() -> None:
    found = {name: cells["what to do"] for name, cells in page.verdicts().items()}
    assert found == {network.name: network.note for network in NETWORKS}
