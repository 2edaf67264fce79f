"""graph.py: who waits for whom. From Python 3.14 on both modules are the same."""

import asyncio
import io
import re
import sys

import pytest

from helpers import import_veloop, run

pytestmark = pytest.mark.module_since("3.14", "no call graphs")

before_314 = pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio's own")


def names(graph):
    """(name, functions, who waits) of a graph, with no addresses in it."""
    name = graph.future.get_name() if isinstance(graph.future, asyncio.Task) else "future"
    frames = [entry.frame.f_code.co_name for entry in graph.call_stack]
    return name, frames, sorted(map(names, graph.awaited_by))


def named(coro, name):
    return asyncio.get_running_loop().create_task(coro, name=name)


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


async def wait_for(future):
    return await future


async def outer(future):
    await wait_for(future)


def main_of(loop, function):
    """Run the coroutine function as a task with the name "main"."""

    async def main():
        return await named(function(), "main")

    return run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio has none")
def test_all_is_asyncios():
    veloop = import_veloop()
    for name in veloop.graph.__all__:
        assert getattr(veloop, name) is getattr(asyncio, name)


# ------------------------------------------------------------ which future


def test_current_task(aio, loop):
    async def main():
        return aio.capture_call_graph()

    async def outermost():
        return await main()

    graph = main_of(loop, outermost)
    assert type(graph) is aio.FutureCallGraph
    assert all(type(entry) is aio.FrameCallGraphEntry for entry in graph.call_stack)
    name, frames, waiters = names(graph)
    assert (name, frames[-2:]) == ("main", ["main", "outermost"])
    assert len(waiters) == 1


def test_current_task_given_is_the_running_one(aio, loop):
    async def main():
        return aio.capture_call_graph(asyncio.current_task())

    assert names(main_of(loop, main))[1] == ["main"]


def test_functions_between_are_in_the_stack(aio, loop):
    def middle():
        return list(generator())

    def generator():
        yield aio.capture_call_graph()

    async def main():
        return middle()[0]

    assert names(main_of(loop, main))[1] == ["generator", "middle", "main"]


def test_asynchronous_generator_is_in_the_stack(aio, loop):
    async def generator():
        yield aio.capture_call_graph(), aio.format_call_graph()

    async def main():
        async for graph, text in generator():
            return graph, text

    graph, text = main_of(loop, main)
    assert names(graph)[1] == ["generator", "main"]
    assert ", in async generator test_asynchronous_generator_is_in" in text


def test_depth_leaves_out_callers(aio, loop):
    def helper(depth):
        return aio.capture_call_graph(depth=depth)

    async def main():
        return names(helper(1))[1], names(helper(2))[1]

    assert main_of(loop, main) == (["helper", "main"], ["main"])


def test_nothing_outside_of_a_task(aio, loop):
    graphs = []
    loop.call_soon(lambda: graphs.append((aio.capture_call_graph(), aio.format_call_graph())))
    run(loop, turns())
    assert graphs == [(None, "")]


def test_no_future_and_no_loop(aio):
    with pytest.raises(RuntimeError, match="outside of a running event loop and no"):
        aio.capture_call_graph()


def test_what_is_no_future_is_refused(aio):
    with pytest.raises(TypeError, match="42 object does not appear to be compatible with asyncio"):
        aio.capture_call_graph(42)


def test_future_without_a_running_loop(aio, loop):
    future = loop.create_future()
    assert names(aio.capture_call_graph(future)) == ("future", [], [])


# ------------------------------------------------------------ stacks of others


@pytest.mark.parametrize(
    ("limit", "running", "waiting"),
    [
        (None, ["helper", "inner", "main"], ["wait_for", "outer"]),
        (0, [], []),
        (1, ["main"], ["outer"]),
        (2, ["inner", "main"], ["wait_for", "outer"]),
        (-1, ["helper"], ["wait_for"]),
        (-9, ["helper", "inner", "main"], ["wait_for", "outer"]),
    ],
)
def test_limit(aio, loop, limit, running, waiting):
    def helper():
        return names(aio.capture_call_graph(limit=limit))[1]

    async def inner():
        return helper()

    async def main():
        future = loop.create_future()
        task = named(outer(future), "task")
        await turns()
        graphs = await inner(), names(aio.capture_call_graph(task, limit=limit))[1]
        future.set_result(None)
        await task
        return graphs

    assert main_of(loop, main) == (running, waiting)


