"""taskgroups.py: cancellation from outside, and TaskGroup.cancel()."""

import asyncio

import pytest

from helpers import run
from task_helpers import fail, forever, turns

CANCEL = pytest.mark.module_since("3.15", "TaskGroup.cancel() is new")


# ------------------------------------------------------------ from outside


@pytest.mark.parametrize("waits_in", ["block", "exit"])
def test_cancelled_parent_cancels_the_tasks(aio, loop, waits_in):
    children = []

    async def parent():
        async with aio.TaskGroup() as group:
            children.append(group.create_task(forever()))
            if waits_in == "block":
                await forever()

    async def main():
        task = aio.create_task(parent())
        await turns(2)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert task.cancelled()
        assert children[0].cancelled()

    run(loop, main())


def test_cancelled_again_and_again_while_tasks_clean_up(aio, loop):
    async def slow_to_end(release):
        try:
            await forever()
        finally:
            await release

    async def main():
        release = loop.create_future()

        async def parent():
            async with aio.TaskGroup() as group:
                group.create_task(slow_to_end(release))

        task = aio.create_task(parent())
        await turns(3)
        for _ in range(3):
            task.cancel()
            await turns(3)
            assert not task.done()
        release.set_result(None)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main())


@pytest.mark.module_since("3.13", "the cancellation was lost")
def test_cancelled_while_tasks_fail_is_told_at_the_next_await(aio, loop):
    async def fails_when_cancelled():
        try:
            await forever()
        finally:
            raise ZeroDivisionError

    seen = []

    async def parent():
        try:
            async with aio.TaskGroup() as group:
                group.create_task(fails_when_cancelled())
                await forever()
        except ExceptionGroup:
            seen.append(aio.current_task().cancelling())
        await forever()

    async def main():
        task = aio.create_task(parent())
        await turns(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == [1]

    run(loop, main())


@pytest.mark.module_since("3.15", "the outer cancellation was lost")
def test_cancelled_from_outside_while_the_group_is_failing(aio, loop):
    async def slow_to_end(release):
        try:
            await forever()
        except asyncio.CancelledError:
            await release

    async def main():
        release = loop.create_future()

        async def parent():
            async with aio.TaskGroup() as group:
                group.create_task(slow_to_end(release))
                await turns(1)
                group.cancel()
                await forever()

        task = aio.create_task(parent())
        await turns(5)
        task.cancel()  # not the group's
        await turns(2)
        release.set_result(None)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    run(loop, main())


def test_nested_groups_when_the_inner_one_fails(aio, loop):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.TaskGroup() as outer:
                other = outer.create_task(forever())
                async with aio.TaskGroup() as inner:
                    inner.create_task(fail())
                    await forever()
        (group,) = caught.value.exceptions
        assert [type(each) for each in group.exceptions] == [ZeroDivisionError]
        assert other.cancelled()
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


@pytest.mark.module_since("3.13", "one of two cancellations at a time was lost")
def test_nested_groups_that_fail_together(aio, loop):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.TaskGroup() as outer:
                outer.create_task(fail())
                try:
                    async with aio.TaskGroup() as inner:
                        inner.create_task(fail(OSError))
                        await forever()
                except* OSError:
                    pass
                await forever()  # the outer group's cancellation is still to be told
        assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


def test_timeout_around_a_group(aio, loop):
    async def main():
        with pytest.raises(TimeoutError):
            async with aio.timeout(0):
                async with aio.TaskGroup() as group:
                    task = group.create_task(forever())
        assert task.cancelled()
        assert aio.current_task().cancelling() == 0

    run(loop, main())


# ------------------------------------------------------------ TaskGroup.cancel()


@CANCEL
def test_cancel_ends_tasks_and_block_without_an_exception(aio, loop):
    async def main():
        reached = []
        async with aio.TaskGroup() as group:
            task = group.create_task(forever())
            loop.call_soon(group.cancel)
            await forever()
            reached.append(True)
        assert task.cancelled()
        assert not reached
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


@CANCEL
def test_cancel_from_a_task_of_the_group(aio, loop):
    async def main():
        async def stops(group):
            group.cancel()  # the task itself, too: it ends cancelled, whatever it returns

        async with aio.TaskGroup() as group:
            stopper = group.create_task(stops(group))
            other = group.create_task(forever())
        assert stopper.cancelled()
        assert other.cancelled()
        await turns(2)

    run(loop, main())


@CANCEL
@pytest.mark.parametrize("tasks", [0, 1])
def test_cancel_from_the_block_which_then_awaits_nothing(aio, loop, tasks):
    async def main():
        async with aio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(forever())
            group.cancel()
        # Task.uncancel() forgets what was not delivered since 3.13; before, the group sees to it.
        assert aio.current_task().cancelling() == 0
        await turns(2)
        return "went on"

    assert run(loop, main()) == "went on"


@CANCEL
def test_cancel_from_the_block_and_then_from_outside(aio, loop):
    async def parent():
        async with aio.TaskGroup() as group:
            loop.call_soon(me[0].cancel, "outside")
            group.cancel()
        await forever()

    me = []

    async def main():
        me.append(aio.create_task(parent()))
        with pytest.raises(asyncio.CancelledError):
            await me[0]
        assert me[0].cancelled()

    run(loop, main())


@CANCEL
def test_cancel_before_the_block(aio, loop):
    async def main():
        group = aio.TaskGroup()
        group.cancel()
        reached = []
        async with group:
            with pytest.raises(RuntimeError, match="is shutting down"):
                group.create_task(forever())
            await turns(1)
            reached.append(True)
        assert not reached
        await turns(2)

    run(loop, main())


@CANCEL
def test_cancel_twice_and_afterwards(aio, loop):
    async def main():
        async with aio.TaskGroup() as group:
            group.create_task(forever())
            group.cancel()
            group.cancel()
        group.cancel()
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


@CANCEL
def test_cancel_keeps_errors(aio, loop):
    async def fails_when_cancelled():
        try:
            await forever()
        finally:
            raise ZeroDivisionError

    async def main():
        with pytest.raises(ExceptionGroup):
            async with aio.TaskGroup() as group:
                group.create_task(fails_when_cancelled())
                await turns(1)
                group.cancel()
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


@CANCEL
def test_error_of_the_block_after_cancel(aio, loop):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.TaskGroup() as group:
                group.cancel()
                raise ZeroDivisionError
        assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


@CANCEL
def test_task_that_starts_at_once_and_cancels_its_group(aio, loop):
    async def stops(group):
        group.cancel()
        await forever()

    async def main():
        async with aio.TaskGroup() as group:
            task = group.create_task(stops(group), eager_start=True)
        assert task.cancelled()
        await turns(2)

    run(loop, main())


@pytest.mark.module_since("3.14", "create_task() did not pass eager_start on")
def test_task_that_fails_at_once_does_not_cancel_the_block_at_once(aio, loop):
    async def main():
        reached = []
        with pytest.raises(ExceptionGroup):
            async with aio.TaskGroup() as group:
                group.create_task(fail(), eager_start=True)
                reached.append(aio.current_task().cancelling())
                await turns(3)
        assert reached == [0]

    run(loop, main())
