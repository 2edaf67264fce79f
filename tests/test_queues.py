"""Queue, PriorityQueue, LifoQueue: what goes in comes out, and who waits gets on."""

import asyncio
import inspect
import random
from types import GenericAlias

import pytest

from helpers import run
from task_helpers import turns

KINDS = ["Queue", "PriorityQueue", "LifoQueue"]
SHUTDOWN = pytest.mark.module_since("3.13", "shutdown() is new there")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# ------------------------------------------------------------ items


@pytest.mark.parametrize(
    ("kind", "order"),
    [("Queue", [3, 1, 2]), ("PriorityQueue", [1, 2, 3]), ("LifoQueue", [2, 1, 3])],
)
def test_items_come_out_in_the_order_of_the_kind(aio, loop, kind, order):
    async def main():
        queue = getattr(aio, kind)()
        for item in (3, 1, 2):
            assert await queue.put(item) is None
        assert queue.qsize() == 3
        assert [await queue.get() for _ in range(3)] == order
        for item in (3, 1, 2):
            assert queue.put_nowait(item) is None
        assert [queue.get_nowait() for _ in range(3)] == order
        assert queue.empty()

    run(loop, main())


def test_queue_tells_its_size(aio, kind):
    queue = getattr(aio, kind)(maxsize=2)
    assert (queue.maxsize, queue.qsize(), queue.empty(), queue.full()) == (2, 0, True, False)
    queue.put_nowait(1)
    assert (queue.qsize(), queue.empty(), queue.full()) == (1, False, False)
    queue.put_nowait(2)
    assert (queue.qsize(), queue.empty(), queue.full()) == (2, False, True)
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(3)
    queue.get_nowait()
    queue.get_nowait()
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()
    with pytest.raises(AttributeError):
        queue.maxsize = 3


@pytest.mark.parametrize("maxsize", [0, -1])
def test_queue_without_a_limit_is_never_full(aio, loop, kind, maxsize):
    async def main():
        queue = getattr(aio, kind)(maxsize)
        for item in range(100):
            await queue.put(item)
            assert not queue.full()
        assert queue.maxsize == maxsize
        assert sorted([await queue.get() for _ in range(100)]) == list(range(100))

    run(loop, main())


def test_limit_may_be_a_float(aio, loop):
    async def main():
        queue = aio.Queue(1.5)
        queue.put_nowait(1)
        assert not queue.full()
        queue.put_nowait(2)
        assert queue.full()

    run(loop, main())


def test_item_may_be_false(aio, loop):
    async def main():
        queue = aio.Queue(1)
        for item in (None, 0, "", False):
            task = asyncio.create_task(queue.get())
            await turns()
            await queue.put(item)
            assert await task is item

    run(loop, main())


def test_priority_queue_leaves_an_item_that_cannot_be_compared_to_its_caller(aio):
    queue = aio.PriorityQueue()
    queue.put_nowait(1)
    with pytest.raises(TypeError):
        queue.put_nowait("a")


# ------------------------------------------------------------ names, reprs, types


def test_repr_and_str_show_the_state(aio, loop, kind):
    async def main():
        queue = getattr(aio, kind)(1)
        assert str(queue) == f"<{kind} maxsize=1>"
        assert repr(queue) == f"<{kind} at {id(queue):#x} maxsize=1>"
        tasks = [asyncio.create_task(queue.get()) for _ in range(3)]
        await turns()
        assert str(queue) == f"<{kind} maxsize=1 _getters[3]>"
        tasks[1].cancel()
        await turns()
        assert str(queue) == f"<{kind} maxsize=1 _getters[2]>"
        for item in (1, 2):
            await queue.put(item)
            await turns()
        await queue.put(3)
        assert str(queue) == f"<{kind} maxsize=1 _queue=[3] tasks=3>"
        tasks = [asyncio.create_task(queue.put(item)) for item in (4, 5)]
        await turns()
        assert str(queue) == f"<{kind} maxsize=1 _queue=[3] _putters[2] tasks=3>"
        for task in tasks:
            task.cancel()
        await turns()
        assert str(queue) == f"<{kind} maxsize=1 _queue=[3] tasks=3>"

    run(loop, main())


