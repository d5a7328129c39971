"""TensorFlow Serving's protocols from outside: written from its documents, protos and public source, not from ours."""
