from __future__ import annotations

import pytest

from serving import targets
from serving.settings import Settings
from serving.targets.base import port_setting
from tests.serving.gateway import answering


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b'"hello"', b'{"version": "latest", "versions": [], "model_version_status": 1}', b"<p>"],
)
@pytest.mark.parametrize("name", targets.NAMES)
def test_another_server_on_a_target_s_port_serves_no_version(name: str, body: bytes) -> None:
    with answering(lambda *_: body) as port:
        settings = Settings(**{port_setting(name, "http"): port})  # type: ignore[arg-type]
        assert targets.load(name).served_version(settings) is None
        assert targets.load(name).refusal(settings, 1, []) == ""