def test_class_takes_the_type_of_its_items(aio, kind):
    cls = getattr(aio, kind)
    alias = cls[int]
    assert isinstance(alias, GenericAlias)
    assert (alias.__origin__, alias.__args__) == (cls, (int,))
    assert type(alias(3)) is cls

    class Mine(alias):
        pass

    assert Mine(3).maxsize == 3


@pytest.mark.own_module_only("asyncio's are the ones to be taken for")
def test_class_passes_for_asyncios_own(aio, kind):
    queue = getattr(aio, kind)()
    assert type(queue) is getattr(aio, kind)
    assert isinstance(queue, getattr(asyncio, kind))


def test_exceptions_are_asyncios_where_it_has_them(aio):
    assert aio.QueueEmpty is asyncio.QueueEmpty
    assert aio.QueueFull is asyncio.QueueFull
    if hasattr(asyncio, "QueueShutDown"):
        assert aio.QueueShutDown is asyncio.QueueShutDown


@pytest.mark.own_module_only("new in Python 3.13")
def test_shutdown_exception_is_there_on_every_python(aio):
    assert issubclass(aio.QueueShutDown, Exception)
    assert "QueueShutDown" in aio.__all__


# ------------------------------------------------------------ waiting


def test_put_and_get_do_nothing_before_they_are_awaited(aio, loop, kind):
    async def main():
        queue = getattr(aio, kind)()
        coro = queue.put(1)
        assert inspect.iscoroutine(coro)
        assert queue.empty()
        await coro
        coro = queue.get()
        assert inspect.iscoroutine(coro)
        assert queue.qsize() == 1
        coro.close()
        assert await queue.get() == 1

    run(loop, main())


def test_put_and_get_work_with_everything_that_takes_a_coroutine(aio, loop, kind):
    async def main():
        queue = getattr(aio, kind)()
        await asyncio.wait_for(queue.put(1), 1)
        assert await asyncio.wait_for(queue.get(), 1) == 1
        await asyncio.gather(queue.put(1), queue.put(2))
        assert sorted(await asyncio.gather(queue.get(), queue.get())) == [1, 2]
        async with asyncio.TaskGroup() as group:
            task = group.create_task(queue.get())
            group.create_task(queue.put(3))
        assert task.result() == 3
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 0.001)

    run(loop, main())


def test_getters_are_served_in_order_of_arrival(aio, loop, kind):
    async def main():
        queue, got = getattr(aio, kind)(), []

        async def getter(name):
            got.append((name, await queue.get()))

        tasks = [asyncio.create_task(getter(name)) for name in "abc"]
        await turns()
        for item in (1, 2, 3):
            await queue.put(item)
            await turns()
        assert got == [("a", 1), ("b", 2), ("c", 3)]
        await asyncio.gather(*tasks)

    run(loop, main())


def test_putters_are_served_in_order_of_arrival(aio, loop):
    async def main():
        queue = aio.Queue(1)
        tasks = [asyncio.create_task(queue.put(item)) for item in range(5)]
        await turns()
        assert queue.full()
        got = []
        for _ in range(5):
            got.append(await queue.get())
            await turns()
        assert got == [0, 1, 2, 3, 4]
        await asyncio.gather(*tasks)

    run(loop, main())


def test_woken_getter_whose_item_was_taken_waits_again(aio, loop):
    async def main():
        queue = aio.Queue()
        task = asyncio.create_task(queue.get())
        await turns()
        queue.put_nowait(1)
        assert queue.get_nowait() == 1
        await turns(3)
        assert not task.done()
        queue.put_nowait(2)
        assert await task == 2

    run(loop, main())


def test_woken_putter_whose_room_was_taken_waits_again(aio, loop):
    async def main():
        queue = aio.Queue(1)
        queue.put_nowait(1)
        task = asyncio.create_task(queue.put(3))
        await turns()
        assert queue.get_nowait() == 1
        queue.put_nowait(2)
        await turns(3)
        assert not task.done()
        assert queue.get_nowait() == 2
        await task
        assert queue.get_nowait() == 3

    run(loop, main())


