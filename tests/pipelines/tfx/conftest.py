"""The path without frameworks, up to which the default runner's tests go, too."""

from tests.pipelines.test_steps import settings, sources

__all__ = ["settings", "sources"]