def test_task_that_has_not_started(aio, loop):
    async def main():
        task = named(turns(), "new")
        graph = names(aio.capture_call_graph(task))
        await task
        return graph

    assert main_of(loop, main) == ("new", ["turns"], [])


@pytest.mark.skipif(sys.version_info[:2] == (3, 14), reason="3.14 has an entry without a frame")
def test_task_that_is_done(aio, loop):
    async def main():
        task = named(turns(), "done")
        await task
        return names(aio.capture_call_graph(task)), aio.format_call_graph(task)

    graph, text = main_of(loop, main)
    assert graph == ("done", [], [])
    assert re.fullmatch(r"\* Task\(name='done', id=0x[0-9a-f]+\)", text)


# ------------------------------------------------------------ who waits


def waiters_of(loop, aio, tie, child_name="child"):
    """The graph of a task with the name "child" while `tie(task)` runs in a task "parent"."""

    async def main():
        future = loop.create_future()
        child = named(outer(future), child_name)
        parent = named(tie(child), "parent")
        await turns(5)
        graph = names(aio.capture_call_graph(child))
        future.set_result(None)
        await parent
        after = aio.capture_call_graph(child).awaited_by
        return graph, after

    graph, after = main_of(loop, main)
    assert after == ()
    assert graph[:2] == (child_name, ["wait_for", "outer"])
    return [(name, frames[-1]) for name, frames, _ in graph[2]]


def test_waits_directly(aio, loop):
    assert waiters_of(loop, aio, wait_for) == [("parent", "wait_for")]


@pytest.mark.parametrize("module", ["own", "asyncio"])
@pytest.mark.parametrize("how", ["gather", "shield", "wait"])
def test_waits_behind(aio, loop, module, how):
    module = aio if module == "own" else asyncio

    async def tie(child):
        await getattr(module, how)([child] if how == "wait" else child)

    assert waiters_of(loop, aio, tie) == [("parent", "tie")]


@pytest.mark.parametrize("timeout", [None, 100])
def test_waits_with_a_timeout(aio, loop, timeout):
    async def tie(child):
        await aio.wait_for(child, timeout)

    assert waiters_of(loop, aio, tie) == [("parent", "tie")]


@pytest.mark.parametrize("module", ["own", "asyncio"])
@pytest.mark.parametrize("where", ["at the end", "in the body"])
def test_waits_in_a_task_group(aio, loop, module, where):
    module = aio if module == "own" else asyncio

    async def main():
        future = loop.create_future()

        async def child():
            await future

        async def parent():
            async with module.TaskGroup() as group:
                group.create_task(child(), name="child")
                if where == "in the body":
                    await future

        task = named(parent(), "parent")
        await turns(5)
        (child_task,) = (t for t in asyncio.all_tasks() if t.get_name() == "child")
        graph = names(aio.capture_call_graph(child_task))
        future.set_result(None)
        await task
        return graph

    name, frames, waiters = main_of(loop, main)
    assert (name, frames) == ("child", ["child"])
    assert [(name, frames[-1]) for name, frames, _ in waiters] == [("parent", "parent")]


@before_314
@pytest.mark.parametrize("slots", [True, False])
def test_waits_behind_an_object_of_asyncios(loop, slots):
    """Whatever way asyncio's and our functions keep the future that they will end."""
    aio = import_veloop()

    class WithSlots:
        __slots__ = ("end", "unset")
        __module__ = "asyncio.some_area"

        def on_done(self, future):
            self.end.set_result(None)

        on_done.__module__ = __module__

    class WithDict(WithSlots):
        pass

    async def tie(child):
        owner = WithSlots() if slots else WithDict()
        owner.end = loop.create_future()
        child.add_done_callback(owner.on_done)
        await owner.end

    assert waiters_of(loop, aio, tie) == [("parent", "tie")]


def test_many_wait_for_a_future(aio, loop):
    async def main():
        future = loop.create_future()
        tasks = [named(outer(future), f"task {n}") for n in range(3)]
        await turns()
        graph = names(aio.capture_call_graph(future))
        future.set_result(None)
        await asyncio.gather(*tasks)
        return graph

    name, frames, waiters = main_of(loop, main)
    assert (name, frames) == ("future", [])
    assert waiters == [(f"task {n}", ["wait_for", "outer"], []) for n in range(3)]


