"""tasks.py and spawning.py: create_task, ensure_future, sleep, the registry, other threads."""

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading

import pytest

from helpers import Background, VirtualClock, collect, run, run_turns

var = contextvars.ContextVar("var", default="unset")


async def value(result=1):
    return result


class Awaitable:
    def __init__(self, result):
        self.result = result

    def __await__(self):
        yield
        return self.result


# ------------------------------------------------------------ create_task


def test_create_task_makes_an_asyncio_task_of_the_running_loop(aio, loop):
    async def main():
        task = aio.create_task(value(7), name="seven")
        assert type(task) is asyncio.Task
        assert aio.Task is asyncio.Task
        assert task.get_loop() is loop
        assert task.get_name() == "seven"
        assert not task.done()
        return await task

    assert run(loop, main()) == 7


def test_create_task_takes_a_context(aio, loop):
    context = contextvars.copy_context()
    context.run(var.set, "given")

    async def main():
        async def read():
            return var.get()

        return await aio.create_task(read(), context=context), await aio.create_task(read())

    assert run(loop, main()) == ("given", "unset")


def test_create_task_needs_a_running_loop(aio):
    coro = value()
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.create_task(coro)
    coro.close()


def test_create_task_refuses_an_unknown_keyword(aio, loop):
    async def main():
        coro = value()
        with pytest.raises(TypeError, match="no_such"):
            aio.create_task(coro, no_such=1)
        coro.close()

    run(loop, main())


def test_create_task_refuses_what_is_no_coroutine(aio, loop):
    async def main():
        with pytest.raises(TypeError, match="a coroutine was expected"):
            aio.create_task(loop.create_future())

    run(loop, main())


def test_create_task_calls_the_task_factory(aio, loop):
    made = []

    def factory(loop, coro, **kwargs):
        made.append(kwargs.get("context"))
        kwargs.pop("name", None)
        kwargs.pop("eager_start", None)
        return asyncio.Task(coro, loop=loop, **kwargs)

    context = contextvars.copy_context()

    async def main():
        loop.set_task_factory(factory)
        return await aio.create_task(value(3), context=context)

    assert run(loop, main()) == 3
    assert made == [context]


# ------------------------------------------------------------ ensure_future


def test_ensure_future_returns_a_future_as_it_is(aio, loop):
    future = loop.create_future()
    assert aio.ensure_future(future) is future
    assert aio.ensure_future(future, loop=loop) is future


def test_ensure_future_refuses_a_future_of_another_loop(aio, loop, new_loop):
    future = new_loop().create_future()
    with pytest.raises(ValueError, match="belongs to a different loop"):
        aio.ensure_future(future, loop=loop)


def test_ensure_future_runs_coroutines_and_other_awaitables(aio, loop):
    async def main():
        first = aio.ensure_future(value(1))
        second = aio.ensure_future(Awaitable(2), loop=loop)
        assert type(first) is type(second) is asyncio.Task
        return await first, await second

    assert run(loop, main()) == (1, 2)


@pytest.mark.parametrize("thing", [None, 1, "text", [1]], ids=repr)
def test_ensure_future_refuses_what_is_no_awaitable(aio, loop, thing):
    with pytest.raises(TypeError, match="a coroutine or an awaitable is required"):
        aio.ensure_future(thing, loop=loop)


@pytest.mark.module_since("3.12", "the coroutine was left behind")
def test_ensure_future_on_a_closed_loop_closes_the_coroutine(aio, new_loop):
    loop = new_loop()
    loop.close()
    coro = value()
    with pytest.raises(RuntimeError, match="closed"):
        aio.ensure_future(coro, loop=loop)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


@pytest.mark.own_module_only("asyncio's warns that its own wrapper was never awaited")
def test_ensure_future_of_an_awaitable_on_a_closed_loop_warns_of_nothing(aio, new_loop):
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        aio.ensure_future(Awaitable(1), loop=loop)
    collect()


# ------------------------------------------------------------ sleep


def test_sleep_of_zero_takes_one_turn(aio, loop):
    seen = []

    async def main():
        loop.call_soon(seen.append, "turn")
        loop.call_soon(loop.call_soon, seen.append, "turn after")
        assert await aio.sleep(0, "result") == "result"
        assert seen == ["turn"]
        assert await aio.sleep(-1) is None
        assert seen == ["turn", "turn after"]

    run(loop, main())


def test_sleep_is_a_coroutine_function(aio, loop):
    coro = aio.sleep(0)
    assert inspect.iscoroutinefunction(aio.sleep)
    assert asyncio.iscoroutine(coro)
    assert run(loop, coro) is None


def test_sleep_returns_its_result_after_the_time(aio, loop):
    clock = loop.time = VirtualClock()
    task = loop.create_task(aio.sleep(10, "slept"))
    run_turns(loop, 2)
    clock.advance(9.99)
    run_turns(loop, 2)
    assert not task.done()
    clock.advance(0.02)
    run_turns(loop, 2)
    assert task.result() == "slept"


