"""Semaphore and BoundedSemaphore."""

import asyncio

import pytest

from helpers import run
from task_helpers import cancelled, turns

SINCE = pytest.mark.module_since("3.13", "older ones are not fair")


@pytest.fixture(params=["Semaphore", "BoundedSemaphore"])
def kind(request):
    return request.param


def test_value_below_zero_is_an_error(aio, kind):
    with pytest.raises(ValueError, match="Semaphore initial value must be >= 0"):
        getattr(aio, kind)(-1)


def test_semaphore_lets_as_many_in_as_its_value(aio, loop, kind):
    async def main():
        semaphore, inside, most = getattr(aio, kind)(3), 0, 0

        async def worker():
            nonlocal inside, most
            async with semaphore:
                inside += 1
                most = max(most, inside)
                await turns(2)
                inside -= 1

        await asyncio.gather(*(worker() for _ in range(10)))
        assert (inside, most) == (0, 3)
        assert repr(semaphore).endswith("[unlocked, value:3]>")

    run(loop, main())


def test_semaphore_of_zero_waits_for_a_release(aio, loop):
    async def main():
        semaphore = aio.Semaphore(0)
        assert semaphore.locked()
        task = asyncio.create_task(semaphore.acquire())
        await turns()
        assert not task.done()
        semaphore.release()
        assert await task is True
        semaphore.release()
        semaphore.release()
        assert repr(semaphore).endswith("[unlocked, value:2]>")

    run(loop, main())


def test_bounded_semaphore_is_released_as_often_as_it_was_acquired(aio, loop):
    async def main():
        semaphore = aio.BoundedSemaphore(2)
        await semaphore.acquire()
        semaphore.release()
        with pytest.raises(ValueError, match="BoundedSemaphore released too many times"):
            semaphore.release()
        assert repr(semaphore).endswith("[unlocked, value:2]>")

    run(loop, main())


def test_bounded_semaphore_hands_on_in_order(aio, loop):
    async def main():
        semaphore = aio.BoundedSemaphore(1)
        await semaphore.acquire()
        tasks = [asyncio.create_task(semaphore.acquire()) for _ in range(2)]
        await turns()
        for task in tasks:
            semaphore.release()
            await task
        semaphore.release()
        with pytest.raises(ValueError):
            semaphore.release()

    run(loop, main())


@SINCE
def test_who_comes_after_a_release_comes_after_who_waited(aio, loop):
    async def main():
        semaphore, order = aio.Semaphore(0), []

        async def worker(name):
            await semaphore.acquire()
            order.append(name)

        first = asyncio.create_task(worker("first"))
        await turns()
        for _ in range(3):
            semaphore.release()
        # The first has its share, and has not run.
        assert semaphore.locked()
        others = [asyncio.create_task(worker(name)) for name in ("second", "third")]
        await asyncio.gather(first, *others)
        assert order == ["first", "second", "third"]
        assert semaphore.locked()

    run(loop, main())


@SINCE
def test_who_had_to_queue_up_behind_a_woken_one_is_woken_by_it(aio, loop):
    async def main():
        semaphore, order = aio.Semaphore(0), []

        async def first():
            await semaphore.acquire()
            order.append(1)

        async def second():
            for _ in range(3):
                semaphore.release()
            await semaphore.acquire()
            order.append(2)

        async def third():
            await semaphore.acquire()
            order.append(3)

        tasks = [asyncio.create_task(each()) for each in (first, second, third)]
        await turns()
        assert order == []
        assert repr(semaphore).endswith("[locked, waiters:3]>")
        await turns()
        assert order == [1]
        await turns()
        assert order == [1, 2, 3]
        await asyncio.gather(*tasks)

    run(loop, main())


@SINCE
def test_several_releases_in_a_row_wake_several(aio, loop):
    async def main():
        semaphore = aio.Semaphore(0)
        tasks = [asyncio.create_task(semaphore.acquire()) for _ in range(5)]
        await turns()
        for _ in range(3):
            semaphore.release()
        assert repr(semaphore).endswith("[locked, waiters:5]>")
        await turns()
        assert [task.done() for task in tasks] == [True] * 3 + [False] * 2
        for task in tasks[3:]:
            task.cancel()
        await turns()
        assert repr(semaphore).endswith("[locked]>")

    run(loop, main())


@SINCE
@pytest.mark.parametrize("order", ["cancel first", "release first"])
def test_share_of_who_is_cancelled_goes_to_the_next(aio, loop, order):
    async def main():
        semaphore = aio.Semaphore(0)
        tasks = [asyncio.create_task(semaphore.acquire()) for _ in range(3)]
        await turns()
        if order == "cancel first":
            tasks[0].cancel()
            semaphore.release()
        else:
            semaphore.release()
            tasks[0].cancel()
        await turns(3)
        assert [task.done() for task in tasks] == [True, True, False]
        await cancelled(tasks[0])
        semaphore.release()
        await tasks[2]
        assert semaphore.locked()

    run(loop, main())


@SINCE
def test_share_of_who_is_cancelled_is_not_lost_if_nobody_else_waits(aio, loop):
    async def main():
        semaphore = aio.Semaphore(0)
        task = asyncio.create_task(semaphore.acquire())
        await turns()
        semaphore.release()
        task.cancel()
        await cancelled(task)
        assert repr(semaphore).endswith("[unlocked, value:1]>")

    run(loop, main())


@SINCE
def test_share_of_a_closed_coroutine_is_not_lost(aio, loop):
    async def main():
        semaphore = aio.Semaphore(0)
        coro = semaphore.acquire()
        coro.send(None)
        semaphore.release()
        coro.close()
        if aio is not asyncio:
            assert repr(semaphore).endswith("[unlocked, value:1]>")
        assert "waiters" not in repr(semaphore)

    run(loop, main())


@SINCE
def test_semaphore_whose_waiters_were_all_cancelled_is_free_at_once(aio, loop):
    async def main():
        semaphore = aio.Semaphore(0)
        tasks = [asyncio.create_task(semaphore.acquire()) for _ in range(3)]
        await turns()
        for task in tasks:
            task.cancel()
        semaphore.release()
        assert not semaphore.locked()
        coro = semaphore.acquire()
        with pytest.raises(StopIteration):
            coro.send(None)
        await turns()
        assert repr(semaphore).endswith("[locked]>")

    run(loop, main())