def test_noted_waiter(aio, loop):
    async def main():
        future, waiter = loop.create_future(), named(turns(5), "waiter")
        aio.future_add_to_awaited_by(future, waiter)
        graphs = [names(aio.capture_call_graph(future))]
        aio.future_discard_from_awaited_by(future, waiter)
        graphs.append(names(aio.capture_call_graph(future)))
        await waiter
        return graphs

    assert main_of(loop, main) == [
        ("future", [], [("waiter", ["turns"], [])]),
        ("future", [], []),
    ]


def test_callbacks_of_others_are_no_waiters(aio, loop):
    async def main():
        future, other = loop.create_future(), loop.create_future()
        task = named(wait_for(other), "waits for the other")
        await turns()
        future.add_done_callback(lambda _: other.done())
        future.add_done_callback(task.remove_done_callback)
        graph = names(aio.capture_call_graph(future))
        other.set_result(None)
        await task
        return graph

    assert main_of(loop, main) == ("future", [], [])


@pytest.mark.own_module_only("asyncio's recursion finds no end")
def test_tasks_that_wait_for_each_other(aio, loop):
    async def main():
        tasks = []
        tasks.append(named(wait_for_other(tasks, 1), "one"))
        tasks.append(named(wait_for_other(tasks, 0), "other"))
        await turns()
        graph = names(aio.capture_call_graph(tasks[0]))
        tasks[0].cancel()
        await asyncio.wait(tasks)
        return graph

    async def wait_for_other(tasks, index):
        await asyncio.wait([tasks[index]])

    if sys.version_info >= (3, 14):
        pytest.skip("asyncio's own")
    name, _, waiters = main_of(loop, main)
    assert (name, waiters[0][0], waiters[0][2]) == ("one", "other", [])


# ------------------------------------------------------------ text

EXPECTED = """\
\\* Task\\(name='child', id=0x[0-9a-f]+\\)
  \\+ Call stack:
  \\|   File '.*test_graph\\.py', line \\d+, in async wait_for\\(\\)
  \\|   File '.*test_graph\\.py', line \\d+, in async outer\\(\\)
  \\+ Awaited by:
    \\* Task\\(name='parent', id=0x[0-9a-f]+\\)
      \\+ Call stack:
      \\|   File '.*test_graph\\.py', line \\d+, in async wait_for\\(\\)
"""


def test_format_and_print(aio, loop):
    async def main():
        future = loop.create_future()
        child = named(outer(future), "child")
        parent = named(wait_for(child), "parent")
        await turns()
        text, file = aio.format_call_graph(child), io.StringIO()
        aio.print_call_graph(child, file=file)
        of_future = aio.format_call_graph(future, limit=0)
        future.set_result(None)
        await parent
        return text, file.getvalue(), of_future

    text, printed, of_future = main_of(loop, main)
    assert re.fullmatch(EXPECTED, text + "\n"), text
    assert printed == text + "\n"
    assert of_future.startswith("* Future(id=0x")
    assert "Call stack" not in of_future


def test_format_of_the_current_task_begins_with_the_caller(aio, loop):
    def function():
        return aio.format_call_graph()

    async def main():
        return function()

    lines = main_of(loop, main).splitlines()
    assert re.fullmatch(r"  \|   File '.*', line \d+, in test_format_.*\.function\(\)", lines[2])
    assert re.fullmatch(r"  \|   File '.*', line \d+, in async test_format_.*\.main\(\)", lines[3])


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio's prints its own frame as well")
def test_print_of_the_current_task_begins_with_the_caller(aio, loop, capsys):
    async def main():
        aio.print_call_graph()

    main_of(loop, main)
    assert "main()" in capsys.readouterr().out.splitlines()[2]


def test_generator_that_is_awaited_is_in_the_stack(aio, loop):
    import types

    if sys.version_info >= (3, 14):
        pytest.skip("asyncio's stops there")

    @types.coroutine
    def generator(future):
        yield from future

    async def main():
        future = loop.create_future()
        task = named(wait_for(generator(future)), "task")
        await turns()
        graph, text = aio.capture_call_graph(task), aio.format_call_graph(task)
        frames = names(graph)[1]
        future.set_result(None)
        await task
        return frames, text

    frames, text = main_of(loop, main)
    assert frames == ["generator", "wait_for"]
    assert ", in generator test_generator_that_is" in text