@pytest.mark.module_since("3.13", "NaN was not refused")
def test_sleep_refuses_nan(aio, loop):
    with pytest.raises(ValueError, match="Invalid delay: NaN"):
        run(loop, aio.sleep(float("nan")))


@pytest.mark.parametrize("delay", [0, 10])
def test_cancelled_sleep(aio, loop, delay):
    clock = loop.time = VirtualClock()

    async def main():
        task = aio.create_task(aio.sleep(delay))
        await aio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task

    run(loop, main())
    clock.advance(20)
    run_turns(loop, 2)  # the timer is gone: nobody sets the result of a cancelled future


def test_sleep_cancelled_in_the_turn_in_which_its_time_is_over(aio, loop):
    clock = loop.time = VirtualClock()
    task = loop.create_task(aio.sleep(10))
    run_turns(loop, 2)
    clock.advance(20)
    loop.call_soon(task.cancel)
    run_turns(loop, 3)
    assert task.cancelled()


# ------------------------------------------------------------ who runs


def test_current_task_and_all_tasks_are_asyncios(aio, loop):
    async def main():
        me = aio.current_task()
        assert me is asyncio.current_task(loop)
        other = aio.create_task(value())
        assert aio.all_tasks() == asyncio.all_tasks(loop) == {me, other}
        await other
        assert aio.all_tasks() == {me}

    run(loop, main())
    assert aio.all_tasks(loop) == set()
    assert aio.current_task(loop) is None


@pytest.mark.parametrize("name", ["current_task", "all_tasks"])
def test_without_a_loop_nobody_runs(aio, name):
    with pytest.raises(RuntimeError, match="no running event loop"):
        getattr(aio, name)()


# ------------------------------------------------------------ from other threads


def test_coroutine_from_another_thread(aio, loop):
    async def main():
        inside = threading.get_ident()

        async def where():
            await aio.sleep(0)
            return threading.get_ident() == inside

        def call():
            future = aio.run_coroutine_threadsafe(where(), loop)
            assert isinstance(future, concurrent.futures.Future)
            return future.result(10)

        return await loop.run_in_executor(None, call)

    assert run(loop, main()) is True


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ZeroDivisionError("oops"), ZeroDivisionError),
        (asyncio.CancelledError(), concurrent.futures.CancelledError),
        (concurrent.futures.CancelledError("inner"), asyncio.CancelledError),
        (concurrent.futures.InvalidStateError("inner"), asyncio.InvalidStateError),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_exception_reaches_the_other_thread(aio, loop, raised, seen):
    async def fail():
        raise raised

    async def main():
        def call():
            with pytest.raises(seen) as caught:
                aio.run_coroutine_threadsafe(fail(), loop).result(10)
            assert type(caught.value) is seen
            return True

        return await loop.run_in_executor(None, call)

    assert run(loop, main()) is True


def test_cancelling_from_another_thread_cancels_the_task(aio, loop):
    async def main():
        started, cancelled = aio.Event(), aio.Event()

        async def wait():
            started.set()
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        future = aio.run_coroutine_threadsafe(wait(), loop)
        await started.wait()
        with Background(future.cancel) as canceller:
            await cancelled.wait()
            assert canceller.result() is True
        assert future.cancelled()

    run(loop, main())


def test_cancelling_in_the_loops_own_thread(aio, loop):
    async def main():
        started = aio.Event()

        async def wait():
            started.set()
            await loop.create_future()

        future = aio.run_coroutine_threadsafe(wait(), loop)
        await started.wait()
        (task,) = aio.all_tasks() - {aio.current_task()}
        assert future.cancel()
        await aio.wait([task])
        assert task.cancelled()

    run(loop, main())


@pytest.mark.module_since("3.15", "the coroutine began all the same")
def test_cancelled_before_it_started(aio, loop):
    ran = []

    async def coroutine():
        ran.append(True)

    future = aio.run_coroutine_threadsafe(coroutine(), loop)
    future.cancel()
    run_turns(loop, 4)
    assert future.cancelled()
    assert ran == []


def test_factory_that_fails_is_told_to_both(aio, loop, loop_errors):
    def factory(loop, coro, **kwargs):
        coro.close()
        raise ZeroDivisionError("no tasks today")

    loop.set_task_factory(factory)
    future = aio.run_coroutine_threadsafe(value(), loop)
    run_turns(loop, 2)
    assert isinstance(future.exception(0), ZeroDivisionError)
    assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)


def test_run_coroutine_threadsafe_takes_coroutines_only(aio, loop):
    with pytest.raises(TypeError, match="A coroutine object is required"):
        aio.run_coroutine_threadsafe(loop.create_future(), loop)
    with pytest.raises(TypeError, match="A coroutine object is required"):
        aio.run_coroutine_threadsafe(value, loop)
