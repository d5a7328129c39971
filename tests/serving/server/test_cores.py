"""The cores that a cgroup grants, from files as the kernel lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.server import cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("limit", "granted"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("max 100000", 8),
        ("9900000 100000", 8),
    ],
)
def test_a_quota(tmp_path: Path, limit: str, granted: int) -> None:
    write(tmp_path / "proc", "0::/a/b\n")
    write(tmp_path / "fs" / "a" / "cpu.max", limit)
    write(tmp_path / "fs" / "a" / "b" / "cpu.max", "max 100000")
    assert cores.available(tmp_path / "proc", tmp_path / "fs") == granted


def test_in_a_container_the_groups_path_is_not_below_the_mount(tmp_path: Path) -> None:
    write(tmp_path / "proc", "0::/docker/1234\n")
    write(tmp_path / "fs" / "cpu.max", "300000 100000")
    assert cores.available(tmp_path / "proc", tmp_path / "fs") == 3


def test_without_cgroups_it_is_the_affinity(tmp_path: Path) -> None:
    assert cores.available(tmp_path / "none", tmp_path) == 8
