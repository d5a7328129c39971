"""Runtimes: each loads an artifact into a `Servable`, independent of protocols."""
