"""Tensors, and the signatures that describe them, in words that every runtime and protocol shares."""
