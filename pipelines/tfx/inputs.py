"""The files of the first components, in folders named by their contents: TFX's cache knows files by their paths."""

from __future__ import annotations

import hashlib

from google.protobuf import json_format, text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from models.base import Model
from pipelines.tfx import examples
from pipelines.tfx.request import Request


def schema_file(request: Request, model: Model) -> str:
    """Write the curated schema of both orchestrators, with the feature that only the records have; returns its path."""
    curated = json_format.Parse((model.folder / "schema.json").read_text(), schema_pb2.Schema())
    curated.feature.add(
        name=examples.NUMBER,
        type=schema_pb2.INT,
        presence=schema_pb2.FeaturePresence(min_fraction=1, min_count=1),
        shape=schema_pb2.FixedShape(dim=[schema_pb2.FixedShape.Dim(size=1)]),
    )
    return _kept(request, "schema.pbtxt", text_format.MessageToString(curated))


def published_file(request: Request) -> str:
    """Write the published version's statistics; returns their path, "" if nothing is published."""
    return _kept(request, "published.json", request.published) if request.published else ""


def _kept(request: Request, name: str, text: str) -> str:
    path = request.folder / "inputs" / hashlib.sha256(text.encode()).hexdigest()[:16] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(path)
