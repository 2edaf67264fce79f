"""threads.py: to_thread()."""

import asyncio
import contextvars
import threading

import pytest

from helpers import PATIENCE, run

var = contextvars.ContextVar("var", default="unset")


def test_runs_in_another_thread(aio, loop):
    assert run(loop, aio.to_thread(threading.current_thread)) is not threading.current_thread()


def test_result_and_arguments(aio, loop):
    def function(*args, **kwargs):
        return args, kwargs

    # "func" is a name like any other, for the function is positional only.
    call = aio.to_thread(function, 1, 2, func=3, loop=4)
    assert run(loop, call) == ((1, 2), {"func": 3, "loop": 4})


def test_exception_is_raised(aio, loop):
    def function():
        raise LookupError("in the thread")

    with pytest.raises(LookupError, match="in the thread"):
        run(loop, aio.to_thread(function))


def test_context_is_seen_and_copied(aio, loop):
    def function():
        before = var.get()
        var.set("by the thread")
        return before

    async def main():
        var.set("by main")
        return await aio.to_thread(function), var.get()

    assert run(loop, main()) == ("by main", "by main")


def test_context_is_that_of_the_await(aio, loop):
    async def main():
        call = aio.to_thread(var.get)
        var.set("after the call")
        return await call

    assert run(loop, main()) == "after the call"


def test_default_executor_is_used(aio, loop):
    calls = []
    run_in_executor = loop.run_in_executor

    def spy(executor, func, *args):
        calls.append(executor)
        return run_in_executor(executor, func, *args)

    loop.run_in_executor = spy
    assert run(loop, aio.to_thread(divmod, 7, 2)) == (3, 1)
    assert calls == [None]


def test_cancelling_the_wait_does_not_stop_the_thread(aio, loop):
    begun, go, gone = threading.Event(), threading.Event(), threading.Event()

    def function():
        begun.set()
        assert go.wait(PATIENCE)
        gone.set()

    async def main():
        task = asyncio.ensure_future(aio.to_thread(function))
        await asyncio.sleep(0)
        assert begun.wait(PATIENCE)  # what has not begun is not done at all
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not gone.is_set()
        go.set()
        assert gone.wait(PATIENCE)

    run(loop, main())


def test_needs_a_running_loop(aio):
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.to_thread(int).send(None)
