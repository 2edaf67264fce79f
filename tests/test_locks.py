"""Lock, Event, Condition, and what all primitives have in common."""

import asyncio
import contextlib
import inspect
import random
import weakref

import pytest

from helpers import drop_unreferenced, run, run_turns
from task_helpers import cancelled, turns

PRIMITIVES = {
    "Lock": lambda aio: aio.Lock(),
    "Event": lambda aio: aio.Event(),
    "Condition": lambda aio: aio.Condition(),
    "Semaphore": lambda aio: aio.Semaphore(),
    "BoundedSemaphore": lambda aio: aio.BoundedSemaphore(),
    "Barrier": lambda aio: aio.Barrier(2),
}
ACQUIRED = ["Lock", "Condition", "Semaphore", "BoundedSemaphore"]


# ------------------------------------------------------------ what all have in common


@pytest.mark.parametrize("name", PRIMITIVES)
def test_repr_names_the_class_and_the_state(aio, name):
    state = {"Event": "unset", "Barrier": "filling, waiters:0/2"}.get(name, "unlocked")
    if "Semaphore" in name:
        state += ", value:1"
    text = repr(PRIMITIVES[name](aio))
    assert text.startswith(f"<{aio.__name__}.locks.{name} object at 0x")
    assert text.endswith(f" [{state}]>")


@pytest.mark.parametrize("name", ACQUIRED)
def test_repr_counts_who_waits(aio, loop, name):
    async def main():
        primitive = PRIMITIVES[name](aio)
        await primitive.acquire()
        assert repr(primitive).endswith("[locked]>")
        tasks = [asyncio.create_task(primitive.acquire()) for _ in range(3)]
        await turns()
        # A condition counts those in wait(), not those who want its lock.
        waiting = "" if name == "Condition" else ", waiters:3"
        assert repr(primitive).endswith(f"[locked{waiting}]>")
        tasks[1].cancel()
        await turns()
        waiting = "" if name == "Condition" else ", waiters:2"
        assert repr(primitive).endswith(f"[locked{waiting}]>")
        for _ in range(3):
            primitive.release()
            await turns()
        assert not primitive.locked()

    run(loop, main())


@pytest.mark.own_module_only("asyncio's are the ones to be taken for")
@pytest.mark.parametrize("name", PRIMITIVES)
def test_class_passes_for_asyncios_own(aio, name):
    primitive = PRIMITIVES[name](aio)
    assert type(primitive) is getattr(aio, name)
    assert isinstance(primitive, getattr(asyncio, name))


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitive_takes_attributes_and_weak_references(aio, name):
    primitive = PRIMITIVES[name](aio)
    primitive.label = "mine"
    ref = weakref.ref(primitive)
    assert ref().label == "mine"


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitive_cannot_be_awaited_nor_entered_by_with(aio, loop, name):
    async def main():
        primitive = PRIMITIVES[name](aio)
        with pytest.raises(TypeError):
            await primitive
        with pytest.raises((AttributeError, TypeError)):
            with primitive:
                pass

    run(loop, main())


@pytest.mark.parametrize("name", [*ACQUIRED, "Event"])
def test_primitive_belongs_to_the_first_loop_it_is_waited_for_on(aio, new_loop, name):
    first, second = new_loop(), new_loop()
    primitive = PRIMITIVES[name](aio)
    wait = primitive.wait if name == "Event" else primitive.acquire

    async def time_out():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(), 0.001)

    async def refused():
        with pytest.raises(RuntimeError) as info:
            await wait()
        return str(info.value)

    if name != "Event":
        run(first, wait())
    run(first, time_out())
    owner = primitive._lock if name == "Condition" else primitive
    assert run(second, refused()) == f"{owner!r} is bound to a different event loop"


@pytest.mark.parametrize("name", ACQUIRED)
def test_acquire_takes_nothing_before_it_is_awaited(aio, loop, name):
    async def main():
        primitive = PRIMITIVES[name](aio)
        for coro in (primitive.acquire(), primitive.__aenter__()):
            assert inspect.iscoroutine(coro)
            assert not primitive.locked()
            coro.close()
            assert not primitive.locked()
        async with primitive:
            coro = primitive.__aexit__(None, None, None)
            assert primitive.locked()
            coro.close()
        assert not primitive.locked()

    run(loop, main())


