"""docs/conversions.md, written by `python -m tests.pipelines.exporting.zoo.page` in minutes."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.pipelines.exporting.zoo.networks import NETWORKS, Network
from tests.pipelines.exporting.zoo.verdicts import COLUMNS, SAME, reached, row

PAGE = Path(__file__).parents[4] / "docs" / "conversions.md"
TEXT = """# Conversion traps

Each minimal network has one trap. `make test-all` compares every artifact with its source; after a change of a pin,
`.venv/bin/python -m tests.pipelines.exporting.zoo.page` rewrites this page.

- **refused**: before anything is written, by the layer's name. **gate**: by the artifact's check.
- **differs**: published, and unlike its source on the trap's inputs.

`bridge` compares Keras with PyTorch on equal weights. SavedModel, LiteRT, TF.js and tf2onnx come from Keras, .mar and
.onnx from PyTorch. What is not named is the same.

| network | verdicts | what to do |
|---|---|---|
"""
ELSE = "\nThe same everywhere: "


def verdicts() -> dict[str, dict[str, str]]:
    """The verdicts on the page, by network and column."""
    cells = _read()
    return {own.name: _verdicts(own, cells[own.name][0]) for own in NETWORKS if own.name in cells}


def notes() -> dict[str, str]:
    """Advice, by network."""
    return {name: note for name, (_cell, note) in _read().items()}


def text(found: dict[str, dict[str, str]]) -> str:
    """The page that has these verdicts."""
    lines, plain = [], []
    for network in NETWORKS:
        cell = _cell(found[network.name])
        if cell or network.note:
            lines.append(f"| {network.name} | {cell} | {network.note} |\n")
        else:
            plain.append(network.name)
    return TEXT + "".join(lines) + ELSE + _wrapped("; ".join(plain)) + ".\n"


def _cell(found: dict[str, str]) -> str:
    """Columns by verdict, without those that are the same: `refused: bridge, .mar; gate: TF.js`."""
    columns: dict[str, list[str]] = {}
    for column, verdict in found.items():
        if verdict not in ("", SAME):
            columns.setdefault(verdict, []).append(column)
    return "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in columns.items())


def _verdicts(network: Network, cell: str) -> dict[str, str]:
    parts = [part.split(": ") for part in cell.split("; ") if part]
    found = {column: verdict for verdict, columns in parts for column in columns.split(", ")}
    return {column: found.get(column, SAME) if reached(network, column) else "" for column in COLUMNS}


def _read() -> dict[str, tuple[str, str]]:
    """The cells of verdicts and notes on the page, by network."""
    rows, _, plain = PAGE.read_text().removeprefix(TEXT).partition(ELSE)
    cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in rows.splitlines())
    names = " ".join(plain.split()).removesuffix(".").split("; ")
    return {name: (cell, note) for name, cell, note in cells} | dict.fromkeys(names, ("", ""))


def _wrapped(names: str) -> str:
    return textwrap.fill(ELSE.strip() + " " + names, 120).removeprefix(ELSE.strip() + " ")


def main() -> None:
    found = {}
    for network in NETWORKS:
        found[network.name] = row(network)
        print(f"{network.name}: {_cell(found[network.name]) or SAME}", flush=True)
    PAGE.write_text(text(found))


if __name__ == "__main__":
    main()
