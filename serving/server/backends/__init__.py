"""Runtimes: each loads an artifact into a `Servable` and knows no protocol."""
