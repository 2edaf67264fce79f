"""timeouts.py: timeout and timeout_at."""

import asyncio

import pytest

from helpers import VirtualClock, run, run_turns
from task_helpers import turns


@pytest.fixture
def clock(loop):
    loop.time = VirtualClock()
    return loop.time


def test_block_that_is_in_time(aio, loop, clock):
    async def main():
        async with aio.timeout(10) as cut:
            assert isinstance(cut, aio.Timeout)
            assert cut.when() == clock.now + 10
            await turns(2)
        assert not cut.expired()
        clock.advance(20)
        await turns(3)  # nothing comes after it

    run(loop, main())


def test_block_that_is_late(aio, loop, clock):
    async def main():
        with pytest.raises(TimeoutError) as caught:
            async with aio.timeout(10) as cut:
                clock.advance(11)
                await loop.create_future()
        assert cut.expired()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


def test_timeout_at_takes_a_time_of_the_loop(aio, loop, clock):
    async def main():
        with pytest.raises(TimeoutError):
            async with aio.timeout_at(clock.now + 5) as cut:
                assert cut.when() == clock.now + 5
                clock.advance(5)
                await loop.create_future()

    run(loop, main())


@pytest.mark.parametrize("delay", [0, -1])
def test_time_that_is_over_lets_the_block_run_to_its_first_await(aio, loop, clock, delay):
    async def main():
        reached = False
        with pytest.raises(TimeoutError):
            async with aio.timeout(delay):
                reached = True
                await loop.create_future()
        return reached

    assert run(loop, main())


def test_block_without_an_await_is_never_late(aio, loop, clock):
    async def main():
        async with aio.timeout(0) as cut:
            clock.advance(10)
        assert not cut.expired()
        await turns(2)

    run(loop, main())


def test_none_never_expires(aio, loop, clock):
    async def main():
        for cut in aio.timeout(None), aio.timeout_at(None):
            async with cut:
                assert cut.when() is None
                clock.advance(1e6)
                await turns(2)
            assert not cut.expired()

    run(loop, main())


@pytest.mark.parametrize(("inner", "outer"), [(1, 2), (2, 1), (1, 1)])
def test_nested_timeouts_that_expire_together(aio, loop, clock, inner, outer):
    async def main():
        raised = []
        try:
            async with aio.timeout(outer) as out:
                try:
                    async with aio.timeout(inner) as cut:
                        clock.advance(3)
                        await loop.create_future()
                except TimeoutError:
                    raised.append("inner")
                    raise
        except TimeoutError:
            raised.append("outer")
        assert (cut.expired(), out.expired()) == (True, True)
        assert aio.current_task().cancelling() == 0
        await turns(2)
        return raised

    # Inside, there is one more cancellation than the inner one's own.
    assert run(loop, main()) == ["outer"]


def test_inner_timeout_leaves_the_outer_one_alone(aio, loop, clock):
    async def main():
        async with aio.timeout(100) as out:
            with pytest.raises(TimeoutError):
                async with aio.timeout(1):
                    clock.advance(2)
                    await loop.create_future()
            await turns(2)
        assert not out.expired()

    run(loop, main())


