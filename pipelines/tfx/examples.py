"""Rows as tf.Example in GZIP TFRecords, which is what ImportExampleGen reads, and back.

A record has a feature for each input, by its name, and two more. Floats are float lists, all integers int64 lists.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.base import ModelSpec
from models.data import Rows

LABEL, NUMBER = "label", "number"
"""The features of the class and of the row's place in its split, which restores the order after Beam's shuffle."""
BATCH = 2_000


def write(spec: ModelSpec, splits: Mapping[str, Rows], folder: Path) -> None:
    """Write each split to `folder/<split>.gz`, once: ExampleGen tells files by their times, too."""
    if folder.exists():
        return
    beside = folder.with_name(f".incoming-{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    for name, part in splits.items():
        with tf.io.TFRecordWriter(str(beside / f"{name}.gz"), options) as writer:
            for start in range(0, len(part), BATCH):
                own = part.take(slice(start, start + BATCH))
                inputs = own.served(spec.signature)
                for row in range(len(own)):
                    values = {key: array[row] for key, array in inputs.items()}
                    writer.write(example(values, own.targets[row], start + row))
    beside.replace(folder)


def example(inputs: Mapping[str, NDArray[Any]], target: Any, number: int) -> bytes:  # noqa: ANN401
    """Return one serialized tf.Example."""
    values = {**inputs, LABEL: np.asarray(target), NUMBER: np.asarray(number)}
    features = {name: _feature(array.ravel()) for name, array in values.items()}
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return serialized


def read(files: Sequence[str], spec: ModelSpec) -> Rows:
    """Read a split's rows in their own order, as the endpoints take them; pictures are uint8, as they are kept."""
    features = {
        **{t.name: tf.io.FixedLenFeature(t.row, _feature_type(t.dtype)) for t in spec.inputs},
        LABEL: tf.io.FixedLenFeature((), tf.int64),
        NUMBER: tf.io.FixedLenFeature((), tf.int64),
    }
    records = tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=len(files))
    batches = records.batch(BATCH).map(lambda batch: tf.io.parse_example(batch, features))
    parts = list(batches.as_numpy_iterator())
    whole = {name: np.concatenate([part[name] for part in parts]) for name in features}
    inputs = {}
    for tensor in spec.inputs:
        array = whole[tensor.name]
        if tensor.content == "picture":
            inputs[tensor.name] = np.rint(array * 255).astype(np.uint8)
        else:
            inputs[tensor.name] = array.astype(tensor.dtype)
    return Rows(inputs, whole[LABEL]).take(np.argsort(whole[NUMBER]))


def read_folder(folder: Path, spec: ModelSpec) -> Rows:
    """Read a split of an Examples artifact."""
    return read(sorted(str(path) for path in folder.glob("*.gz")), spec)


def _feature(values: NDArray[Any]) -> tf.train.Feature:
    if values.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _feature_type(dtype: str) -> tf.DType:
    return tf.float32 if dtype == "float32" else tf.int64
