"""tasks.py: wait, as_completed."""

import asyncio
import inspect

import pytest

from helpers import VirtualClock, run, run_turns
from task_helpers import fail, value

# ------------------------------------------------------------ wait


def test_wait_for_all(aio, loop):
    async def main():
        tasks = [aio.create_task(value(1, 3)), aio.create_task(fail()), loop.create_future()]
        loop.call_soon(tasks[2].cancel)
        done, pending = await aio.wait(tasks)
        assert done == set(tasks)
        assert pending == set()
        assert tasks[1].exception() is not None

    run(loop, main())


def test_wait_for_the_first(aio, loop):
    async def main():
        fast, slow = aio.create_task(value(1)), aio.create_task(value(2, 10))
        assert await aio.wait([fast, slow], return_when=aio.FIRST_COMPLETED) == ({fast}, {slow})
        assert await aio.wait({fast, slow}, return_when=aio.ALL_COMPLETED) == ({fast, slow}, set())

    run(loop, main())


def test_wait_for_the_first_exception(aio, loop):
    async def main():
        cancelled, failing = aio.create_task(value(0, 9)), aio.create_task(fail(after=3))
        fine, slow = aio.create_task(value(1)), aio.create_task(value(2, 10))
        cancelled.cancel()
        done, pending = await aio.wait(
            [cancelled, fine, failing, slow], return_when=aio.FIRST_EXCEPTION
        )
        assert (done, pending) == ({cancelled, fine, failing}, {slow})
        assert failing.exception() is not None
        assert await aio.wait([fine, slow], return_when=aio.FIRST_EXCEPTION) == (
            {fine, slow},
            set(),
        )

    run(loop, main())


def test_wait_gives_up_after_the_time(aio, loop):
    clock = loop.time = VirtualClock()

    async def main():
        done, never = aio.create_task(value(1)), loop.create_future()
        waiting = aio.create_task(aio.wait([done, never], timeout=10))
        await value(0, 3)
        assert not waiting.done()
        clock.advance(11)
        assert await waiting == ({done}, {never})
        assert not never.cancelled()
        assert never.remove_done_callback(print) == 0

    run(loop, main())


def test_wait_with_a_timeout_of_zero_looks_once(aio, loop):
    async def main():
        done, never = aio.create_task(value(1)), loop.create_future()
        await done
        assert await aio.wait([done, never], timeout=0) == ({done}, {never})
        assert await aio.wait([done], timeout=0) == ({done}, set())

    run(loop, main())


def test_cancelled_wait_cancels_nothing(aio, loop):
    async def main():
        future = loop.create_future()
        waiting = aio.create_task(aio.wait([future], timeout=1000))
        await aio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not future.done()
        future.set_result(1)
        await aio.sleep(0)

    run(loop, main())


def test_wait_takes_any_iterable_and_counts_a_future_once(aio, loop):
    async def main():
        task = aio.create_task(value(1))
        assert await aio.wait(iter([task, task])) == ({task}, set())

    run(loop, main())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda loop: loop.create_future(), TypeError, "expect a list of futures, not Future"),
        (lambda loop: [], ValueError, "Set of Tasks/Futures is empty"),
    ],
    ids=["future", "nothing"],
)
def test_wait_refuses(aio, loop, make, error, message):
    with pytest.raises(error, match=message):
        run(loop, aio.wait(make(loop)))


@pytest.mark.own_module_only("asyncio's has an assertion there")
def test_wait_refuses_an_iterator_of_nothing(aio, loop):
    with pytest.raises(ValueError, match="Set of Tasks/Futures is empty"):
        run(loop, aio.wait(iter([])))


def test_wait_refuses_coroutines(aio, loop):
    coro = value(1)
    with pytest.raises(TypeError, match="expect a list of futures, not coroutine"):
        run(loop, aio.wait(coro))
    with pytest.raises(TypeError, match="Passing coroutines is forbidden, use tasks explicitly"):
        run(loop, aio.wait([loop.create_future(), coro]))
    coro.close()


def test_wait_refuses_an_unknown_condition(aio, loop):
    with pytest.raises(ValueError, match="Invalid return_when value: never"):
        run(loop, aio.wait([loop.create_future()], return_when="never"))


# ------------------------------------------------------------ as_completed


def test_results_in_the_order_they_are_done(aio, loop):
    async def main():
        slow_first = [value("slow", 9), value("middle", 5), value("fast")]
        return [await each for each in aio.as_completed(slow_first)]

    assert run(loop, main()) == ["fast", "middle", "slow"]


def test_plain_iteration_gives_coroutines(aio, loop):
    async def main():
        for each in aio.as_completed([value(1)]):
            assert inspect.iscoroutine(each)
            assert await each == 1

    run(loop, main())


@pytest.mark.module_since("3.13", "no asynchronous iterator")
def test_asynchronous_iteration_gives_what_was_passed(aio, loop):
    async def main():
        slow, fast = aio.create_task(value("slow", 5)), aio.create_task(value("fast"))
        seen = [each async for each in aio.as_completed([slow, fast])]
        assert seen == [fast, slow]
        async for made in aio.as_completed([value(3)]):
            assert type(made) is asyncio.Task
            assert made.done()
            assert made.result() == 3

    run(loop, main())


