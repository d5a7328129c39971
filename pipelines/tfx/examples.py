"""Pictures as tf.Example in GZIP TFRecords, which is what ImportExampleGen reads, and back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipelines.data import Pictures, to_floats
from pipelines.tfx import splits

IMAGE, LABEL, NUMBER = "image", "label", "number"
"""Features: float32 values 0..1 in the order of [H, W, 1], the class, and the picture's place in its split, which
brings the order back after Beam has shuffled."""
BATCH = 2_000


def write(pictures: Path, folder: Path) -> None:
    """Write what `splits.write` wrote to `folder/<split>.gz`, once: ExampleGen tells files by their times, too."""
    if folder.exists():
        return
    beside = folder.with_name(f".incoming-{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    for name, part in splits.read(pictures).items():
        with tf.io.TFRecordWriter(str(beside / f"{name}.gz"), options) as writer:
            for number in range(len(part)):
                writer.write(example(part.images[number], int(part.labels[number]), number))
    beside.replace(folder)


def example(image: np.ndarray, label: int, number: int) -> bytes:
    """One serialized tf.Example."""
    values = to_floats(image) if image.dtype == np.uint8 else image
    features = {
        IMAGE: tf.train.Feature(float_list=tf.train.FloatList(value=values.ravel())),
        LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        NUMBER: tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
    }
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return serialized


def read(files: Sequence[str], shape: tuple[int, int, int]) -> Pictures:
    """Read a split's pictures in their own order: images uint8 [N, H, W], labels uint8 [N]."""
    features = {
        IMAGE: tf.io.FixedLenFeature(shape, tf.float32),
        LABEL: tf.io.FixedLenFeature((), tf.int64),
        NUMBER: tf.io.FixedLenFeature((), tf.int64),
    }
    records = tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=len(files))
    batches = records.batch(BATCH).map(lambda batch: tf.io.parse_example(batch, features))
    parts: list[Mapping[str, np.ndarray]] = list(batches.as_numpy_iterator())
    order = np.argsort(np.concatenate([part[NUMBER] for part in parts]))
    images = np.concatenate([np.rint(part[IMAGE][..., 0] * 255).astype(np.uint8) for part in parts])
    labels = np.concatenate([part[LABEL] for part in parts]).astype(np.uint8)
    return Pictures(images[order], labels[order])


def read_folder(folder: Path, shape: tuple[int, int, int]) -> Pictures:
    """Read a split of an Examples artifact."""
    return read(sorted(str(path) for path in folder.glob("*.gz")), shape)