@pytest.mark.parametrize("first", ["timeout", "cancel"])
def test_cancelled_from_outside_in_the_same_turn(aio, loop, clock, first):
    async def blocked():
        async with aio.timeout(10):
            await loop.create_future()

    async def main():
        task = aio.create_task(blocked())
        await turns(2)
        clock.advance(11)
        if first == "cancel":
            task.cancel()
        else:
            loop.call_at(clock.now, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(loop, main())


def test_block_that_swallows_the_cancellation(aio, loop, clock):
    async def main():
        async with aio.timeout(1) as cut:
            clock.advance(2)
            with pytest.raises(asyncio.CancelledError):
                await loop.create_future()
        assert cut.expired()
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


@pytest.mark.module_since("3.13", "said nothing of the timeout")
def test_other_exception_raised_because_of_it_names_it_as_its_context(aio, loop, clock):
    async def main():
        with pytest.raises(ZeroDivisionError) as caught:
            async with aio.timeout(1):
                clock.advance(2)
                try:
                    await loop.create_future()
                finally:
                    raise ZeroDivisionError
        context = caught.value.__context__
        assert type(context) is TimeoutError
        assert isinstance(context.__cause__, asyncio.CancelledError)

    run(loop, main())


@pytest.mark.module_since("3.13", "said nothing of the timeout")
def test_exception_group_raised_because_of_it(aio, loop, clock):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.timeout(1):
                clock.advance(2)
                try:
                    await loop.create_future()
                except asyncio.CancelledError:
                    try:
                        raise ZeroDivisionError
                    except ZeroDivisionError as exc:
                        error = exc
                raise ExceptionGroup("group", [error])
        assert type(caught.value.exceptions[0].__context__) is TimeoutError

    run(loop, main())


def test_exception_in_time_comes_out_as_it_is(aio, loop, clock):
    async def main():
        with pytest.raises(ZeroDivisionError) as caught:
            async with aio.timeout(1) as cut:
                raise ZeroDivisionError
        assert caught.value.__context__ is None
        assert not cut.expired()

    run(loop, main())


# ------------------------------------------------------------ reschedule


def test_rescheduled_later_and_earlier(aio, loop, clock):
    async def main():
        with pytest.raises(TimeoutError):
            async with aio.timeout(1) as cut:
                cut.reschedule(clock.now + 10)
                clock.advance(5)
                await turns(3)
                assert not cut.expired()
                cut.reschedule(None)
                assert cut.when() is None
                clock.advance(100)
                await turns(3)
                cut.reschedule(clock.now - 1)
                await loop.create_future()

    run(loop, main())


def test_reschedule_only_inside_of_the_block(aio, loop, clock):
    async def main():
        cut = aio.timeout(1)
        with pytest.raises(RuntimeError, match="Timeout has not been entered"):
            cut.reschedule(2)
        async with cut:
            pass
        with pytest.raises(RuntimeError, match="Cannot change state of finished Timeout"):
            cut.reschedule(2)
        late = aio.timeout(0)
        with pytest.raises(TimeoutError):
            async with late:
                try:
                    await loop.create_future()
                finally:
                    assert late.expired()
                    with pytest.raises(RuntimeError, match="state of expiring Timeout"):
                        late.reschedule(2)
        with pytest.raises(RuntimeError, match="Cannot change state of expired Timeout"):
            late.reschedule(2)

    run(loop, main())


@pytest.mark.module_since("3.12.2", "an assertion or nothing")
def test_timeout_is_entered_once(aio, loop):
    async def main():
        cut = aio.timeout(1)
        async with cut:
            with pytest.raises(RuntimeError, match="Timeout has already been entered"):
                await cut.__aenter__()
        with pytest.raises(RuntimeError, match="Timeout has already been entered"):
            await cut.__aenter__()

    run(loop, main())


def test_timeout_needs_a_task(aio, loop):
    entering = aio.timeout_at(None).__aenter__()
    errors = []

    def callback():
        try:
            entering.send(None)
        except RuntimeError as exc:
            errors.append(str(exc))

    loop.call_soon(callback)
    run_turns(loop)
    assert errors == ["Timeout should be used inside a task"]


def test_timeout_needs_a_running_loop(aio):
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.timeout(1)


def test_repr(aio, loop, clock):
    async def main():
        cut = aio.timeout_at(clock.now + 1.23456)
        assert repr(cut) == "<Timeout [created]>"
        async with cut:
            assert repr(cut) == "<Timeout [active] when=1001.235>"
            cut.reschedule(None)
            assert repr(cut) == "<Timeout [active] when=None>"
        assert repr(cut) == "<Timeout [finished]>"
        late = aio.timeout(0)
        with pytest.raises(TimeoutError):
            async with late:
                try:
                    await loop.create_future()
                finally:
                    assert repr(late) == "<Timeout [expiring]>"
        assert repr(late) == "<Timeout [expired]>"

    run(loop, main())


@pytest.mark.veloop_only("nested runs are veloop's")
@pytest.mark.module_since("3.13", "Task.uncancel() left a cancellation to be delivered")
def test_expiring_while_a_nested_loop_runs_cancels_nothing_afterwards(aio, loop, clock):
    loop.set_nesting(True)

    async def main():
        async with aio.timeout(1) as cut:
            clock.advance(2)
            loop.run_until_complete(turns(3))
        assert cut.expired()
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())