@pytest.mark.parametrize("order", ["cancel first", "put first"])
def test_item_for_a_cancelled_getter_goes_to_the_next(aio, loop, order):
    async def main():
        queue = aio.Queue()
        tasks = [asyncio.create_task(queue.get()) for _ in range(3)]
        await turns()
        if order == "cancel first":
            tasks[0].cancel()
            queue.put_nowait(1)
        else:
            queue.put_nowait(1)
            tasks[0].cancel()
        await turns(3)
        assert tasks[0].cancelled()
        assert tasks[1].result() == 1
        assert not tasks[2].done()
        queue.put_nowait(2)
        assert await tasks[2] == 2

    run(loop, main())


@pytest.mark.parametrize("order", ["cancel first", "get first"])
def test_room_for_a_cancelled_putter_goes_to_the_next(aio, loop, order):
    async def main():
        queue = aio.Queue(1)
        queue.put_nowait(0)
        tasks = [asyncio.create_task(queue.put(item)) for item in (1, 2, 3)]
        await turns()
        if order == "cancel first":
            tasks[0].cancel()
            queue.get_nowait()
        else:
            queue.get_nowait()
            tasks[0].cancel()
        await turns(3)
        assert [task.done() for task in tasks] == [True, True, False]
        assert queue.get_nowait() == 2
        await tasks[2]
        assert queue.get_nowait() == 3

    run(loop, main())


def test_item_for_a_cancelled_getter_stays_if_nobody_else_waits(aio, loop):
    async def main():
        queue = aio.Queue(1)
        task = asyncio.create_task(queue.get())
        await turns()
        queue.put_nowait(1)
        task.cancel()
        await turns(2)
        assert task.cancelled()
        assert queue.get_nowait() == 1

    run(loop, main())


def test_closed_coroutine_does_not_wait_any_more(aio, loop):
    async def main():
        queue = aio.Queue(1)
        coros = [queue.get() for _ in range(3)]
        futures = [coro.send(None) for coro in coros]
        coros[1].close()
        coros[0].close()
        queue.put_nowait(1)
        woken = [future.done() and not future.cancelled() for future in futures]
        assert woken == [False, False, True]
        with pytest.raises(StopIteration) as info:
            coros[2].send(None)
        assert info.value.value == 1

    run(loop, main())


def test_queue_belongs_to_the_first_loop_it_is_waited_for_on(aio, new_loop, kind):
    first, second = new_loop(), new_loop()
    queue = getattr(aio, kind)(1)

    async def time_out():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 0.001)

    async def refused():
        message = f"{queue!r} is bound to a different event loop"
        with pytest.raises(RuntimeError) as info:
            await queue.get()
        assert str(info.value) == message
        # What need not wait does not matter to any loop.
        await queue.put(1)
        with pytest.raises(RuntimeError, match="is bound to a different event loop"):
            await queue.put(1)
        assert await queue.get() == 1

    run(first, time_out())
    run(second, refused())


def test_producers_and_consumers_lose_nothing_whoever_is_cancelled(aio, loop, kind):
    async def main(dice):
        queue = getattr(aio, kind)(dice.choice((0, 1, 3)))
        put, got, consumers, producers = [], [], [], []

        async def produce(item):
            await queue.put(item)
            put.append(item)

        async def consume():
            got.append(await queue.get())

        for item in range(200):
            producers.append(asyncio.create_task(produce(item)))
            consumers.append(asyncio.create_task(consume()))
            for tasks in (producers, consumers):
                if dice.random() < 0.3:
                    dice.choice(tasks).cancel()
            await turns(dice.randrange(3))
        await turns(5)
        # Nobody waits for what is there: either all getters or all putters are content.
        assert queue.empty() or all(task.done() for task in consumers)
        assert not queue.full() or queue.maxsize > 0
        assert queue.full() or all(task.done() for task in producers)
        for task in producers + consumers:
            task.cancel()
        await turns(3)
        while not queue.empty():
            got.append(queue.get_nowait())
        assert sorted(got) == sorted(put)

    for seed in range(5):
        run(loop, main(random.Random(seed)))


