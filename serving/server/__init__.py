"""Tandem's model server: one data plane, several protocols in front of it, several runtimes behind it."""

VERSION = "0.2.0"

HTTP_PORT, GRPC_PORT = 8000, 8001
"""Default ports of `tandem-server`."""
