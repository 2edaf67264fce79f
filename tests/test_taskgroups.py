"""taskgroups.py: tasks of a group, their errors, what create_task() refuses."""

import asyncio
import contextvars
import gc
import inspect
import weakref

import pytest

from helpers import PYPY, run
from task_helpers import fail, forever, turns

var = contextvars.ContextVar("var", default="unset")


def test_block_ends_when_its_tasks_have(aio, loop):
    async def main():
        async with aio.TaskGroup() as group:
            slow = group.create_task(turns(9, "slow"))
            fast = group.create_task(turns(0, "fast"))
        assert slow.done()
        assert fast.done()
        return slow.result(), fast.result()

    assert run(loop, main()) == ("slow", "fast")


def test_group_without_tasks(aio, loop):
    async def main():
        async with aio.TaskGroup() as group:
            assert isinstance(group, aio.TaskGroup)
        return True

    assert run(loop, main())


def test_keywords_go_to_the_task(aio, loop):
    context = contextvars.copy_context()
    context.run(var.set, "given")

    async def read():
        return asyncio.current_task().get_name(), var.get()

    async def main():
        async with aio.TaskGroup() as group:
            task = group.create_task(read(), name="name", context=context)
        return task.result()

    assert run(loop, main()) == ("name", "given")


def test_task_may_start_others_while_the_block_waits(aio, loop):
    seen = []

    async def nested(group, depth):
        seen.append(depth)
        if depth:
            group.create_task(nested(group, depth - 1))

    async def main():
        async with aio.TaskGroup() as group:
            group.create_task(nested(group, 3))

    run(loop, main())
    assert seen == [3, 2, 1, 0]


# ------------------------------------------------------------ errors


def test_first_error_cancels_the_other_tasks_and_the_block(aio, loop):
    async def main():
        reached = []
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.TaskGroup() as group:
                other = group.create_task(forever())
                group.create_task(fail(after=1))
                await forever()
                reached.append(True)
        assert str(caught.value) == "unhandled errors in a TaskGroup (1 sub-exception)"
        assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
        assert caught.value.__suppress_context__
        assert other.cancelled()
        assert not reached
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


@pytest.mark.module_since("3.13", "the group's own cancellation stayed in the count")
def test_error_while_the_block_waits_at_its_end(aio, loop):
    async def main():
        with pytest.raises(ExceptionGroup):
            async with aio.TaskGroup() as group:
                group.create_task(forever())
                group.create_task(fail(after=2))
        assert aio.current_task().cancelling() == 0
        await turns(2)

    run(loop, main())


def test_all_errors_come_out_together(aio, loop):
    async def fails_when_cancelled():
        try:
            await forever()
        finally:
            raise ValueError("cleaning up")

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.TaskGroup() as group:
                group.create_task(fails_when_cancelled())
                group.create_task(fail(after=1))
                group.create_task(fail(OSError, after=1))
        return sorted(type(each).__name__ for each in caught.value.exceptions)

    assert run(loop, main()) == ["OSError", "ValueError", "ZeroDivisionError"]


def test_error_of_the_block_cancels_the_tasks(aio, loop):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.TaskGroup() as group:
                task = group.create_task(forever())
                await turns(1)
                raise KeyError("the block")
        assert task.cancelled()
        assert [type(each) for each in caught.value.exceptions] == [KeyError]

    run(loop, main())


def test_error_of_the_block_while_tasks_fail(aio, loop):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.TaskGroup() as group:
                group.create_task(fail())
                try:
                    await forever()
                finally:
                    raise KeyError("the block")
        assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError, KeyError]

    run(loop, main())


