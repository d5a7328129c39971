"""The comparison: every endpoint called with the same inputs, and measured."""
