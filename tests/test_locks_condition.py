"""Condition: notifications, and the lock that has to be held whatever happens."""

import asyncio

import pytest

from helpers import run
from task_helpers import cancelled, turns


class Consumers:
    """Tasks in wait(), each of which notes its number when it goes on with the lock held."""

    def __init__(self, condition, number):
        self.condition = condition
        self.order = []
        self.tasks = [asyncio.create_task(self.consume(each)) for each in range(number)]

    async def consume(self, number):
        async with self.condition:
            try:
                assert await self.condition.wait() is True
                self.order.append(number)
            finally:
                assert self.condition.locked()


async def end(consumers):
    for task in consumers.tasks:
        task.cancel()
    await asyncio.gather(*consumers.tasks, return_exceptions=True)


def test_notify_wakes_in_order_of_arrival(aio, loop):
    async def main():
        condition = aio.Condition()
        consumers = Consumers(condition, 6)
        await turns()
        assert repr(condition).endswith("[unlocked, waiters:6]>")
        async with condition:
            condition.notify()
            condition.notify()
            condition.notify(2)
        await turns(5)
        assert consumers.order == [0, 1, 2, 3]
        async with condition:
            condition.notify(0)
            condition.notify_all()
        await turns(5)
        assert consumers.order == [0, 1, 2, 3, 4, 5]
        async with condition:
            condition.notify(100)
            condition.notify_all()

    run(loop, main())


def test_notified_task_waits_for_the_lock(aio, loop):
    async def main():
        condition = aio.Condition()
        consumers = Consumers(condition, 2)
        await turns()
        async with condition:
            condition.notify_all()
            await turns(3)
            assert consumers.order == []
        await turns(3)
        assert consumers.order == [0, 1]

    run(loop, main())


def test_condition_wants_the_lock_to_be_held(aio, loop):
    async def main():
        condition = aio.Condition()
        with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
            await condition.wait()
        with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
            await condition.wait_for(lambda: False)
        with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
            condition.notify()
        with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
            condition.notify_all()

    run(loop, main())


def test_wait_for_returns_what_the_predicate_is(aio, loop):
    async def main():
        condition, items, calls = aio.Condition(), [], []

        def predicate():
            calls.append(condition.locked())
            return list(items)

        async def consume():
            async with condition:
                return await condition.wait_for(predicate)

        task = asyncio.create_task(consume())
        await turns()
        for item in (None, "a"):
            async with condition:
                if item:
                    items.append(item)
                condition.notify()
            await turns(2)
        assert await task == ["a"]
        assert calls == [True, True, True]
        # What is true at once needs no lock.
        assert await condition.wait_for(lambda: "yes") == "yes"

    run(loop, main())


def test_lock_is_shared(aio, loop):
    async def main():
        lock = aio.Lock()
        one, other = aio.Condition(lock), aio.Condition(lock)
        async with one:
            assert lock.locked() and other.locked()
            assert repr(other).endswith("[locked]>")
        assert await other.acquire() is True
        assert one.locked()
        one.release()
        assert not lock.locked()

    run(loop, main())


def test_lock_of_another_kind_is_called_by_its_methods(aio, loop):
    calls = []

    class Other:
        def __init__(self):
            self.lock = asyncio.Lock()

        def locked(self):
            return self.lock.locked()

        async def acquire(self):
            calls.append("acquire")
            return await self.lock.acquire()

        def release(self):
            calls.append("release")
            self.lock.release()

    async def main():
        condition = aio.Condition(Other())
        consumers = Consumers(condition, 1)
        await turns()
        async with condition:
            condition.notify()
        await turns(2)
        assert consumers.order == [0]
        assert calls == ["acquire", "release"] * 3

    run(loop, main())


@pytest.mark.module_since("3.13", "before, such a notification is lost")
@pytest.mark.parametrize("when", ["before", "after", "both"])
def test_notification_of_a_cancelled_task_goes_to_the_next(aio, loop, when):
    async def main():
        condition = aio.Condition()
        consumers = Consumers(condition, 3)
        await turns()
        async with condition:
            if when != "after":
                consumers.tasks[0].cancel()
            condition.notify()
            if when != "before":
                consumers.tasks[0 if when == "after" else 1].cancel()
        await turns(6)
        # asyncio's wakes one more for one that was cancelled before it was notified.
        assert consumers.order[0] == (2 if when == "both" else 1)
        assert len(consumers.order) == 1 or aio is asyncio
        await end(consumers)

    run(loop, main())


