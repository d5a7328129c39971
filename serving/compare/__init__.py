"""Every endpoint called with the same pictures, and measured."""
