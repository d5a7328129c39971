import platform
import sys
from pathlib import Path

import pytest

from serving.settings import Settings
from serving.torchserve import config


def test_grpc_management_is_on_loopback_where_no_address_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        assert config.unreachable_address() == "127.255.255.255"
    monkeypatch.setattr(config, "BROADCAST", "192.0.2.1")
    assert config.unreachable_address() == "127.0.0.1"


def test_management_is_on_loopback_where_torchserve_has_no_unix_sockets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(artifacts=tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert config.choose_management_address(settings).startswith("http://127.0.0.1:")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert config.choose_management_address(settings).startswith("unix:")
