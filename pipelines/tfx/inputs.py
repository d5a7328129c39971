"""What the first components read, in folders named by what is in them: TFX's cache knows such things by their paths."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import models.base
from pipelines.tfx import examples, schema, sources
from pipelines.tfx.request import Request


@dataclass(frozen=True)
class Inputs:
    """The records' folder, the schema's file, and the folder of the published version's statistics, or ""."""

    records: str
    schema: str
    baseline: str = ""


def prepare(request: Request) -> Inputs:
    """Write what is not there yet."""
    records = request.folder / "records" / _name(request.data, sources.digest(["pipelines.tfx.examples"]))
    examples.write(request.pictures, records)
    text = schema.text(models.base.load(request.model))
    file = request.folder / "schema" / _name(text) / "schema.pbtxt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Inputs(str(records), str(file))


def _name(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
