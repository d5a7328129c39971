"""The life of versions, over a loader that keeps account of what is loaded and closed."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.server.errors import ArtifactError, NotFoundError, UnavailableError
from serving.server.metrics import Metrics, RequestRecord
from serving.server.repository.loading import Loaded
from serving.server.repository.models import Models
from serving.server.repository.policies import (
    ModelConfig,
    Policy,
    latest,
    models_below,
)
from serving.server.repository.versions import Serving, State
from serving.server.scheduling import QueueLimits
from serving.server.tensors.signature import Signature, Tensors

from .artifacts import point


class Note:
    """A servable that only notes whether it was closed; a run lasts while its gate is shut."""

    def __init__(self) -> None:
        self.signatures = {"serving_default": Signature((), ())}
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        assert self.gate.wait(10)
        assert not self.closed
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
        return Loaded(servable)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "fashion")


def models(shelf: Shelf, policy: Policy | None = None, retries: int = 0) -> Models:
    """What is below the shelf's parent; with `policy`, the shelf alone."""
    serving = Serving(shelf.load, Metrics(), QueueLimits(), retries, 0.0 if retries else 60.0)
    if policy is None:
        return Models(lambda: models_below(shelf.folder.parent), serving)
    config = ModelConfig("fashion", shelf.folder, policy)
    return Models(lambda: {"fashion": config}, serving)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0.005)


async def test_the_old_version_is_closed_only_when_its_last_request_is_answered(shelf: Shelf) -> None:
    served = models(shelf)
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


async def test_requests_go_to_the_old_version_while_the_new_one_loads(shelf: Shelf) -> None:
    served = models(shelf)
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


async def test_a_bad_version_is_tried_again_only_when_its_files_change(shelf: Shelf) -> None:
    served = models(shelf)
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


async def test_a_bad_version_is_tried_again_so_often_and_no_more(shelf: Shelf) -> None:
    served = models(shelf, retries=2)
    shelf.put(1, bad=True)
    for _ in range(5):
        await served.refresh()
    assert shelf.loads == [1, 1, 1]
    assert served.model("fashion").statuses[1].state is State.END


async def test_folders_may_have_leading_zeros_and_may_vanish_for_a_moment(shelf: Shelf) -> None:
    served = models(shelf, latest())
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


async def test_a_pointer_rolls_back_and_a_broken_one_changes_nothing(shelf: Shelf) -> None:
    served = models(shelf)
    shelf.put(1)
    shelf.put(2)
    point(shelf.folder, 2)
    await served.refresh()
    assert list(served.model("fashion").loaded) == [2]
    for broken in ("{", "[" * 100_000, '{"version": 1e999, "previous": null, "held": false}'):
        (shelf.folder / "current.json").write_text(broken)
        await served.refresh()
        assert served.model("fashion").version().number == 2
    point(shelf.folder, 1)
    await served.refresh()
    assert list(served.model("fashion").loaded) == [1]


async def test_a_load_goes_on_when_its_caller_leaves(shelf: Shelf) -> None:
    served = models(shelf)
    shelf.put(1)
    shelf.gate.clear()
    reload = asyncio.create_task(served.refresh())
    await settled()
    reload.cancel()
    shelf.gate.set()
    await settled()
    assert (served.ready, shelf.loads) == (True, [1])


async def test_a_model_that_comes_back_knows_which_of_its_versions_still_answer(shelf: Shelf) -> None:
    served = models(shelf)
    shelf.put(1)
    await served.refresh()
    with served.model("fashion").version():
        elsewhere = shelf.folder.rename(shelf.folder.parent / ".elsewhere")
        await served.refresh()
        elsewhere.rename(shelf.folder)
        shelf.put(2)
        await served.refresh()
        assert served.model("fashion").statuses[1].state is State.UNLOADING
    await settled()
    assert served.model("fashion").statuses[1].state is State.END


def test_names_that_json_metrics_or_protobuf_cannot_hold_are_no_models_and_no_versions(
    tmp_path: Path,
) -> None:
    for name in ("größe/1", "bytes\udcff/1", "line\n/1", f"large/{2**63}"):
        (tmp_path / name).mkdir(parents=True)
    assert list(models_below(tmp_path)) == ["größe"]


async def test_a_deleted_version_or_model_is_let_go(shelf: Shelf) -> None:
    served = models(shelf)
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
    await settled()
    assert shelf.open == []
    assert not served.ready
    with pytest.raises(NotFoundError, match="'fashion' is not served; served: none"):
        served.model("fashion")


async def test_a_version_is_closed_only_after_a_run_that_nobody_waits_for(shelf: Shelf) -> None:
    served = models(shelf)
    shelf.put(1)
    await served.refresh()
    gate = shelf.servables[1].gate
    gate.clear()
    with served.model("fashion").version() as version:
        running = version.queues["serving_default"].run({}, (), RequestRecord("", "", ""))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(running, 0.02)
    shutil.rmtree(shelf.folder)
    await served.refresh()
    await settled()
    assert shelf.open == [1]
    gate.set()
    await served.ended["fashion"].unloaded()
    assert shelf.open == []


async def test_a_request_holds_up_the_end_of_its_model_alone(shelf: Shelf) -> None:
    metrics = Metrics()
    served = models(shelf)
    metrics.show(served.loads)
    shelf.put(1)
    await served.refresh()
    with served.model("fashion").version() as old:
        unloading = asyncio.create_task(served.unload("fashion"))
        await settled()
        assert not unloading.done()
        await served.load("fashion")
        with served.model("fashion").version() as new:
            assert new is not old
        other = shelf.folder.with_name("other")
        shutil.copytree(shelf.folder, other)
        await served.refresh()
        assert served.model("other").ready
    await unloading
    assert b'tandem_model_version{model="fashion",version="1"} 1.0' in metrics.page()
