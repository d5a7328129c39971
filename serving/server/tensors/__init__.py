"""Tensors and signatures, the same for all runtimes and protocols."""