@pytest.mark.module_since("3.13", "no iterator but a generator")
def test_ends_like_an_iterator(aio, loop):
    async def main():
        iterator = aio.as_completed([value(1)])
        assert iter(iterator) is iterator
        assert aiter(iterator) is iterator
        assert (await anext(iterator)).result() == 1
        assert next(iterator, "end") == "end"
        assert await anext(iterator, "end") == "end"

    run(loop, main())


def test_nothing_is_completed_at_once(aio, loop):
    async def main():
        return list(aio.as_completed([], timeout=1))

    assert run(loop, main()) == []


def test_what_is_given_twice_comes_once(aio, loop):
    async def main():
        coro, task = value(1), aio.create_task(value(2))
        iterator = aio.as_completed([coro, task, coro, task])
        return sorted([await each for each in iterator])

    assert run(loop, main()) == [1, 2]


@pytest.mark.own_module_only("asyncio's goes through a set")
def test_coroutines_start_in_the_order_given(aio, loop):
    started = []

    async def coroutine(number):
        started.append(number)

    async def main():
        for each in aio.as_completed([coroutine(number) for number in range(50)]):
            await each

    run(loop, main())
    assert started == list(range(50))


def test_exceptions_come_out_of_the_coroutines(aio, loop):
    async def main():
        outcomes = []
        for each in aio.as_completed([fail(), value(1, 3)]):
            try:
                outcomes.append(await each)
            except ZeroDivisionError:
                outcomes.append("failed")
        return outcomes

    assert run(loop, main()) == ["failed", 1]


def test_time_is_over_for_all_that_are_not_done(aio, loop):
    clock = loop.time = VirtualClock()

    async def main():
        never = [loop.create_future(), loop.create_future()]
        outcomes = []
        for each in aio.as_completed([value(1), *never], timeout=10):
            try:
                outcomes.append(await each)
                clock.advance(11)
            except TimeoutError:
                outcomes.append("late")
        assert not any(future.done() for future in never)
        never[0].set_result(None)
        await aio.sleep(0)
        return outcomes

    assert run(loop, main()) == [1, "late", "late"]


@pytest.mark.module_since("3.13", "no asynchronous iterator")
def test_time_is_over_in_asynchronous_iteration(aio, loop):
    clock = loop.time = VirtualClock()

    async def main():
        seen = []
        with pytest.raises(TimeoutError):
            async for task in aio.as_completed([value(1), loop.create_future()], timeout=10):
                seen.append(task.result())
                clock.advance(11)
        return seen

    assert run(loop, main()) == [1]


def test_done_in_time_cancels_the_timer(aio, loop):
    clock = loop.time = VirtualClock()

    async def main():
        for each in aio.as_completed([value(1)], timeout=10):
            await each
        clock.advance(11)
        await value(0, 3)

    run(loop, main())


@pytest.mark.module_since("3.15", "the one that was not got was counted as got")
def test_cancelled_wait_for_one_loses_none(aio, loop):
    async def main():
        first, second = loop.create_future(), loop.create_future()
        iterator = aio.as_completed([first, second])

        async def one():
            return await anext(iterator)

        task = aio.create_task(one())
        await aio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        first.set_result(1)
        second.set_result(2)
        assert [each.result() async for each in iterator] == [1, 2]

    run(loop, main())


@pytest.mark.module_since("3.15", "the one that was not got was counted as got")
def test_news_for_one_that_is_cancelled_goes_to_the_next(aio, loop):
    async def main():
        future, other = loop.create_future(), loop.create_future()
        iterator = aio.as_completed([future, other])
        first, second = aio.create_task(next(iterator)), aio.create_task(next(iterator))
        await aio.sleep(0)
        future.set_result("got")
        await aio.sleep(0)  # the first was told, and is about to run
        first.cancel()
        await aio.wait([first])
        assert first.cancelled() is True
        assert await second == "got"
        other.set_result("other")
        assert await next(iterator) == "other"

    run(loop, main())


@pytest.mark.module_since("3.13", "a generator, which runs later")
@pytest.mark.parametrize("make", [lambda loop: loop.create_future(), lambda loop: value(1)])
def test_as_completed_refuses_one_awaitable(aio, loop, make):
    thing = make(loop)
    with pytest.raises(TypeError, match="expects an iterable of awaitables, not"):
        aio.as_completed(thing)
    if inspect.iscoroutine(thing):
        thing.close()


def test_as_completed_refuses_what_is_no_awaitable(aio, loop):
    async def main():
        with pytest.raises(TypeError, match="is required"):
            list(aio.as_completed([1]))

    run(loop, main())


def test_several_wait_for_the_next_at_a_time(aio, loop):
    async def main():
        futures = [loop.create_future() for _ in range(3)]
        waiting = [aio.create_task(each) for each in aio.as_completed(futures)]
        await aio.sleep(0)
        for number in (2, 0, 1):
            futures[number].set_result(number)
        return await aio.gather(*waiting)

    assert run(loop, main()) == [2, 0, 1]
    run_turns(loop)