# ------------------------------------------------------------ join


def test_join_waits_for_every_item_to_be_done(aio, loop, kind):
    async def main():
        queue = getattr(aio, kind)()
        await queue.join()
        for item in (1, 2):
            queue.put_nowait(item)
        tasks = [asyncio.create_task(queue.join()) for _ in range(2)]
        for _ in range(2):
            queue.get_nowait()
        await turns()
        queue.task_done()
        await turns(2)
        assert not any(task.done() for task in tasks)
        queue.task_done()
        # What is put now is not waited for by those who waited already.
        queue.put_nowait(3)
        assert await asyncio.gather(*tasks) == [None, None]
        late = asyncio.create_task(queue.join())
        await turns()
        assert not late.done()
        queue.task_done()
        await late

    run(loop, main())


def test_task_done_too_often_is_an_error(aio, kind):
    queue = getattr(aio, kind)()
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()
    queue.put_nowait(1)
    queue.task_done()
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()


@pytest.mark.parametrize("order", ["cancel first", "done first"])
def test_cancelled_join_leaves_the_others_alone(aio, loop, order):
    async def main():
        queue = aio.Queue()
        queue.put_nowait(1)
        tasks = [asyncio.create_task(queue.join()) for _ in range(3)]
        await turns()
        if order == "cancel first":
            tasks[1].cancel()
            queue.task_done()
        else:
            queue.task_done()
            tasks[1].cancel()
        await turns(2)
        assert [task.cancelled() for task in tasks] == [False, True, False]
        assert all(task.done() for task in tasks)

    run(loop, main())


# ------------------------------------------------------------ shutdown


@SHUTDOWN
def test_queue_that_is_shut_down_can_be_emptied(aio, loop, kind):
    async def main():
        queue = getattr(aio, kind)()
        queue.put_nowait(1)
        queue.put_nowait(1)
        queue.shutdown()
        assert str(queue) == f"<{kind} maxsize=0 _queue=[1, 1] tasks=2 shutdown>"
        with pytest.raises(aio.QueueShutDown):
            queue.put_nowait(2)
        with pytest.raises(aio.QueueShutDown):
            await queue.put(2)
        assert await queue.get() == 1
        assert queue.get_nowait() == 1
        with pytest.raises(aio.QueueShutDown):
            queue.get_nowait()
        with pytest.raises(aio.QueueShutDown):
            await queue.get()
        task = asyncio.create_task(queue.join())
        await turns()
        assert not task.done()
        queue.task_done()
        queue.task_done()
        await task
        queue.shutdown()

    run(loop, main())


@SHUTDOWN
def test_immediate_shutdown_empties_the_queue(aio, loop, kind):
    async def main():
        queue = getattr(aio, kind)()
        for item in (1, 2, 3):
            queue.put_nowait(item)
        queue.get_nowait()
        joiner = asyncio.create_task(queue.join())
        await turns()
        queue.shutdown(immediate=True)
        assert queue.empty()
        with pytest.raises(aio.QueueShutDown):
            await queue.get()
        await turns()
        # Only the item that somebody got is waited for.
        assert not joiner.done()
        queue.task_done()
        await joiner
        with pytest.raises(ValueError):
            queue.task_done()

    run(loop, main())


@SHUTDOWN
def test_immediate_shutdown_lets_go_who_waits_in_join(aio, loop, kind):
    async def main():
        queue = getattr(aio, kind)()
        queue.put_nowait(1)
        joiner = asyncio.create_task(queue.join())
        await turns()
        queue.shutdown(immediate=True)
        await joiner
        await queue.join()

    run(loop, main())