@pytest.mark.parametrize("name", ACQUIRED)
def test_acquire_works_with_everything_that_takes_a_coroutine(aio, loop, name):
    async def main():
        primitive = PRIMITIVES[name](aio)
        assert await primitive.acquire() is True
        primitive.release()
        assert await asyncio.wait_for(primitive.acquire(), 1) is True
        primitive.release()
        assert await asyncio.create_task(primitive.acquire()) is True
        primitive.release()
        assert await asyncio.gather(primitive.acquire()) == [True]
        primitive.release()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(primitive.acquire())
        assert task.result() is True
        primitive.release()
        async with contextlib.AsyncExitStack() as stack:
            assert await stack.enter_async_context(primitive) is None
            assert primitive.locked()
        assert not primitive.locked()

    run(loop, main())


@pytest.mark.parametrize("name", ACQUIRED)
def test_async_with_releases_after_an_error(aio, loop, name):
    async def main():
        primitive = PRIMITIVES[name](aio)
        with pytest.raises(ZeroDivisionError):
            async with primitive as value:
                assert value is None
                assert primitive.locked()
                raise ZeroDivisionError
        assert not primitive.locked()

    run(loop, main())


@pytest.mark.parametrize("name", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_async_with_calls_what_a_subclass_overrides(aio, loop, name):
    calls = []

    class Noted(getattr(aio, name)):
        async def acquire(self):
            calls.append("acquire")
            return await super().acquire()

        def release(self):
            calls.append("release")
            super().release()

    async def main():
        async with Noted() as value:
            assert value is None
            assert calls == ["acquire"]

    run(loop, main())
    assert calls == ["acquire", "release"]


@pytest.mark.parametrize("name", ACQUIRED)
def test_closed_coroutine_does_not_wait_any_more(aio, loop, name):
    async def main():
        primitive = PRIMITIVES[name](aio)
        await primitive.acquire()
        coros = [primitive.acquire() for _ in range(3)]
        futures = [coro.send(None) for coro in coros]
        coros[1].close()
        coros[0].close()
        primitive.release()
        await turns()
        assert [future.done() for future in futures] == [False, False, True]
        with pytest.raises(StopIteration):
            coros[2].send(None)
        assert primitive.locked()

    run(loop, main())


# ------------------------------------------------------------ the price of leaving


class Counted(asyncio.Future):
    """A future that counts how often it is compared or hashed."""

    count = 0

    def __eq__(self, other):
        Counted.count += 1
        return self is other

    def __hash__(self):
        Counted.count += 1
        return id(self)


def waits_of(aio):
    """name -> (how to wait, how to wake one or all): every place where somebody can wait."""
    lock, event, condition, semaphore = aio.Lock(), aio.Event(), aio.Condition(), aio.Semaphore(0)
    empty, full, worked = aio.Queue(), aio.Queue(1), aio.Queue()
    with contextlib.suppress(StopIteration):
        lock.acquire().send(None)
    full.put_nowait(None)
    worked.put_nowait(None)

    async def wait_on_condition():
        async with condition:
            await condition.wait()

    async def notify():
        async with condition:
            condition.notify()

    return {
        "lock": (lock.acquire, lock.release),
        "event": (event.wait, event.set),
        "condition": (wait_on_condition, notify),
        "semaphore": (semaphore.acquire, semaphore.release),
        "get": (empty.get, lambda: empty.put_nowait(None)),
        "put": (lambda: full.put(None), full.get_nowait),
        "join": (worked.join, worked.task_done),
    }


WAITS = ["lock", "event", "condition", "semaphore", "get", "put", "join"]


@pytest.mark.own_module_only("asyncio's compares each waiter in front of the one that leaves")
@pytest.mark.parametrize("name", WAITS)
def test_leaving_from_the_middle_compares_no_others(aio, loop, name):
    number = 2000
    loop.create_future = lambda: Counted(loop=loop)
    wait, wake = waits_of(aio)[name]

    async def main():
        tasks = [asyncio.create_task(wait()) for _ in range(number)]
        await turns(2)
        leaving = random.Random(1).sample(tasks[1:-1], number // 2)
        Counted.count = 0
        for task in leaving:
            task.cancel()
        await turns(2)
        # A few for each, not hundreds.
        assert Counted.count < 10 * number
        assert all(task.cancelled() for task in leaving)
        woken = wake()
        if woken is not None and name == "condition":
            await woken
        await turns(3)
        assert tasks[0].done()
        Counted.count = 0
        left = [task for task in tasks if not task.done()]
        for task in reversed(left):
            task.cancel()
        await turns(3)
        assert Counted.count < 10 * number
        assert all(task.done() for task in tasks)

    run(loop, main())


@pytest.mark.own_module_only("asyncio's keeps nobody who left")
@pytest.mark.parametrize("name", WAITS)
def test_who_left_is_not_kept(aio, loop, name):
    futures = weakref.WeakSet()

    def create_future():
        future = asyncio.Future(loop=loop)
        futures.add(future)
        return future

    loop.create_future = create_future
    wait, _ = waits_of(aio)[name]

    async def main():
        # The first stays; each of the others leaves when there is one behind it.
        first = asyncio.create_task(wait())
        last = asyncio.create_task(wait())
        for _ in range(500):
            await turns(2)
            last.cancel()
            last = asyncio.create_task(wait())
        await turns(2)
        drop_unreferenced()
        assert len(futures) < 10
        first.cancel()
        last.cancel()
        await turns(3)

    run(loop, main())


@pytest.mark.parametrize("name", ["lock", "semaphore", "get", "put"])
def test_nobody_waits_for_ever_whoever_is_cancelled(aio, loop, name):
    async def main(dice):
        wait, wake = waits_of(aio)[name]
        woken, wakeups = [], 0

        async def waiter(number):
            await wait()
            woken.append(number)

        tasks = [asyncio.create_task(waiter(number)) for number in range(60)]
        await turns()
        for _ in range(100):
            for task in dice.sample(tasks, dice.randrange(3)):
                task.cancel()
            # The lock can only be released by who has it.
            if len(woken) == wakeups and dice.random() < 0.5:
                if any(not task.done() and not task.cancelling() for task in tasks):
                    wakeups += 1
                    wake()
            await turns(dice.choice((0, 0, 1, 4)))
        await turns(5)
        pending = [task for task in tasks if not task.done()]
        for task in pending:
            task.cancel()
        await turns(3)
        # Each wake-up reached one who used it, unless nobody was left, and they came in order.
        assert woken == sorted(woken)
        assert len(woken) == wakeups or (not pending and len(woken) == wakeups - 1)

    for seed in range(10):
        run(loop, main(random.Random(seed)))


# ------------------------------------------------------------ Lock


def test_lock_is_taken_in_order_of_arrival(aio, loop):
    async def main():
        lock, order = aio.Lock(), []

        async def worker(name):
            for _ in range(2):
                async with lock:
                    order.append(name)
                    await turns()

        await asyncio.gather(*(worker(name) for name in "abc"))
        assert order == list("abcabc")

    run(loop, main())


def test_lock_is_not_taken_over_the_head_of_who_was_woken(aio, loop):
    async def main():
        lock = aio.Lock()
        await lock.acquire()
        first = asyncio.create_task(lock.acquire())
        await turns()
        lock.release()
        assert not lock.locked()
        second = asyncio.create_task(lock.acquire())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lock.acquire(), 0.001)
        assert first.done() and not second.done()
        lock.release()
        await second

    run(loop, main())


def test_lock_released_twice_for_one_acquire_is_an_error(aio, loop):
    async def main():
        lock = aio.Lock()
        with pytest.raises(RuntimeError, match="Lock is not acquired"):
            lock.release()
        await lock.acquire()
        waiting = asyncio.create_task(lock.acquire())
        await turns()
        lock.release()
        with pytest.raises(RuntimeError, match="Lock is not acquired"):
            lock.release()
        await waiting
        assert lock.locked()

    run(loop, main())


def test_lock_passes_to_the_next_if_who_was_woken_is_cancelled(aio, loop):
    async def main():
        lock = aio.Lock()
        await lock.acquire()
        tasks = [asyncio.create_task(lock.acquire()) for _ in range(3)]
        await turns()
        lock.release()
        tasks[0].cancel()
        await turns(2)
        assert [task.done() for task in tasks] == [True, True, False]
        assert lock.locked()
        lock.release()
        await tasks[2]
        await cancelled(tasks[0])

    run(loop, main())


def test_lock_passes_to_the_next_if_the_first_is_cancelled_before_the_release(aio, loop):
    async def main():
        lock = aio.Lock()
        await lock.acquire()
        tasks = [asyncio.create_task(lock.acquire()) for _ in range(3)]
        await turns()
        tasks[0].cancel()
        lock.release()
        await turns(2)
        assert [task.done() for task in tasks] == [True, True, False]
        lock.release()
        await tasks[2]

    run(loop, main())


def test_lock_whose_waiters_were_all_cancelled_is_free_at_once(aio, loop):
    async def main():
        lock = aio.Lock()
        await lock.acquire()
        tasks = [asyncio.create_task(lock.acquire()) for _ in range(3)]
        await turns()
        for task in tasks:
            task.cancel()
        lock.release()
        coro = lock.acquire()
        with pytest.raises(StopIteration):
            coro.send(None)
        assert lock.locked()
        await turns()
        assert all(task.cancelled() for task in tasks)
        assert repr(lock).endswith("[locked]>")
        waiting = asyncio.create_task(lock.acquire())
        await turns()
        assert not waiting.done()
        lock.release()
        await waiting

    run(loop, main())


def test_lock_finds_the_next_behind_many_who_left(aio, loop):
    async def main():
        lock = aio.Lock()
        await lock.acquire()
        tasks = [asyncio.create_task(lock.acquire()) for _ in range(10)]
        await turns()
        for number in (1, 2, 3, 4):
            tasks[number].cancel()
        await turns()
        assert repr(lock).endswith("[locked, waiters:6]>")
        for number in (0, 5, 6, 7, 8, 9):
            lock.release()
            await turns()
            assert tasks[number].done()
        assert repr(lock).endswith("[locked]>")

    run(loop, main())


# ------------------------------------------------------------ Event


def test_event_lets_everybody_go_in_order(aio, loop):
    async def main():
        event, order = aio.Event(), []

        async def waiter(name):
            assert await event.wait() is True
            order.append(name)

        tasks = [asyncio.create_task(waiter(name)) for name in "abc"]
        await turns()
        assert repr(event).endswith("[unset, waiters:3]>")
        assert not event.is_set()
        event.set()
        assert event.is_set()
        assert repr(event).endswith("[set]>") or aio is asyncio
        await turns()
        assert order == list("abc")
        assert await event.wait() is True
        await asyncio.gather(*tasks)

    run(loop, main())


def test_event_that_is_cleared_at_once_still_lets_go_who_waited(aio, loop):
    async def main():
        event = aio.Event()
        before = asyncio.create_task(event.wait())
        await turns()
        event.set()
        event.set()
        event.clear()
        after = asyncio.create_task(event.wait())
        await turns(3)
        assert before.done() and not after.done()
        event.set()
        await after

    run(loop, main())


def test_event_forgets_who_is_cancelled(aio, loop):
    async def main():
        event = aio.Event()
        tasks = [asyncio.create_task(event.wait()) for _ in range(4)]
        await turns()
        tasks[1].cancel()
        await turns()
        assert repr(event).endswith("[unset, waiters:3]>")
        tasks[2].cancel()
        event.set()
        await turns()
        assert [task.cancelled() for task in tasks] == [False, True, True, False]
        assert repr(event).endswith("[set]>")
        event.clear()
        tasks.append(asyncio.create_task(event.wait()))
        await turns()
        assert repr(event).endswith("[unset, waiters:1]>")
        tasks[-1].cancel()

    run(loop, main())
    run_turns(loop)


def test_event_is_waited_for_by_a_task_that_is_cancelled_after_set(aio, loop):
    async def main():
        event = aio.Event()
        task = asyncio.create_task(event.wait())
        await turns()
        event.set()
        task.cancel()
        await cancelled(task)
        assert repr(event).endswith("[set]>")

    run(loop, main())
