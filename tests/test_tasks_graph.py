"""Who awaits whom: what waits enters itself in Python's call graph, and leaves it again."""

import asyncio
import sys

import pytest

from helpers import run
from task_helpers import turns

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="the graph is new in 3.14")


async def gather(aio, future):
    await aio.gather(future, return_exceptions=True)


async def wait(aio, future):
    await aio.wait([future])


async def as_completed(aio, future):
    async for _ in aio.as_completed([future]):
        pass


async def shield(aio, future):
    await aio.shield(future)


async def group(aio, future):
    async def child():
        await future

    async with aio.TaskGroup() as group:
        group.create_task(child())


WAYS = [gather, wait, as_completed, shield, group]


def awaited_by(future):
    return {call.future for call in asyncio.capture_call_graph(future).awaited_by}


@pytest.mark.parametrize(
    ("way", "end"),
    # An iterator that was cancelled may be asked again.
    [(way, "done") for way in WAYS]
    + [(way, "cancelled") for way in WAYS if way is not as_completed],
)
def test_waiting_is_seen_while_it_lasts(aio, loop, way, end):
    async def main():
        future = loop.create_future()
        task = aio.create_task(way(aio, future))
        await turns(3)
        (waiter,) = awaited_by(future)
        if way is group:
            (waiter,) = awaited_by(waiter)
        assert waiter is task
        if end == "done":
            future.set_result(None)
        else:
            task.cancel()
        await asyncio.wait([task])
        await turns(2)
        assert awaited_by(future) == set()

    run(loop, main())


def test_children_that_outlive_gather_are_not_awaited_by_it(aio, loop):
    async def main():
        failing, other = loop.create_future(), loop.create_future()

        async def gathers():
            with pytest.raises(ZeroDivisionError):
                await aio.gather(failing, other)
            return awaited_by(other)

        task = aio.create_task(gathers())
        await turns(2)
        assert awaited_by(other) == {task}
        failing.set_exception(ZeroDivisionError())
        assert await task == set()

    run(loop, main())