@pytest.mark.module_since("3.13", "before, such a notification is lost")
def test_notification_of_a_task_that_is_cancelled_waiting_for_the_lock_goes_to_the_next(aio, loop):
    async def main():
        condition = aio.Condition()
        consumers = Consumers(condition, 2)
        await turns()
        async with condition:
            condition.notify()
            await turns(2)
            consumers.tasks[0].cancel()
            await turns(2)
            assert not consumers.tasks[0].done()
        await turns(6)
        assert consumers.tasks[0].cancelled()
        assert consumers.order == [1]
        await end(consumers)

    run(loop, main())


@pytest.mark.own_module_only("asyncio's wakes another one for each that is cancelled")
def test_cancelled_task_that_was_not_notified_wakes_nobody(aio, loop):
    async def main():
        condition = aio.Condition()
        consumers = Consumers(condition, 3)
        await turns()
        consumers.tasks[1].cancel()
        await turns(5)
        assert consumers.order == []
        assert repr(condition).endswith("[unlocked, waiters:2]>")
        async with condition:
            condition.notify_all()
        await turns(5)
        assert consumers.order == [0, 2]

    run(loop, main())


@pytest.mark.module_since("3.13", "before, what cancel() was told is lost")
def test_wait_that_is_cancelled_again_and_again_takes_the_lock_first(aio, loop):
    async def main():
        condition = aio.Condition()
        consumers = Consumers(condition, 1)
        (task,) = consumers.tasks
        await turns()
        await condition.acquire()
        for number in range(3):
            task.cancel(f"the {number}th")
            await turns(2)
            assert not task.done()
        condition.release()
        with pytest.raises(asyncio.CancelledError, match="the 2th"):
            await task
        assert not condition.locked()

    run(loop, main())


def test_wait_ends_with_the_exception_it_was_cancelled_with(aio, loop):
    async def main():
        condition, seen = aio.Condition(), []

        async def consume():
            async with condition:
                try:
                    await condition.wait()
                except asyncio.CancelledError as exc:
                    seen.append(exc)
                    raise

        task = asyncio.create_task(consume())
        await turns()
        task.cancel("reason")
        await cancelled(task)
        assert seen[0].args == ("reason",)

    run(loop, main())


def test_wait_with_a_timeout_leaves_the_lock_held(aio, loop):
    async def main():
        condition = aio.Condition()
        async with condition:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await condition.wait()
            assert condition.locked()
        assert repr(condition).endswith("[unlocked]>")

    run(loop, main())


def test_coroutine_that_is_closed_in_wait_leaves_the_lock_free(aio, loop):
    async def main():
        condition = aio.Condition()

        async def consume():
            async with condition:
                await condition.wait()

        coros = [consume() for _ in range(3)]
        futures = [coro.send(None) for coro in coros]
        coros[1].close()
        assert not condition.locked()
        async with condition:
            condition.notify(2)
        assert [future.done() for future in futures] == [True, False, True]
        for coro in (coros[0], coros[2]):
            with pytest.raises(StopIteration):
                coro.send(None)

    run(loop, main())


def test_condition_belongs_to_the_first_loop_it_is_waited_for_on(aio, new_loop):
    first, second = new_loop(), new_loop()
    condition = aio.Condition()

    async def time_out():
        async with condition:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(condition.wait(), 0.001)

    async def refused():
        async with condition:
            with pytest.raises(RuntimeError, match=r"Condition .* is bound to a different event"):
                await condition.wait()
            assert condition.locked()

    # wait_for() of Python 3.11 waits in another task, which takes the lock for the first again.
    run(first, time_out())
    run(second, refused())


@pytest.mark.module_since("3.13", "it had no such method")
def test_private_notify_of_asyncios_wakes_one(aio, loop):
    # Libraries that cannot hold the lock call it.
    async def main():
        condition = aio.Condition()

        async def wait():
            async with condition:
                await condition.wait()

        task = asyncio.ensure_future(wait())
        await turns()
        condition._notify(1)
        await task
        assert not condition._waiters

    run(loop, main())
