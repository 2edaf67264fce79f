"""loop.py, tasks half: create_future, create_task and its keywords, factories, async generators."""

import asyncio
import contextvars
import sys
import weakref

import pytest

from helpers import collect, run, run_turns

var = contextvars.ContextVar("var", default="unset")

# 3.13.3 began to pass every keyword on, 3.14 settled how.
PASSES_KEYWORDS_ON = sys.version_info >= (3, 14)
LEGACY_FACTORY_CALL = sys.version_info < (3, 13, 3)


async def value_of_var():
    return var.get()


# ------------------------------------------------------------ futures


def test_create_future_is_a_stock_future_of_this_loop(loop):
    future = loop.create_future()
    assert isinstance(future, asyncio.Future)
    assert asyncio.isfuture(future)
    assert future.get_loop() is loop
    assert not future.done()


def test_future_callbacks_run_in_a_later_turn_and_in_order(loop):
    seen = []
    future = loop.create_future()
    future.add_done_callback(lambda _: seen.append(1))
    future.add_done_callback(lambda _: seen.append(2))
    future.set_result(None)
    assert seen == []
    run_turns(loop)
    assert seen == [1, 2]


def test_exception_nobody_retrieved_is_reported(loop, loop_errors):
    future = loop.create_future()
    future.set_exception(ValueError("lost"))
    del future
    collect()
    context = loop_errors.take_one()
    assert "never retrieved" in context["message"]
    assert str(context["exception"]) == "lost"


# ------------------------------------------------------------ create_task


def test_create_task_is_a_stock_task_of_this_loop(loop):
    async def main():
        task = loop.create_task(asyncio.sleep(0, "slept"))
        assert isinstance(task, asyncio.Task)
        assert task.get_loop() is loop
        return await task

    assert run(loop, main()) == "slept"


def test_task_does_not_start_at_once(loop):
    seen = []

    async def coroutine():
        seen.append("started")

    task = loop.create_task(coroutine())
    assert seen == []
    run(loop, task)
    assert seen == ["started"]


def test_tasks_start_in_the_order_they_were_made(loop):
    seen = []

    async def coroutine(number):
        seen.append(number)

    async def main():
        await asyncio.gather(*[loop.create_task(coroutine(number)) for number in range(20)])

    run(loop, main())
    assert seen == list(range(20))


def test_name_of_a_task(loop):
    async def main():
        return asyncio.current_task().get_name()

    assert run(loop, loop.create_task(main(), name="a name")) == "a name"
    assert run(loop, loop.create_task(main())).startswith("Task-")
    assert run(loop, loop.create_task(main(), name=None)).startswith("Task-")


def test_context_of_a_task(loop):
    context = contextvars.copy_context()
    context.run(var.set, "given")
    assert run(loop, loop.create_task(value_of_var(), context=context)) == "given"


def test_task_copies_the_context_without_one_given(loop):
    token = var.set("caller")
    task = loop.create_task(value_of_var())
    var.reset(token)
    assert run(loop, task) == "caller"


@pytest.mark.parametrize("thing", [None, 1, lambda: None], ids=["None", "int", "function"])
def test_task_of_what_is_no_coroutine_is_refused(loop, thing):
    with pytest.raises(TypeError):
        loop.create_task(thing)


def test_unknown_keyword_is_refused(loop):
    coro = value_of_var()
    with pytest.raises(TypeError):
        loop.create_task(coro, no_such_keyword=1)
    coro.close()


def test_tasks_of_a_loop_are_listed(loop):
    async def main():
        task = loop.create_task(asyncio.sleep(0))
        listed = asyncio.all_tasks(), asyncio.current_task()
        await task
        return listed, task

    (everyone, current), task = run(loop, main())
    assert everyone == {current, task}
    assert asyncio.all_tasks(loop) == set()


def test_destroyed_pending_task_is_reported(loop, loop_errors):
    async def waits_forever():
        await loop.create_future()

    task = loop.create_task(waits_forever())
    run_turns(loop)
    del task
    collect()
    context = loop_errors.take_one()
    assert "destroyed but it is pending" in context["message"]
    assert "task" in context


def test_cancelled_task(loop):
    async def main():
        task = loop.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        return task.cancelled()

    assert run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.Task has eager_start since 3.12")
def test_eager_task_factory(loop):
    loop.set_task_factory(asyncio.eager_task_factory)
    seen = []

    async def coroutine():
        seen.append("ran")
        return 1

    async def main():
        task = loop.create_task(coroutine())
        # Without waiting it ran to its end.
        return seen, task.done(), task.result()

    assert run(loop, main()) == (["ran"], True, 1)


@pytest.mark.skipif(not PASSES_KEYWORDS_ON, reason="create_task(eager_start=) is new in 3.14")
def test_eager_start_keyword(loop):
    async def one():
        return 1

    async def main():
        eager = loop.create_task(one(), eager_start=True)
        lazy = loop.create_task(one(), eager_start=False)
        states = eager.done(), lazy.done()
        await lazy
        return states

    assert run(loop, main()) == (True, False)


# ------------------------------------------------------------ task factory


def test_task_factory_is_none_by_default_and_can_be_taken_back(loop):
    assert loop.get_task_factory() is None

    def factory(loop, coro, **kwargs):
        raise AssertionError

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    assert run(loop, asyncio.sleep(0, "no factory")) == "no factory"


