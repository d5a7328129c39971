"""Run by the environment of onnx2tf: `python onnx2tf_converter.py FILE FOLDER INPUT...`."""

from __future__ import annotations

import sys


def convert(path: str, folder: str, *inputs: str) -> None:
    """Write a SavedModel. The inputs keep their layout; the converter would turn those of pictures."""
    import onnx2tf  # type: ignore[import-not-found]

    onnx2tf.convert(
        input_onnx_file_path=path,
        output_folder_path=folder,
        keep_shape_absolutely_input_names=list(inputs),
        output_signaturedefs=True,
        non_verbose=True,
    )


if __name__ == "__main__":
    convert(*sys.argv[1:])