@SHUTDOWN
@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_lets_go_who_waits(aio, loop, kind, immediate):
    async def main():
        empty, full = getattr(aio, kind)(), getattr(aio, kind)(1)
        full.put_nowait(1)
        getters = [asyncio.create_task(empty.get()) for _ in range(3)]
        putters = [asyncio.create_task(full.put(2)) for _ in range(3)]
        await turns()
        getters[1].cancel()
        putters[1].cancel()
        empty.shutdown(immediate)
        full.shutdown(immediate)
        await turns(2)
        for tasks in (getters, putters):
            assert tasks[1].cancelled()
            for task in (tasks[0], tasks[2]):
                with pytest.raises(aio.QueueShutDown):
                    await task
        assert full.qsize() == (0 if immediate else 1)
        assert "etters[" not in str(empty)
        assert "utters[" not in str(full)

    run(loop, main())


@SHUTDOWN
def test_getter_that_was_woken_before_the_shutdown_gets_its_item(aio, loop):
    async def main():
        queue = aio.Queue()
        task = asyncio.create_task(queue.get())
        await turns()
        queue.put_nowait(1)
        queue.shutdown()
        assert await task == 1

    run(loop, main())


# ------------------------------------------------------------ subclasses


def test_subclass_decides_where_the_items_are(aio, loop):
    class Unique(aio.Queue):
        def _init(self, maxsize):
            self._queue = {}

        def _put(self, item):
            self._queue[item] = None

        def _get(self):
            return self._queue.popitem()[0]

    async def main():
        queue = Unique(2)
        getter = asyncio.create_task(queue.get())
        await turns()
        await queue.put("a")
        assert await getter == "a"
        for item in "bbc":
            await queue.put(item)
        assert queue.full()
        putter = asyncio.create_task(queue.put("d"))
        await turns()
        assert not putter.done()
        assert [await queue.get(), queue.get_nowait()] == ["c", "b"]
        await putter
        assert await queue.get() == "d"

    run(loop, main())


def test_put_and_get_call_what_a_subclass_overrides(aio, loop):
    calls = []

    class Noted(aio.Queue):
        def put_nowait(self, item):
            calls.append("put_nowait")
            super().put_nowait(item)

        def get_nowait(self):
            calls.append("get_nowait")
            return super().get_nowait()

        def _wakeup_next(self, waiters):
            calls.append("wake")
            super()._wakeup_next(waiters)

    class MoreNoted(Noted):
        pass

    async def main():
        queue = MoreNoted()
        await queue.put(1)
        assert await queue.get() == 1

    run(loop, main())
    assert calls == ["put_nowait", "wake", "get_nowait", "wake"]


def test_subclass_without_a_queue_attribute_tells_its_own_size(aio, loop):
    class One(aio.Queue):
        def _init(self, maxsize):
            self.items = []

        def qsize(self):
            return len(self.items)

        def empty(self):
            return not self.items

        def _put(self, item):
            self.items.append(item)

        def _get(self):
            return self.items.pop()

    async def main():
        queue = One(1)
        assert queue.empty()
        await queue.put(1)
        putter = asyncio.create_task(queue.put(2))
        await turns()
        with pytest.raises(asyncio.QueueFull):
            queue.put_nowait(3)
        assert await queue.get() == 1
        await putter
        assert await queue.get() == 2
        with pytest.raises(asyncio.QueueEmpty):
            queue.get_nowait()
        assert str(queue) == "<One maxsize=1 tasks=2>"

    run(loop, main())


def test_subclass_may_wake_as_asyncio_does(aio, loop):
    class Waking(aio.Queue):
        def _wakeup_next(self, waiters):
            while waiters:
                waiter = waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    break

    async def main():
        queue = Waking()
        tasks = [asyncio.create_task(queue.get()) for _ in range(4)]
        await turns()
        for task in tasks[:3]:
            task.cancel()
        queue.put_nowait(1)
        assert await tasks[3] == 1
        assert all(task.cancelled() for task in tasks[:3])
        task = asyncio.create_task(queue.get())
        await turns()
        queue.put_nowait(2)
        assert await task == 2

    run(loop, main())
