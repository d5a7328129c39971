import json
import stat
from pathlib import Path

import pytest

from serving.targets.base import TargetError
from serving.web import install

PAGE = {"index.html", "page.css", "page.js", "model.js", "picture.js", "endpoints.js", "fields.js"}


@pytest.fixture
def npm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for npm: lays out empty files. The list holds the calls."""
    calls: list[str] = []

    def fake(*arguments: str, folder: Path) -> None:
        calls.append(" ".join(arguments))
        for name in install.FILES:
            path = folder / "node_modules" / "@tensorflow" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    monkeypatch.setattr(install, "_npm", fake)
    return calls


def test_it_is_installed_once(npm: list[str], tmp_path: Path) -> None:
    first = install.install(tmp_path)
    assert install.install(tmp_path) == first
    assert npm == ["ci --ignore-scripts"]
    assert {path.name for path in first.iterdir()} == {Path(name).name for name in install.FILES}
    assert [path for path in tmp_path.iterdir() if path != first] == []


def test_a_site_is_the_page_and_its_scripts(npm: list[str], tmp_path: Path) -> None:
    site = install.assemble(tmp_path)
    assert {path.name for path in site.iterdir()} == {*PAGE, "tensorflowjs"}
    assert stat.S_IMODE(site.stat().st_mode) & 0o055 == 0o055, (
        "another user's gateway must be able to read it"
    )


def test_a_site_is_made_once(npm: list[str], tmp_path: Path) -> None:
    first = install.assemble(tmp_path)
    made = first.stat().st_mtime_ns
    assert install.assemble(tmp_path) == first
    assert first.stat().st_mtime_ns == made


def test_a_failed_install_leaves_nothing_behind(
    npm: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "FILES", (*install.FILES, "tfjs-core/dist/missing.js"))
    monkeypatch.setattr(install, "_npm", lambda *_, **__: None)
    with pytest.raises(TargetError, match="npm installed no tfjs-core/dist/tf-core"):
        install.install(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_npms_own_words_are_in_the_error(tmp_path: Path) -> None:
    """The real npm, in a folder that has nothing to install."""
    with pytest.raises(TargetError, match=r"npm could not fetch TensorFlow\.js(.|\n)*npm error"):
        install._npm("ci", folder=tmp_path)


def test_the_lock_file_names_no_addresses_and_the_versions_are_exact() -> None:
    assert '"resolved"' not in (install.HERE / "package-lock.json").read_text()
    package = json.loads((install.HERE / "package.json").read_text())
    assert set(package["dependencies"].values()) == {"4.22.0"}
