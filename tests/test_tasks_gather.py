"""tasks.py: gather, shield."""

import asyncio

import pytest

from helpers import collect, run, run_turns
from task_helpers import fail, value

# ------------------------------------------------------------ gather


def test_results_have_the_order_of_the_arguments(aio, loop):
    async def main():
        future = loop.create_future()
        loop.call_soon(future.set_result, "future")
        return await aio.gather(value("slow", 5), future, value("fast"))

    assert run(loop, main()) == ["slow", "future", "fast"]


def test_gather_of_nothing_is_done_at_once(aio, loop):
    async def main():
        future = aio.gather()
        assert future.done()
        return await future

    assert run(loop, main()) == []


def test_what_is_given_twice_runs_once_and_counts_twice(aio, loop):
    async def main():
        coro, task = value(1), aio.create_task(value(2))
        return await aio.gather(task, coro, task, coro, value(3))

    assert run(loop, main()) == [2, 1, 2, 1, 3]


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_results_and_exceptions_given_twice(aio, loop, return_exceptions):
    async def main():
        task = aio.create_task(fail())
        outcome = await aio.gather(task, value(1), task, return_exceptions=True)
        assert outcome == [task.exception(), 1, task.exception()]
        both = aio.gather(task, task, return_exceptions=return_exceptions)
        if return_exceptions:
            assert await both == [task.exception()] * 2
        else:
            with pytest.raises(ZeroDivisionError):
                await both

    run(loop, main())


def test_first_exception_comes_at_once_and_the_others_go_on(aio, loop):
    async def main():
        slow = aio.create_task(value("slow", 10))
        with pytest.raises(ZeroDivisionError, match="first"):
            await aio.gather(slow, fail(ZeroDivisionError("first"), after=1), fail(after=2))
        assert not slow.done()
        return await slow

    assert run(loop, main()) == "slow"  # and nothing is said of the second exception


def test_return_exceptions(aio, loop):
    async def main():
        cancelled = loop.create_future()
        loop.call_soon(cancelled.cancel, "bye")
        return await aio.gather(fail(), value(1), cancelled, return_exceptions=True)

    first, second, third = run(loop, main())
    assert isinstance(first, ZeroDivisionError)
    assert second == 1
    assert type(third) is asyncio.CancelledError
    assert third.args == ("bye",)


def test_cancelled_child_counts_as_one_that_raised(aio, loop):
    async def main():
        child, other = aio.create_task(value(0, 10)), aio.create_task(value(1, 5))
        outer = aio.gather(child, other)
        await aio.sleep(0)
        child.cancel("bye")
        with pytest.raises(asyncio.CancelledError, match="bye"):
            await outer
        assert not outer.cancelled()
        assert not other.done()
        await other

    run(loop, main())


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_cancelling_it_cancels_the_children(aio, loop, return_exceptions):
    async def main():
        children = [aio.create_task(value(0, 10)) for _ in range(3)]
        outer = aio.gather(*children, return_exceptions=return_exceptions)
        await aio.sleep(0)
        assert outer.cancel("enough")
        assert not outer.done()
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await outer
        await aio.wait(children)
        assert all(child.cancelled() for child in children)
        assert not outer.cancel()

    run(loop, main())


def test_cancelled_waiter_hears_of_it_though_a_child_swallowed_it(aio, loop):
    async def stubborn():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            return "stubborn"

    async def main():
        async def waits():
            await aio.gather(stubborn(), return_exceptions=True)

        task = aio.create_task(waits())
        await aio.sleep(0)
        await aio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main())


def test_cancelling_when_all_children_are_done_does_nothing(aio, loop):
    async def main():
        future = loop.create_future()
        outer = aio.gather(future)
        future.set_result(1)
        assert not outer.cancel()
        return await outer

    assert run(loop, main()) == [1]


def test_cancelled_from_outside_after_it_failed_cancels_no_child(aio, loop):
    async def main():
        slow = aio.create_task(value("slow", 10))
        outer = aio.gather(fail(), slow)
        with pytest.raises(ZeroDivisionError):
            await outer
        assert not outer.cancel()
        assert await slow == "slow"

    run(loop, main())