@pytest.mark.parametrize("thing", [1, "text", object()], ids=repr)
def test_task_factory_that_cannot_be_called_is_refused(loop, thing):
    with pytest.raises(TypeError, match="callable"):
        loop.set_task_factory(thing)
    assert loop.get_task_factory() is None


def test_task_factory_makes_the_tasks(loop):
    class MyTask(asyncio.Task):
        pass

    calls = []

    def factory(loop, coro, **kwargs):
        calls.append(loop)
        return MyTask(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)

    async def main():
        inner = asyncio.create_task(asyncio.sleep(0))
        await inner
        return type(asyncio.current_task()), type(inner)

    assert run(loop, main()) == (MyTask, MyTask)
    assert calls == [loop, loop]


def test_exception_of_the_task_factory_reaches_the_caller(loop):
    def factory(loop, coro, **kwargs):
        coro.close()
        raise ValueError("no tasks today")

    loop.set_task_factory(factory)
    with pytest.raises(ValueError, match="no tasks today"):
        loop.create_task(value_of_var())


def keywords_for_the_factory(loop, **kwargs):
    """What a custom factory is called with when create_task is called with these."""
    got = []

    def factory(loop, coro, **kwargs):
        got.append(kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    task = loop.create_task(value_of_var(), **kwargs)
    run(loop, task)
    return got[0], task


@pytest.mark.skipif(not LEGACY_FACTORY_CALL, reason="newer Pythons pass all keywords on")
def test_factory_gets_the_context_only_when_there_is_one(loop):
    context = contextvars.copy_context()
    assert keywords_for_the_factory(loop)[0] == {}
    assert keywords_for_the_factory(loop, name="name")[0] == {}
    assert keywords_for_the_factory(loop, context=context)[0] == {"context": context}


@pytest.mark.skipif(not LEGACY_FACTORY_CALL, reason="newer Pythons pass all keywords on")
def test_factory_without_keywords_is_enough(loop):
    loop.set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))
    task = loop.create_task(value_of_var(), name="named")
    run(loop, task)
    assert task.get_name() == "named"


@pytest.mark.skipif(not PASSES_KEYWORDS_ON, reason="3.14 passes exactly what it was given")
def test_factory_gets_every_keyword_and_no_other(loop):
    context = contextvars.copy_context()
    assert keywords_for_the_factory(loop)[0] == {}
    assert keywords_for_the_factory(loop, name="name")[0] == {"name": "name"}
    assert keywords_for_the_factory(loop, context=context)[0] == {"context": context}
    assert keywords_for_the_factory(loop, eager_start=False)[0] == {"eager_start": False}
    everything = {"name": "name", "context": context, "eager_start": False}
    assert keywords_for_the_factory(loop, **everything)[0] == everything


def test_name_reaches_the_task_of_a_factory(loop):
    _, task = keywords_for_the_factory(loop, name="through the factory")
    assert task.get_name() == "through the factory"


def test_context_reaches_the_task_of_a_factory(loop):
    context = contextvars.copy_context()
    context.run(var.set, "through the factory")
    _, task = keywords_for_the_factory(loop, context=context)
    assert task.result() == "through the factory"


# ------------------------------------------------------------ async generators


async def numbers(closed):
    try:
        for number in range(100):
            yield number
    finally:
        closed.append("closed")


def test_generator_dropped_half_way_is_closed_by_the_loop(loop):
    closed = []

    async def main():
        async for number in numbers(closed):
            if number == 2:
                break
        collect()
        for _ in range(5):
            await asyncio.sleep(0)
        return list(closed)

    assert run(loop, main()) == ["closed"]


def test_generator_dropped_in_another_thread_is_closed_by_the_loop(loop):
    closed = []

    async def main():
        generators = [numbers(closed)]
        await anext(generators[0])

        def drop():
            generators.pop()
            collect()

        await loop.run_in_executor(None, drop)
        for _ in range(5):
            await asyncio.sleep(0)
        return list(closed)

    assert run(loop, main()) == ["closed"]


def test_shutdown_asyncgens_closes_those_alive(loop):
    closed = []
    kept = []

    async def main():
        for _ in range(3):
            kept.append(numbers(closed))
            assert await anext(kept[-1]) == 0
        await loop.shutdown_asyncgens()

    run(loop, main())
    assert closed == ["closed"] * 3


def test_shutdown_asyncgens_without_generators(loop):
    run(loop, loop.shutdown_asyncgens())
    run(loop, loop.shutdown_asyncgens())


def test_finished_generators_are_not_kept(loop):
    async def main():
        async def short():
            yield 1

        generator = short()
        ref = weakref.ref(generator)
        async for _ in generator:
            pass
        del generator
        await asyncio.sleep(0)
        collect()
        return ref() is None

    assert run(loop, main())


def test_generator_that_fails_to_close_is_reported(loop, loop_errors):
    async def stubborn():
        try:
            yield 1
        finally:
            raise ValueError("will not close")

    async def main():
        generator = stubborn()
        await anext(generator)
        await loop.shutdown_asyncgens()
        return generator

    generator = run(loop, main())
    context = loop_errors.take_one()
    assert "closing of asynchronous generator" in context["message"]
    assert str(context["exception"]) == "will not close"
    assert context["asyncgen"] is generator


def test_generator_started_after_the_shutdown_warns(loop):
    async def main():
        await loop.shutdown_asyncgens()
        generator = numbers([])
        with pytest.warns(ResourceWarning, match="after loop.shutdown_asyncgens"):
            await anext(generator)
        await generator.aclose()

    run(loop, main())
