"""Tandem's model server: one data plane, several protocols in front of it, several runtimes behind it."""

VERSION = "0.1.0"
