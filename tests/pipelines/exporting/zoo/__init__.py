"""Minimal networks, each with one thing that conversions get wrong, and what becomes of them: docs/conversions.md."""
