import json
import re
import stat
from pathlib import Path

import pytest

from serving.targets.base import TargetError
from serving.web import install

FILES = re.findall(r'"(@?\w+[^"]+/[^"]+\.(?:m?js|wasm))",', install.COLLECT.read_text())


@pytest.fixture
def npm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for npm: lays out files that hold their names. The list holds the calls."""
    calls: list[str] = []

    def fake(*arguments: str, folder: Path) -> None:
        calls.append(" ".join(arguments))
        for name in FILES:
            path = folder / "node_modules" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'import "@litertjs/wasm-utils"; {name}')

    monkeypatch.setattr(install, "_npm", fake)
    return calls


def test_the_packages_are_fetched_once_and_may_be_read_by_another_users_gateway(
    npm: list[str], tmp_path: Path
) -> None:
    folder = install.install(tmp_path / "web")
    assert install.install(tmp_path / "web") == folder
    assert npm == ["ci --ignore-scripts"]
    found = {path.name for path in folder.rglob("*") if path.is_file()}
    assert found == {Path(name).name for name in FILES}
    assert '"./bundle.js"' in (folder / "litertjs" / "index.js").read_text(), "browsers know no packages"
    assert list((tmp_path / "web").iterdir()) == [folder]
    assert stat.S_IMODE(folder.stat().st_mode) & 0o055 == 0o055


def test_a_failed_install_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_npm", lambda *_, **__: None)
    with pytest.raises(TargetError, match=r"package-lock.json whole\?(.|\n)*tf-core"):
        install.install(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_npms_own_words_are_in_the_error(tmp_path: Path) -> None:
    """The real npm, in a folder that has nothing to install."""
    with pytest.raises(TargetError, match=r"npm could not fetch the packages of the page(.|\n)*npm error"):
        install._npm("ci", folder=tmp_path)


def test_the_lock_file_names_no_addresses_and_the_versions_are_exact() -> None:
    assert '"resolved"' not in (install.HERE / "package-lock.json").read_text()
    package = json.loads((install.HERE / "package.json").read_text())
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["dependencies"].values())
