"""Coroutines that begin outside of a task: what they may count on."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context

import pytest

from serving.server.eager import have_task, start

variable: ContextVar[str] = ContextVar("variable", default="outside")


def begin(coroutine: object) -> asyncio.Future[asyncio.Task[None] | None]:
    """Start a coroutine from a callback of the loop."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[asyncio.Task[None] | None] = loop.create_future()
    loop.call_soon(lambda: begun.set_result(start(coroutine, copy_context())))  # type: ignore[arg-type]
    return begun


async def test_what_waits_for_nothing_has_no_task() -> None:
    seen: list[object] = []

    async def short() -> None:
        seen.append(asyncio.current_task())

    assert await begin(short()) is None
    assert seen == [None]


async def test_what_waits_becomes_a_task_and_goes_on_where_it_was() -> None:
    steps: list[object] = []
    released = asyncio.get_running_loop().create_future()

    async def long() -> None:
        variable.set("inside")
        steps.append(await released)
        steps.append(asyncio.current_task())
        await asyncio.sleep(0)
        steps.append(variable.get())

    task = await begin(long())
    assert task is not None
    released.set_result("released")
    await task
    assert steps == ["released", task, "inside"]
    assert variable.get() == "outside"


async def test_what_is_waited_for_may_come_before_the_task_has_begun() -> None:
    released = asyncio.get_running_loop().create_future()

    async def long() -> None:
        assert await released == 1

    begun = begin(long())
    asyncio.get_running_loop().call_soon(released.set_result, 1)
    task = await begun
    assert task is not None
    await task


async def test_a_timeout_needs_a_task_and_has_one() -> None:
    caught: list[str] = []

    async def limited() -> None:
        await have_task()
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            caught.append("late")

    task = await begin(limited())
    assert task is not None
    await task
    assert caught == ["late"]


async def test_a_cancellation_before_the_first_step_of_the_task_reaches_what_waits() -> None:
    waited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended: list[str] = []

    async def long() -> None:
        try:
            await waited
        finally:
            ended.append("ended")

    tasks: list[asyncio.Task[None]] = []

    def begin_and_cancel() -> None:
        task = start(long(), copy_context())
        assert task is not None
        task.cancel("gone")
        tasks.append(task)

    asyncio.get_running_loop().call_soon(begin_and_cancel)
    while not tasks:
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert ended == ["ended"]
    assert waited.cancelled()


async def test_an_error_after_the_wait_is_the_tasks() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    task = await begin(failing())
    assert task is not None
    with pytest.raises(ValueError, match="no"):
        await task
