"""docs/conversions.md, written by `python -m tests.pipelines.exporting.zoo.page` in minutes."""

from __future__ import annotations

from pathlib import Path

from tests.pipelines.exporting.zoo.networks import NETWORKS
from tests.pipelines.exporting.zoo.verdicts import COLUMNS, row

PAGE = Path(__file__).parents[4] / "docs" / "conversions.md"
TEXT = """# What becomes of a network

Minimal networks, each with one thing that conversions get wrong, exported by Tandem's exporters and held against their
source. `make test-all` fails where this page is not what comes out; after a change of a pin,
`.venv/bin/python -m tests.pipelines.exporting.zoo.page` writes it anew, and the difference is what the pin brought.

- **same**: the two networks, or the artifact and its source, answer alike on inputs that show the trap.
- **refused**: before anything is written, with the layer and what to do. **gate**: by the check of the artifact.
- **differs**: published, and other than its source on such inputs: the last column says what to do.

Empty where there is no network of that framework. `both`: Keras's against PyTorch's with equal weights; SavedModel,
LiteRT, TF.js and tf2onnx are made from Keras, .mar and .onnx from PyTorch.

"""


def verdicts() -> dict[str, dict[str, str]]:
    """What the page says, by network and column."""
    lines = [line[2:-2].split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    columns, *rows = ([cell.strip() for cell in line] for line in lines)
    return {name: dict(zip(columns[1:], cells, strict=True)) for name, *cells in rows}


def main() -> None:
    lines = [f"| network | {' | '.join(COLUMNS)} | what to do |", "|---" * (len(COLUMNS) + 2) + "|"]
    for network in NETWORKS:
        found = row(network)
        lines.append(f"| {network.name} | {' | '.join(found.values())} | {network.note} |")
        print(lines[-1], flush=True)
    PAGE.write_text(TEXT + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
