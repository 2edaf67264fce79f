"""Tasks that start at once, on every Python: eager_start, and the factories that ask for it."""

import asyncio
import contextvars
import sys

import pytest

from helpers import collect, run

var = contextvars.ContextVar("var", default="unset")

pytestmark = pytest.mark.module_since("3.14", "create_task() passes eager_start on")


def test_task_that_need_not_wait_is_done_at_once(aio, loop):
    async def coroutine():
        return 5

    async def main():
        task = aio.create_task(coroutine(), eager_start=True)
        assert type(task) is asyncio.Task
        assert task.done()
        return task.result()

    assert run(loop, main()) == 5


def test_task_starts_at_once_and_goes_on_later(aio, loop):
    seen = []

    async def coroutine():
        seen.append("started")
        await aio.sleep(0)
        seen.append("went on")
        return 6

    async def main():
        task = aio.create_task(coroutine(), eager_start=True)
        assert seen == ["started"]
        assert task in aio.all_tasks()
        assert await task == 6
        assert seen == ["started", "went on"]

    run(loop, main())


def test_eager_start_of_false_and_none_start_later(aio, loop):
    async def main():
        for falsy in False, None:
            task = aio.create_task(aio.sleep(0), eager_start=falsy)
            assert not task.done()
            await task

    run(loop, main())


def test_task_is_the_current_one_while_it_starts(aio, loop):
    async def coroutine():
        return aio.current_task()

    async def main():
        me = aio.current_task()
        task = aio.create_task(coroutine(), eager_start=True)
        assert aio.current_task() is me
        assert task.result() is task

    run(loop, main())


def test_name_and_context_are_there_at_the_start(aio, loop):
    context = contextvars.copy_context()
    context.run(var.set, "given")

    async def coroutine():
        return aio.current_task().get_name(), var.get()

    async def main():
        task = aio.create_task(coroutine(), name="eager", context=context, eager_start=True)
        return task.result()

    assert run(loop, main()) == ("eager", "given")


def test_exception_stays_in_the_task(aio, loop):
    async def fail():
        raise ZeroDivisionError

    async def main():
        me = aio.current_task()
        task = aio.create_task(fail(), eager_start=True)
        assert aio.current_task() is me
        assert isinstance(task.exception(), ZeroDivisionError)

    run(loop, main())


def test_system_exit_comes_out_at_once(aio, loop, loop_errors):
    async def leave():
        raise SystemExit(3)

    async def main():
        me = aio.current_task()
        with pytest.raises(SystemExit):
            aio.create_task(leave(), eager_start=True)
        assert aio.current_task() is me

    run(loop, main())
    collect()
    assert isinstance(loop_errors.take_one()["exception"], SystemExit)  # nobody has the task


def test_eager_task_starts_an_eager_task(aio, loop):
    async def inner():
        return aio.current_task().get_name()

    async def outer():
        task = aio.create_task(inner(), name="inner", eager_start=True)
        return task.result(), aio.current_task().get_name()

    async def main():
        return aio.create_task(outer(), name="outer", eager_start=True).result()

    assert run(loop, main()) == ("inner", "outer")


def test_cancelled_eager_task(aio, loop):
    async def main():
        task = aio.create_task(aio.sleep(3600), eager_start=True)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task

    run(loop, main())


def test_what_is_no_coroutine_is_refused(aio, loop):
    async def main():
        with pytest.raises(TypeError, match="a coroutine was expected"):
            aio.create_task(1, eager_start=True)
        await aio.sleep(0)  # the loop schedules as before

    run(loop, main())


def test_loop_with_a_call_soon_of_its_own_keeps_it(aio, loop):
    calls = []

    def call_soon(*args, **kwargs):
        calls.append(args)
        return type(loop).call_soon(loop, *args, **kwargs)

    async def main():
        aio.create_task(aio.sleep(0), eager_start=True)
        assert loop.call_soon is call_soon
        await aio.sleep(0)

    loop.call_soon = call_soon
    run(loop, main())
    del loop.call_soon
    assert calls


def test_group_starts_tasks_at_once(aio, loop):
    async def coroutine():
        return aio.current_task().get_name()

    async def main():
        async with aio.TaskGroup() as group:
            task = group.create_task(coroutine(), name="eager", eager_start=True)
            assert task.result() == "eager"

    run(loop, main())


def test_factory_that_knows_no_eager_start_refuses_it(aio, loop):
    def factory(loop, coro, *, context=None, name=None):
        return asyncio.Task(coro, loop=loop, context=context)

    async def main():
        loop.set_task_factory(factory)
        coro = aio.sleep(0)
        with pytest.raises(TypeError, match="eager_start"):
            aio.create_task(coro, eager_start=True)
        await coro

    run(loop, main())


# ------------------------------------------------------------ factories


def test_factories_are_asyncios_where_it_has_them(aio):
    if sys.version_info >= (3, 12):
        # anyio tells eager factories by their code.
        assert aio.eager_task_factory is asyncio.eager_task_factory
        assert aio.create_eager_task_factory is asyncio.create_eager_task_factory
    else:
        assert aio.eager_task_factory.__closure__[0].cell_contents is not None


def test_eager_task_factory(aio, loop):
    async def coroutine():
        return aio.current_task().get_name()

    async def main():
        loop.set_task_factory(aio.eager_task_factory)
        task = aio.create_task(coroutine())
        assert task.done()
        lazy = aio.create_task(coroutine(), name="lazy", eager_start=False)
        assert not lazy.done()
        assert await lazy == "lazy"
        eager = aio.create_task(coroutine(), name="eager", eager_start=True)
        assert eager.result() == "eager"

    run(loop, main())


def test_factory_of_ones_own_constructor(aio, loop):
    calls = []

    def constructor(coro, *, loop, eager_start, **kwargs):
        calls.append((eager_start, {key: each for key, each in kwargs.items() if each}))
        return asyncio.Task(coro, loop=loop)

    async def main():
        loop.set_task_factory(aio.create_eager_task_factory(constructor))
        await aio.create_task(aio.sleep(0))
        await aio.create_task(aio.sleep(0), eager_start=False)

    run(loop, main())
    assert calls == [(True, {}), (False, {})]


@pytest.mark.veloop_only("asyncio's loop names a task of a factory after it started")
def test_task_of_an_eager_factory_has_its_name_from_the_start(aio, loop):
    async def coroutine():
        return aio.current_task().get_name()

    async def main():
        loop.set_task_factory(aio.eager_task_factory)
        return loop.create_task(coroutine(), name="eager").result()

    assert run(loop, main()) == "eager"


def test_gather_and_wait_of_tasks_that_are_done_at_once(aio, loop):
    async def value(result):
        return result

    async def main():
        loop.set_task_factory(aio.eager_task_factory)
        gathered = aio.gather(value(1), value(2))
        assert gathered.done()
        assert await gathered == [1, 2]
        done, pending = await aio.wait([aio.create_task(value(3)), aio.create_task(value(4))])
        assert {task.result() for task in done} == {3, 4}
        assert not pending
        assert sorted([await each for each in aio.as_completed([value(5), value(6)])]) == [5, 6]
        shielded = aio.shield(value(7))
        assert shielded.done()
        return await shielded

    assert run(loop, main()) == 7


def test_gather_of_a_task_that_failed_at_once(aio, loop):
    async def fail():
        raise ZeroDivisionError

    async def main():
        loop.set_task_factory(aio.eager_task_factory)
        with pytest.raises(ZeroDivisionError):
            await aio.gather(fail(), aio.sleep(0))

    run(loop, main())