def test_exception_that_nobody_retrieved_is_reported(aio, loop, loop_errors):
    async def main():
        aio.gather(fail())
        await value(0, 5)

    run(loop, main())
    collect()
    context = loop_errors.take_one()
    assert context["message"] == "_GatheringFuture exception was never retrieved"
    assert isinstance(context["exception"], ZeroDivisionError)


def test_futures_outside_of_a_running_loop(aio, loop):
    first, second = loop.create_future(), loop.create_future()
    outer = aio.gather(first, second)
    assert outer.get_loop() is loop
    second.set_result(2)
    first.set_result(1)
    assert run(loop, outer) == [1, 2]


def test_futures_of_two_loops_are_refused(aio, loop, new_loop):
    first, second = loop.create_future(), new_loop().create_future()
    with pytest.raises(ValueError, match="different loop"):
        aio.gather(first, second)


def test_argument_that_is_refused_leaves_the_others_running(aio, loop):
    async def main():
        task = aio.create_task(fail())
        with pytest.raises(TypeError, match="is required"):
            aio.gather(task, value(1), None)
        await value(0, 3)
        assert task.done()

    run(loop, main())  # the exception of the task is nobody's business any more
    collect()


@pytest.mark.own_module_only("asyncio's before 3.13 leaves the coroutine open")
def test_factory_that_refuses_a_coroutine(aio, loop):
    def factory(loop, coro, **kwargs):
        raise RuntimeError("no tasks today")

    async def main():
        loop.set_task_factory(factory)
        with pytest.raises(RuntimeError, match="no tasks today"):
            aio.gather(value(1))

    run(loop, main())
    collect()  # a coroutine that was never awaited would say so


# ------------------------------------------------------------ shield


def test_shield_gives_result_and_exception(aio, loop):
    async def main():
        assert await aio.shield(value(1, 2)) == 1
        with pytest.raises(ZeroDivisionError):
            await aio.shield(fail(after=2))

    run(loop, main())


def test_shield_of_what_is_done_is_that(aio, loop):
    future = loop.create_future()
    future.set_result(1)
    assert aio.shield(future) is future


def test_cancelled_waiter_leaves_what_is_shielded_alone(aio, loop):
    async def main():
        inner = aio.create_task(value("inner", 5))

        async def waits():
            await aio.shield(inner)

        task = aio.create_task(waits())
        await aio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert not inner.done()
        return await inner

    assert run(loop, main()) == "inner"


def test_cancelled_inside_cancels_the_shield(aio, loop):
    async def main():
        inner = loop.create_future()
        outer = aio.shield(inner)
        inner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert outer.cancelled()

    run(loop, main())


@pytest.mark.parametrize("when", ["before", "in the same turn"])
@pytest.mark.module_since("3.15", "it was swallowed, and then reported in other words")
def test_exception_inside_of_a_cancelled_shield_is_reported(aio, loop, loop_errors, when):
    inner = loop.create_future()
    outer = aio.shield(inner)
    assert outer.cancel()
    if when == "before":
        run_turns(loop)
    inner.set_exception(ZeroDivisionError("oops"))
    run_turns(loop, 2)
    del inner, outer
    collect()
    context = loop_errors.take_one()
    assert context["message"].endswith("exception was never retrieved")
    assert isinstance(context["exception"], ZeroDivisionError)


def test_shield_cancelled_in_the_turn_in_which_the_inside_is_done(aio, loop):
    async def main():
        inner = loop.create_future()
        outer = aio.shield(inner)
        inner.set_result(1)
        assert outer.cancel()
        assert not outer.cancel()
        await value(0, 2)
        assert outer.cancelled()

    run(loop, main())


def test_shield_ends_what_is_done_to_it_from_outside(aio, loop):
    inner = loop.create_future()
    outer = aio.shield(inner)
    outer.set_result("mine")
    run_turns(loop)
    inner.set_result("other")
    run_turns(loop, 2)
    assert outer.result() == "mine"


def test_shields_of_one_future(aio, loop):
    async def main():
        inner = loop.create_future()
        first, second = aio.shield(inner), aio.shield(inner)
        first.cancel()
        inner.set_result(1)
        assert await second == 1
        assert first.cancelled()

    run(loop, main())
