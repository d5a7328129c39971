"""The life of versions, over a loader that keeps account of what is loaded and closed."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from serving.server.errors import ArtifactError, NotFoundError, UnavailableError
from serving.server.limits import Limits
from serving.server.loading import Loaded
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.policies import ModelConfig, Policy, every, latest, models_below, pointed, specific
from serving.server.run_threads import RunThreads
from serving.server.signature import Signature, Tensors
from serving.server.versions import State

from .artifacts import point


class Note:
    """A servable that only notes whether it was closed."""

    concurrent = False

    def __init__(self) -> None:
        self.signatures = {"serving_default": Signature((), ())}
        self.closed = False

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {}

    def close(self) -> None:
        self.closed = True


class Shelf:
    """A model's folder and a loader of it: a version that holds a file `bad` is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loads: list[int] = []
        self.servables: dict[int, Note] = {}
        self.gate = threading.Event()
        self.gate.set()

    @property
    def open(self) -> list[int]:
        """The versions that are loaded and not closed."""
        return [number for number, servable in self.servables.items() if not servable.closed]

    def put(self, number: int, bad: bool = False) -> None:
        directory = self.folder / str(number)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "bad").unlink(missing_ok=True)
        (directory / ("bad" if bad else "good")).touch()

    def load(self, directory: Path) -> Loaded:
        assert self.gate.wait(10)
        self.loads.append(int(directory.name))
        if not directory.is_dir() or (directory / "bad").exists():
            raise ArtifactError("it is bad")
        servable = self.servables[int(directory.name)] = Note()
        return Loaded(servable, 0.0)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "fashion")


@pytest.fixture
async def threads() -> AsyncIterator[RunThreads]:
    with RunThreads(1) as pool:
        yield pool


def models(shelf: Shelf, threads: RunThreads) -> Models:
    return Models(lambda: models_below(shelf.folder.parent), shelf.load, threads, Metrics(), Limits())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0.005)


async def test_the_old_version_is_closed_only_when_its_last_request_is_answered(
    shelf: Shelf, threads: RunThreads
) -> None:
    served = models(shelf, threads)
    shelf.put(1)
    await served.refresh()
    with served.model("fashion").version() as old:
        shelf.put(2)
        await served.refresh()
        await settled()
        assert (old.number, served.model("fashion").version().number) == (1, 2)
        assert shelf.open == [1, 2]
        assert served.model("fashion").statuses[1].state is State.UNLOADING
    await settled()
    assert shelf.open == [2]
    assert served.model("fashion").statuses[1].state is State.END
    with pytest.raises(NotFoundError, match="version 1 of model fashion is not served; served: 2"):
        served.model("fashion").version(1)


async def test_requests_go_to_the_old_version_while_the_new_one_loads(
    shelf: Shelf, threads: RunThreads
) -> None:
    served = models(shelf, threads)
    shelf.put(1)
    await served.refresh()
    shelf.put(2)
    shelf.gate.clear()
    refreshing = asyncio.create_task(served.refresh())
    await settled()
    assert served.model("fashion").version().number == 1
    with pytest.raises(UnavailableError, match="version 2 of model fashion is loading; served: 1"):
        served.model("fashion").version(2)
    shelf.gate.set()
    await refreshing
    assert served.model("fashion").version().number == 2


async def test_a_bad_version_is_tried_again_only_when_its_files_change(
    shelf: Shelf, threads: RunThreads
) -> None:
    served = models(shelf, threads)
    shelf.put(1)
    await served.refresh()
    shelf.put(2, bad=True)
    for _ in range(3):
        await served.refresh()
    assert shelf.loads == [1, 2]
    assert served.ready
    assert served.model("fashion").version().number == 1
    with pytest.raises(NotFoundError, match=r"version 2 of model fashion is not served \(it is bad\)"):
        served.model("fashion").version(2)
    shelf.put(2)
    await served.refresh()
    assert served.model("fashion").version().number == 2


async def test_a_bad_version_is_tried_again_so_often_and_no_more(shelf: Shelf, threads: RunThreads) -> None:
    limits = Limits(retries=2, retry_seconds=0.0)
    served = Models(lambda: models_below(shelf.folder.parent), shelf.load, threads, Metrics(), limits)
    shelf.put(1, bad=True)
    for _ in range(5):
        await served.refresh()
    assert shelf.loads == [1, 1, 1]
    assert served.model("fashion").statuses[1].state is State.END


async def test_folders_may_have_leading_zeros_and_may_vanish_for_a_moment(
    shelf: Shelf, threads: RunThreads
) -> None:
    config = ModelConfig("fashion", shelf.folder, latest())
    served = Models(lambda: {"fashion": config}, shelf.load, threads, Metrics(), Limits())
    shelf.put(7)
    (shelf.folder / "7").rename(shelf.folder / "0007")
    await served.refresh()
    assert served.model("fashion").version().number == 7
    shelf.folder.rename(shelf.folder.with_name("elsewhere"))
    await served.refresh()
    assert served.model("fashion").version().number == 7
    shelf.folder.mkdir()
    await served.refresh()
    await settled()
    assert (shelf.open, served.ready) == ([], False)


async def test_a_pointer_rolls_back_and_a_broken_one_changes_nothing(
    shelf: Shelf, threads: RunThreads
) -> None:
    served = models(shelf, threads)
    shelf.put(1)
    shelf.put(2)
    point(shelf.folder, 2)
    await served.refresh()
    assert served.model("fashion").loaded == [2]
    (shelf.folder / "current.json").write_text("{")
    await served.refresh()
    assert served.model("fashion").version().number == 2
    point(shelf.folder, 1)
    await served.refresh()
    assert served.model("fashion").loaded == [1]


async def test_a_deleted_version_or_model_is_let_go(shelf: Shelf, threads: RunThreads) -> None:
    served = models(shelf, threads)
    with pytest.raises(UnavailableError, match="the server is starting"):
        served.model("fashion")
    shelf.put(1)
    shelf.put(2)
    await served.refresh()
    shutil.rmtree(shelf.folder / "2")
    await served.refresh()
    assert served.model("fashion").version().number == 1
    shutil.rmtree(shelf.folder)
    await served.refresh()
    assert shelf.open == []
    assert not served.ready
    with pytest.raises(NotFoundError, match="'fashion' is not served; served: none"):
        served.model("fashion")


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [(latest(), [3]), (latest(2), [2, 3]), (every, [1, 2, 3]), (specific(3, 1), [1, 3]), (pointed, [2])],
)
async def test_policies(shelf: Shelf, threads: RunThreads, policy: Policy, wanted: list[int]) -> None:
    for number in (1, 2, 3):
        shelf.put(number)
    point(shelf.folder, 2)
    config = ModelConfig("fashion", shelf.folder, policy)
    served = Models(lambda: {"fashion": config}, shelf.load, threads, Metrics(), Limits())
    await served.refresh()
    assert served.model("fashion").loaded == wanted
    assert served.model("fashion").version().number == max(wanted)
    await served.close()
    assert shelf.open == []
