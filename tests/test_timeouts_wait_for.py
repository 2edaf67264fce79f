"""timeouts.py: wait_for."""

import asyncio

import pytest

from helpers import VirtualClock, run
from task_helpers import turns

pytestmark = pytest.mark.module_since("3.12", "wait_for() ran coroutines in a task of their own")


@pytest.fixture
def clock(loop):
    loop.time = VirtualClock()
    return loop.time


@pytest.mark.parametrize("timeout", [None, 10])
def test_result_in_time(aio, loop, clock, timeout):
    async def main():
        assert await aio.wait_for(turns(0, "at once"), timeout) == "at once"
        assert await aio.wait_for(turns(3, "soon"), timeout) == "soon"
        assert await aio.wait_for(aio.create_task(turns(3, "task")), timeout) == "task"
        clock.advance(20)
        await turns(2)

    run(loop, main())


@pytest.mark.parametrize("timeout", [None, 10])
def test_exception_in_time(aio, loop, timeout):
    async def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(loop, aio.wait_for(fail(), timeout))


def test_coroutine_runs_in_the_task_of_the_caller(aio, loop):
    async def who():
        return aio.current_task()

    async def main():
        assert await aio.wait_for(who(), 10) is aio.current_task()

    run(loop, main())


def test_late_coroutine_is_cancelled_and_waited_for(aio, loop, clock):
    seen = []

    async def late():
        clock.advance(11)
        try:
            await loop.create_future()
        finally:
            await turns(3)
            seen.append("cleaned up")

    async def main():
        with pytest.raises(TimeoutError) as caught:
            await aio.wait_for(late(), 10)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert seen == ["cleaned up"]
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


def test_late_future_and_task_are_cancelled(aio, loop, clock):
    async def main():
        for each in loop.create_future(), aio.create_task(turns(10**6)):
            loop.call_soon(clock.advance, 11)
            with pytest.raises(TimeoutError):
                await aio.wait_for(each, 10)
            assert each.cancelled()

    run(loop, main())


def test_shielded_future_is_not_cancelled(aio, loop, clock):
    async def main():
        future = loop.create_future()
        loop.call_soon(clock.advance, 11)
        with pytest.raises(TimeoutError):
            await aio.wait_for(aio.shield(future), 10)
        assert not future.done()

    run(loop, main())


def test_value_returned_in_spite_of_the_cancellation_is_the_result(aio, loop, clock):
    async def stubborn():
        clock.advance(11)
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            return "stubborn"

    async def main():
        assert await aio.wait_for(stubborn(), 10) == "stubborn"
        assert aio.current_task().cancelling() == 0

    run(loop, main())


def test_other_exception_because_of_the_cancellation(aio, loop, clock):
    async def breaks():
        clock.advance(11)
        try:
            await loop.create_future()
        finally:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(loop, aio.wait_for(breaks(), 10))


@pytest.mark.parametrize("timeout", [0, -1])
def test_without_time_nothing_is_started(aio, loop, timeout):
    started = []

    async def coroutine():
        started.append(True)

    async def main():
        with pytest.raises(TimeoutError):
            await aio.wait_for(coroutine(), timeout)
        future = loop.create_future()
        with pytest.raises(TimeoutError):
            await aio.wait_for(future, timeout)
        assert future.cancelled()

    run(loop, main())
    assert started == []


@pytest.mark.parametrize("timeout", [0, -1, None, 10])
def test_what_is_done_needs_no_time(aio, loop, timeout):
    async def main():
        done, failed = loop.create_future(), loop.create_future()
        done.set_result("done")
        failed.set_exception(ZeroDivisionError)
        assert await aio.wait_for(done, timeout) == "done"
        with pytest.raises(ZeroDivisionError):
            await aio.wait_for(failed, timeout)

    run(loop, main())


def test_without_time_a_task_that_goes_on_is_waited_for(aio, loop):
    async def stubborn():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            return await turns(3, "stubborn")

    async def main():
        task = aio.create_task(stubborn())
        await turns(1)
        return await aio.wait_for(task, 0)

    assert run(loop, main()) == "stubborn"


def test_cancelled_while_a_task_without_time_goes_on(aio, loop):
    async def stubborn(release):
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            return await release

    async def main():
        release = loop.create_future()
        inner = aio.create_task(stubborn(release))
        await turns(1)
        waiting = aio.create_task(aio.wait_for(inner, 0))
        await turns(3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set_result("kept")
        return await inner

    assert run(loop, main()) == "kept"


def test_cancelled_caller_cancels_what_it_waits_for(aio, loop):
    async def main():
        future = loop.create_future()
        waiting = aio.create_task(aio.wait_for(future, 10))
        await turns(1)
        waiting.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await waiting
        assert future.cancelled()

    run(loop, main())


def test_cancelled_awaitable_is_not_late(aio, loop):
    async def main():
        future = loop.create_future()
        loop.call_soon(future.cancel, "bye")
        with pytest.raises(asyncio.CancelledError, match="bye"):
            await aio.wait_for(future, 10)
        done = loop.create_future()
        done.cancel()
        with pytest.raises(asyncio.CancelledError):
            await aio.wait_for(done, 10)

    run(loop, main())


def test_cancelled_and_late_in_the_same_turn_is_cancelled(aio, loop, clock):
    async def main():
        waiting = aio.create_task(aio.wait_for(loop.create_future(), 10))
        await turns(2)
        clock.advance(11)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert waiting.cancelled()

    run(loop, main())


def test_result_that_is_there_when_the_caller_is_cancelled_is_not_lost(aio, loop):
    async def take(queue):
        return await queue.get()

    async def main():
        queue = aio.Queue()
        waiting = aio.create_task(aio.wait_for(take(queue), 10))
        await turns(1)
        queue.put_nowait("item")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert queue.get_nowait() == "item"

    run(loop, main())


def test_result_that_comes_as_the_time_is_over(aio, loop, clock):
    async def main():
        future = loop.create_future()
        waiting = aio.create_task(aio.wait_for(future, 10))
        await turns(1)
        future.set_result("in time")
        assert await waiting == "in time"

    run(loop, main())


@pytest.mark.parametrize("thing", [1, None])
def test_what_is_no_awaitable_is_refused(aio, loop, thing):
    for timeout in 0, 10:
        with pytest.raises(TypeError):
            run(loop, aio.wait_for(thing, timeout))
