"""The files of the first components, in folders named by their contents: TFX's cache knows files by their paths."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format, text_format
from tensorflow_metadata.proto.v0 import schema_pb2

import models.base
from models.base import Model
from pipelines.tfx import examples
from pipelines.tfx.request import Request


@dataclass(frozen=True)
class Inputs:
    """Paths; "" where nothing is published."""

    records: str
    schema: str
    published: str
    """The published version's statistics, as `statistics.to_json` writes them."""
    version: int


def prepare(request: Request) -> Inputs:
    """Write the files that do not exist yet."""
    text = text_format.MessageToString(schema(models.base.load(request.model)))
    curated = _kept(request.folder / "schema" / _name(text) / "schema.pbtxt", text)
    if not request.published:
        return Inputs(str(request.records), str(curated), "", 0)
    path = request.folder / "published" / _name(request.published) / "statistics.json"
    published = _kept(path, request.published)
    return Inputs(str(request.records), str(curated), str(published), request.version)


def schema(model: Model) -> schema_pb2.Schema:
    """Return the curated schema of both orchestrators, with the feature that only the records have."""
    curated = json_format.Parse((model.folder / "schema.json").read_text(), schema_pb2.Schema())
    curated.feature.add(
        name=examples.NUMBER,
        type=schema_pb2.INT,
        presence=schema_pb2.FeaturePresence(min_fraction=1, min_count=1),
        shape=schema_pb2.FixedShape(dim=[schema_pb2.FixedShape.Dim(size=1)]),
    )
    return curated


def _kept(path: Path, text: str) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
