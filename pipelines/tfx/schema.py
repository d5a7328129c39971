"""The model's curated schema, which both orchestrators validate with, as TFDV reads it."""

from __future__ import annotations

from google.protobuf import json_format, text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from models.base import Model
from pipelines.tfx.examples import NUMBER


def schema(model: Model) -> schema_pb2.Schema:
    """`schema.json` of the model's folder, and the feature that only the records have."""
    curated = json_format.Parse((model.folder / "schema.json").read_text(), schema_pb2.Schema())
    curated.feature.add(
        name=NUMBER,
        type=schema_pb2.INT,
        presence=schema_pb2.FeaturePresence(min_fraction=1, min_count=1),
        shape=schema_pb2.FixedShape(dim=[schema_pb2.FixedShape.Dim(size=1)]),
    )
    return curated


def text(model: Model) -> str:
    """The schema in the text form that ImportSchemaGen reads."""
    written: str = text_format.MessageToString(schema(model))
    return written
