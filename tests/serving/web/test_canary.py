"""Two versions behind the gateway, by weight."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from serving.settings import Settings
from serving.targets import tfjs
from tests.serving.gateway import answering, free_ports, running, settings_in


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(tfjs, "install", lambda *_: tmp_path)
    return settings_in(tmp_path)


@pytest.fixture
def ports() -> tuple[int, int]:
    first, second = free_ports(2)
    return first, second


@pytest.fixture
def gateway(settings: Settings, ports: tuple[int, int]) -> Iterator[str]:
    environment = {
        "GATEWAY_LITERT": " ".join(f"127.0.0.1:{port}" for port in ports),
        "GATEWAY_WEIGHTS": "9 1",
        "GATEWAY_RETRY": "2s",
    }
    with running(settings, environment):
        yield f"http://{settings.host}:{settings.tfjs_port}/api/litert/v2/models/fashion/infer"


def ask(gateway: str, times: int) -> Counter[str]:
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        answers = [pool.request("POST", gateway, body=b"picture") for _ in range(times)]
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.data.decode() for answer in answers)


def test_requests_are_divided_by_weight(gateway: str, ports: tuple[int, int]) -> None:
    with answering(lambda *_: b"current", ports[0]), answering(lambda *_: b"candidate", ports[1]):
        assert ask(gateway, 100) == {"current": 90, "candidate": 10}


def test_the_share_of_one_that_is_not_there_goes_to_the_other(gateway: str, ports: tuple[int, int]) -> None:
    with answering(lambda *_: b"current", ports[0]):
        assert ask(gateway, 30) == {"current": 30}
