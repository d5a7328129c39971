"""The TensorFlow path as a DAG on TensorFlow Extended, in a process and an environment of its own.

`environment` and `run` are this side; `__main__` and the modules that it imports are TFX's side, and exchange
`request` and the records of `examples` with it as files.
"""

SPLITS = ("train", "validation", "test")

EXTRA = "assets.extra"
"""The folder, in a pushed SavedModel, of the weights and the history, as `Trained` writes them."""
