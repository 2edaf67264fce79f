"""executor.py: run_in_executor and the life of the default executor."""

import asyncio
import concurrent.futures
import contextvars
import sys
import threading

import pytest

from helpers import PATIENCE, Background, run, run_turns

var = contextvars.ContextVar("var", default="unset")


# ------------------------------------------------------------ run_in_executor


def test_function_runs_in_another_thread(loop):
    async def main():
        return await loop.run_in_executor(None, threading.get_ident)

    assert run(loop, main()) != threading.get_ident()


def test_function_gets_its_arguments(loop):
    def add(a, b):
        return a + b

    assert run(loop, loop.run_in_executor(None, add, 1, 2)) == 3


def test_exception_of_the_function_is_raised(loop):
    def fail():
        raise ValueError("in the thread")

    with pytest.raises(ValueError, match="in the thread"):
        run(loop, loop.run_in_executor(None, fail))


def test_result_is_a_future_of_this_loop(loop):
    future = loop.run_in_executor(None, int)
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    assert run(loop, future) == 0


def test_given_executor_is_used(loop):
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="given") as executor:
        name = run(loop, loop.run_in_executor(executor, lambda: threading.current_thread().name))
    assert name.startswith("given")


@pytest.mark.skipif(
    getattr(sys.flags, "thread_inherit_context", False),
    reason="threads inherit the context of whoever starts them (free-threaded 3.14+)",
)
def test_context_is_not_carried_over(loop):
    # asyncio.to_thread does that, run_in_executor does not.
    token = var.set("caller")
    try:
        assert run(loop, loop.run_in_executor(None, var.get)) == "unset"
    finally:
        var.reset(token)


def test_many_calls_at_once_all_come_back(loop):
    async def main():
        calls = [loop.run_in_executor(None, pow, number, 2) for number in range(500)]
        return await asyncio.gather(*calls)

    assert run(loop, main()) == [number**2 for number in range(500)]


def test_loop_stays_responsive_while_a_function_blocks(loop):
    release = threading.Event()

    async def main():
        blocked = loop.run_in_executor(None, release.wait, PATIENCE)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not blocked.done()
        release.set()
        return await blocked

    assert run(loop, main())


def test_cancelled_call_that_has_not_begun_never_runs(loop):
    release = threading.Event()
    ran = []

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            blocker = loop.run_in_executor(executor, release.wait, PATIENCE)
            waiting = loop.run_in_executor(executor, ran.append, 1)
            waiting.cancel()
            await asyncio.sleep(0)
            release.set()
            await blocker

    run(loop, main())
    assert ran == []


def test_call_that_outlives_the_loop_is_dropped(new_loop):
    loop = new_loop()
    release = threading.Event()
    begun = threading.Event()

    def work():
        begun.set()
        release.wait(PATIENCE)

    future = loop.run_in_executor(None, work)
    assert begun.wait(PATIENCE)
    loop.close()
    release.set()
    # The thread finds the loop closed: nothing may be raised or logged in it.
    assert not future.done()


def test_what_is_no_executor_is_refused(loop):
    with pytest.raises(AttributeError):
        loop.run_in_executor("not an executor", int)


def test_coroutine_function_is_refused_in_debug_mode(loop):
    async def coroutine():
        raise AssertionError

    loop.set_debug(True)
    with pytest.raises(TypeError, match="coroutines cannot be used with run_in_executor"):
        loop.run_in_executor(None, coroutine)
    with pytest.raises(TypeError, match="callable object was expected"):
        loop.run_in_executor(None, "text")


def test_run_in_executor_from_outside_the_loop(loop):
    # It is not refused in a thread: wrap_future wakes the loop.
    with Background(loop.run_in_executor, None, int, "7") as other:
        future = other.result()
    assert run(loop, future) == 7


# ------------------------------------------------------------ the default executor


def test_default_executor_can_be_set(loop):
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
    loop.set_default_executor(executor)
    name = run(loop, loop.run_in_executor(None, lambda: threading.current_thread().name))
    assert name.startswith("mine")
    run(loop, loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(int)


@pytest.mark.parametrize("thing", [None, 1, "text", concurrent.futures.Executor()], ids=repr)
def test_default_executor_must_be_a_thread_pool(loop, thing):
    with pytest.raises(TypeError, match="ThreadPoolExecutor"):
        loop.set_default_executor(thing)


def test_threads_of_the_default_executor_are_named(loop):
    name = run(loop, loop.run_in_executor(None, lambda: threading.current_thread().name))
    assert name.startswith("asyncio")


def test_shutdown_waits_for_what_runs(loop):
    release = threading.Event()
    done = []

    def work():
        release.wait(PATIENCE)
        done.append(1)

    async def main():
        loop.run_in_executor(None, work)
        loop.call_soon(release.set)
        await loop.shutdown_default_executor()
        return list(done)

    assert run(loop, main()) == [1]


def test_shutdown_without_an_executor_and_twice(loop):
    run(loop, loop.shutdown_default_executor())
    run(loop, loop.shutdown_default_executor())


def test_run_in_executor_after_the_shutdown_is_refused(loop):
    run(loop, loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="shutdown has been called"):
        loop.run_in_executor(None, int)


def test_given_executor_works_after_the_shutdown_of_the_default_one(loop):
    run(loop, loop.shutdown_default_executor())
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        assert run(loop, loop.run_in_executor(executor, int, "3")) == 3


@pytest.mark.stock_since("3.13", "3.12 has the keyword, but waits without limit all the same")
def test_shutdown_with_a_timeout_gives_up_with_a_warning(loop):
    release = threading.Event()
    begun = threading.Event()

    def work():
        begun.set()
        release.wait(PATIENCE)

    async def main():
        loop.run_in_executor(None, work)
        assert begun.wait(PATIENCE)
        with pytest.warns(RuntimeWarning, match="within 0.01 seconds"):
            await loop.shutdown_default_executor(timeout=0.01)

    try:
        run(loop, main())
    finally:
        release.set()
    # The thread that joined comes back to the loop now, and must find nobody to disturb.
    run_turns(loop, 3)


@pytest.mark.stock_since("3.12", "shutdown_default_executor(timeout) is new in 3.12")
@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_shutdown_within_the_timeout_does_not_warn(loop, timeout):
    async def main():
        await loop.run_in_executor(None, int)
        await loop.shutdown_default_executor(timeout)

    run(loop, main())


def test_close_does_not_wait_for_the_executor(new_loop):
    loop = new_loop()
    release = threading.Event()
    begun = threading.Event()
    finished = []

    def work():
        begun.set()
        release.wait(PATIENCE)
        finished.append(1)

    loop.run_in_executor(None, work)
    assert begun.wait(PATIENCE)
    loop.close()
    assert finished == []
    release.set()
