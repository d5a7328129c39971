import shutil
from pathlib import Path

import pytest

from serving.settings import Settings
from serving.targets import browser as browser_module
from serving.targets.base import TargetError
from serving.targets.browser import find_chromium
from serving.targets.tfjs import TARGET, page_config
from tests.serving.gateway import settings_in


def test_it_is_launched_on_its_port_with_paths_and_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.targets.tfjs.install", lambda *_: tmp_path / "site")
    settings = Settings(artifacts=tmp_path, tfjs_port=1234, litert_rest_port=4321, stop_seconds=9)
    launch = TARGET.launch(settings)
    assert TARGET.ports(settings) == {"HTTP": 1234}
    assert Path(launch.command[0]).name.startswith("caddy")
    assert launch.environment["GATEWAY_LITERT"] == "127.0.0.1:4321"
    assert launch.environment["GATEWAY_MODELS"] == str(tmp_path / "repository")
    assert launch.environment["GATEWAY_REPORTS"] == str(tmp_path / "reports")
    assert launch.environment["GATEWAY_GRACE"] == "6s"


def test_nothing_is_served_while_the_gateway_is_down(tmp_path: Path) -> None:
    assert TARGET.served_version(settings_in(tmp_path)) is None


def test_the_page_knows_the_other_targets() -> None:
    config = page_config(Settings())
    assert config["model"] == "fashion"
    assert sorted(config["targets"]) == ["litert", "onnxruntime", "tf-serving", "torchserve"]


def test_no_chromium_is_an_error_that_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere:
        class chromium:  # noqa: N801
            executable_path = "/nowhere/chrome"

    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(browser_module, "MAC_APPLICATIONS", ())
    with pytest.raises(
        TargetError, match=r"no Chromium was found; install one with: .*playwright install chromium"
    ):
        find_chromium(Nowhere())  # type: ignore[arg-type]