def test_cancelled_tasks_are_no_error(aio, loop):
    async def main():
        async with aio.TaskGroup() as group:
            task = group.create_task(forever())
            await turns(1)
            task.cancel()
        assert task.cancelled()

    run(loop, main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_system_exit_of_the_block_comes_out_as_it_is(aio, loop, error):
    async def main():
        with pytest.raises(error):
            async with aio.TaskGroup() as group:
                task = group.create_task(forever())
                await turns(1)
                raise error
        assert task.cancelled()

    run(loop, main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_system_exit_of_a_task_comes_out_as_it_is(aio, loop, error):
    outcome = []

    async def main():
        try:
            async with aio.TaskGroup() as group:
                group.create_task(forever())
                group.create_task(fail(error))
                await forever()
        except BaseException as exc:
            outcome.append(type(exc))

    task = loop.create_task(main())
    with pytest.raises(error):
        run(loop, task)  # it stops the loop first
    run(loop, task)
    assert outcome == [error]


def test_base_exceptions_come_out_in_a_base_group(aio, loop):
    class Odd(BaseException):
        pass

    async def main():
        with pytest.raises(BaseExceptionGroup) as caught:
            async with aio.TaskGroup() as group:
                group.create_task(fail(Odd))
        assert type(caught.value) is BaseExceptionGroup

    run(loop, main())


@pytest.mark.module_since("3.15", "GeneratorExit came out in a group")
def test_closing_an_asynchronous_generator_in_the_block(aio, loop):
    async def generator():
        async with aio.TaskGroup() as group:
            group.create_task(forever())
            yield 1

    async def main():
        numbers = generator()
        assert await anext(numbers) == 1
        await numbers.aclose()

    run(loop, main())


def test_error_after_the_parent_ended_reaches_the_exception_handler(aio, loop, loop_errors):
    async def main(group):
        await group.__aenter__()
        return group.create_task(fail(after=3))

    task = run(loop, main(aio.TaskGroup()))
    run(loop, aio.wait([task]))
    run(loop, turns(2))
    context = loop_errors.take_one()
    assert "has errored out but its parent task" in context["message"]
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["task"] is task


# ------------------------------------------------------------ what is refused


def test_group_is_entered_once(aio, loop):
    async def main():
        group = aio.TaskGroup()
        async with group:
            with pytest.raises(RuntimeError, match="has already been entered"):
                await group.__aenter__()

    run(loop, main())


@pytest.mark.module_since("3.13", "the coroutine was not closed")
def test_create_task_before_during_and_after(aio, loop):
    def refused(group, why):
        coro = forever()
        with pytest.raises(RuntimeError, match=why):
            group.create_task(coro)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

    async def late(group):
        try:
            await forever()
        finally:
            refused(group, "is shutting down")

    async def main():
        group = aio.TaskGroup()
        refused(group, "has not been entered")
        with pytest.raises(ExceptionGroup):
            async with group:
                group.create_task(late(group))
                group.create_task(fail(after=1))
        refused(group, "is finished")
        group = aio.TaskGroup()
        async with group:
            group.create_task(turns(1))
        refused(group, "is finished")

    run(loop, main())


def test_group_needs_a_task(aio, loop):
    entering = aio.TaskGroup().__aenter__()
    errors = []

    def callback():
        try:
            entering.send(None)
        except RuntimeError as exc:
            errors.append(str(exc))
        loop.stop()

    loop.call_soon(callback)
    loop.run_forever()
    assert errors == ["TaskGroup <TaskGroup> cannot determine the parent task"]


def test_repr(aio, loop):
    async def main():
        group = aio.TaskGroup()
        assert repr(group) == "<TaskGroup>"
        with pytest.raises(ExceptionGroup):
            async with group:
                assert repr(group) == "<TaskGroup entered>"
                group.create_task(forever())
                group.create_task(fail())
                assert repr(group) == "<TaskGroup tasks=2 entered>"
                try:
                    await forever()
                finally:
                    assert repr(group) == "<TaskGroup tasks=1 errors=1 cancelling>"

    run(loop, main())


# ------------------------------------------------------------ cycles


@pytest.mark.skipif(PYPY, reason="PyPy has no reference counts: a cycle costs nothing there")
@pytest.mark.module_since("3.14", "exceptions were kept alive by their own tracebacks")
@pytest.mark.parametrize("where", ["task", "block", "cancelled"])
def test_errors_are_in_no_reference_cycle(aio, loop, where):
    class Flag(Exception):
        pass

    class FlagCancelled(asyncio.CancelledError):
        pass

    kind = FlagCancelled if where == "cancelled" else Flag

    async def block():
        async with aio.TaskGroup() as group:
            if where == "task":
                group.create_task(fail(kind))
                await forever()
            raise kind

    async def main():
        try:
            await block()
        except asyncio.CancelledError as exc:
            return weakref.ref(exc)
        except ExceptionGroup as group:
            return weakref.ref(group.exceptions[0])

    gc.collect()
    gc.disable()
    try:
        assert run(loop, main())() is None
    finally:
        gc.enable()
