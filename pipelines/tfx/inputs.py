"""What the first components read, in folders named by what is in them: TFX's cache knows such things by their paths."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import models.base
from pipelines.tfx import examples, schema, sources
from pipelines.tfx.request import Request


@dataclass(frozen=True)
class Inputs:
    """Paths; "" where nothing is published."""

    records: str
    schema: str
    published: str
    """The published version's statistics as our own validation writes them."""
    baseline: str
    """The same as StatisticsGen writes them."""
    version: int


def prepare(request: Request) -> Inputs:
    """Write what is not there yet."""
    records = request.folder / "records" / _name(request.data, sources.digest(["pipelines.tfx.examples"]))
    examples.write(request.pictures, records)
    text = schema.text(models.base.load(request.model))
    file = request.folder / "schema" / _name(text) / "schema.pbtxt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Inputs(str(records), str(file), "", "", 0)


def _name(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
