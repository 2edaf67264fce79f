"""runners.py: run() and Runner. Ours has the newest asyncio's rules on every Python."""

import asyncio
import contextvars
import signal
import threading
import types

import pytest

from helpers import PATIENCE, WINDOWS, Background, import_veloop, in_thread, new_event_loop
from task_helpers import forever

var = contextvars.ContextVar("var", default="unset")


@pytest.fixture(scope="module", autouse=True)
def _warm_up():
    """What a process opens once, with its first loop, must not be taken for a leak."""
    new_event_loop("veloop").close()


@pytest.fixture
def api(loop_kind):
    """`run` and `Runner` of the one and of the other."""
    if loop_kind == "veloop":
        module = import_veloop()
        return types.SimpleNamespace(run=module.run, Runner=module.Runner)
    return types.SimpleNamespace(run=asyncio.run, Runner=asyncio.Runner)


@pytest.fixture
def sigint():
    """The SIGINT handler Python starts with, whatever pytest was started with."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


async def value(result=42):
    await asyncio.sleep(0)
    return result


async def current_loop():
    return asyncio.get_running_loop()


# ------------------------------------------------------------ run: results


def test_run_returns_the_result(api):
    assert api.run(value()) == 42


def test_run_raises_what_main_raises(api):
    async def main():
        raise LookupError("in main")

    with pytest.raises(LookupError, match="in main"):
        api.run(main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exception_that_ends_programs_passes(api, kind):
    async def main():
        raise kind("stop")

    with pytest.raises(kind, match="stop"):
        api.run(main())


def test_run_raises_cancellation_of_main(api):
    async def main():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        api.run(main())


def test_run_uses_a_new_loop_each_time_and_closes_it(api):
    loops = [api.run(current_loop()) for _ in range(3)]
    assert len(set(loops)) == 3
    assert all(loop.is_closed() for loop in loops)


def test_run_uses_a_loop_of_ours():
    veloop = import_veloop()
    assert type(veloop.run(current_loop())) is veloop.EventLoop


def test_run_closes_the_loop_after_an_exception(api):
    loops = []

    async def main():
        loops.append(asyncio.get_running_loop())
        raise LookupError

    with pytest.raises(LookupError):
        api.run(main())
    assert loops[0].is_closed()


def test_no_loop_runs_afterwards(api):
    api.run(value())
    assert asyncio._get_running_loop() is None


def test_run_in_another_thread(api):
    assert in_thread(lambda: api.run(value())) == 42


# ------------------------------------------------------------ run: arguments


@pytest.mark.parametrize("debug", [True, False])
def test_debug(api, debug):
    async def main():
        return asyncio.get_running_loop().get_debug()

    assert api.run(main(), debug=debug) is debug


def test_debug_is_the_loops_default_if_not_given(api, loop_kind):
    loop = new_event_loop(loop_kind)
    default = loop.get_debug()
    loop.close()

    async def main():
        return asyncio.get_running_loop().get_debug()

    assert api.run(main()) is default


@pytest.mark.stock_since("3.12", "run() has no loop_factory")
@pytest.mark.parametrize("factory_kind", ["veloop", "asyncio"])
def test_loop_factory(api, factory_kind):
    made = []

    def factory():
        made.append(new_event_loop(factory_kind))
        return made[0]

    assert api.run(current_loop(), loop_factory=factory) is made[0]
    assert len(made) == 1
    assert made[0].is_closed()


@pytest.mark.stock_since("3.12", "run() has no loop_factory")
def test_loop_factory_that_raises(api):
    def factory():
        raise LookupError("no loop today")

    main = value()
    with pytest.raises(LookupError, match="no loop today"):
        api.run(main, loop_factory=factory)
    main.close()


@pytest.mark.stock_since("3.12", "run() has no loop_factory")
def test_loop_factory_that_cannot_be_called(api):
    main = value()
    with pytest.raises(TypeError, match="not callable"):
        api.run(main, loop_factory=42)
    main.close()


@pytest.mark.veloop_only("asyncio.run() takes no context")
def test_context(api):
    async def main():
        before = var.get()
        var.set("by main")
        return before

    context = contextvars.copy_context()
    context.run(var.set, "given")
    assert api.run(main(), context=context) == "given"
    assert context[var] == "by main"
    assert var.get() == "unset"


def test_main_changes_a_copy_of_the_callers_context(api):
    async def main():
        var.set("by main")

    api.run(main())
    assert var.get() == "unset"


def test_options_are_keywords_only(api):
    main = value()
    with pytest.raises(TypeError):
        api.run(main, True)
    main.close()


# ------------------------------------------------------------ run: refusals


@pytest.mark.stock_since("3.14", "ValueError")
@pytest.mark.parametrize("what", [None, 42, value, "text", lambda: None], ids=repr)
def test_what_cannot_be_awaited_is_refused(api, what):
    with pytest.raises(TypeError, match="a coroutine or an awaitable is required"):
        api.run(what)


class Awaitable:
    def __await__(self):
        yield
        return 42


@pytest.mark.stock_since("3.14", "takes coroutines only")
def test_awaitable_is_taken(api):
    assert api.run(Awaitable()) == 42


@pytest.mark.stock_since("3.14", "takes coroutines only")
def test_future_is_taken(api):
    with api.Runner() as runner:
        future = runner.get_loop().create_future()
        runner.get_loop().call_soon(future.set_result, 42)
        assert runner.run(future) == 42


def test_generator_is_no_coroutine():
    def generator():
        yield

    with pytest.raises(TypeError, match="required, not <generator"):
        import_veloop().run(generator())


def test_nested_run_is_refused(api, loop_kind):
    async def main():
        inner = value()
        try:
            with pytest.raises(RuntimeError, match=rf"{loop_kind}\.run\(\) cannot be called from"):
                api.run(inner)
        finally:
            inner.close()
        return "outer"

    assert api.run(main()) == "outer"


# ------------------------------------------------------------ run: the end


def test_tasks_left_are_cancelled_and_waited_for(api):
    log = []

    async def left():
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            log.append("cleaned up")
            raise

    async def main():
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        return task

    assert api.run(main()).cancelled()
    assert log == ["cleaned up"]


def test_exception_while_a_task_is_cancelled_is_reported(api):
    contexts = []

    async def left():
        try:
            await forever()
        finally:
            raise LookupError("at the end")

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, ctx: contexts.append(ctx))
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        return task

    task = api.run(main())
    assert [context["task"] for context in contexts] == [task]
    assert str(contexts[0]["exception"]) == "at the end"


def test_async_generators_left_are_closed(api):
    log = []

    async def generator():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    left = generator()

    async def main():
        async for item in left:
            return item

    assert api.run(main()) == 1
    assert log == ["closed"]


def test_default_executor_is_shut_down(api):
    threads = []

    async def main():
        loop = asyncio.get_running_loop()
        threads.append(await loop.run_in_executor(None, threading.current_thread))

    api.run(main())
    assert not threads[0].is_alive()


# ------------------------------------------------------------ SIGINT


def test_interrupt_cancels_main_then_raises(api, sigint):
    log = []

    async def main():
        signal.raise_signal(signal.SIGINT)
        try:
            await forever()
        except asyncio.CancelledError:
            log.append("cancelled")
            await asyncio.sleep(0)
            log.append("cleaned up")
            raise

    with pytest.raises(KeyboardInterrupt):
        api.run(main())
    assert log == ["cancelled", "cleaned up"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_main_may_take_the_interrupt_for_a_result(api, sigint):
    async def main():
        signal.raise_signal(signal.SIGINT)
        try:
            await forever()
        except asyncio.CancelledError:
            return "graceful"

    assert api.run(main()) == "graceful"


def test_second_interrupt_raises_at_once(api, sigint):
    log = []

    async def main():
        signal.raise_signal(signal.SIGINT)
        try:
            await forever()
        except asyncio.CancelledError:
            log.append("cancelled")
            signal.raise_signal(signal.SIGINT)
            log.append("never reached")

    with pytest.raises(KeyboardInterrupt):
        api.run(main())
    assert log == ["cancelled"]


@pytest.mark.veloop_only("asyncio may lose an interrupt that comes just before it waits")
@pytest.mark.skipif(WINDOWS, reason="no signal can be sent to a thread")
def test_interrupt_wakes_an_idle_loop(api, sigint):
    idle = threading.Event()

    def interrupt():
        assert idle.wait(PATIENCE)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    async def main():
        asyncio.get_running_loop().call_soon(idle.set)
        await forever()

    with Background(interrupt), pytest.raises(KeyboardInterrupt):
        api.run(main())


def test_interrupt_while_a_callback_is_busy(api, sigint):
    """A loop without a task that waits: the handler cancels as soon as the callback is over."""

    async def main():
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await forever()

    with pytest.raises(KeyboardInterrupt):
        api.run(main())


def test_own_interrupt_handler_is_left_alone(api, sigint):
    calls = []

    def handler(signum, frame):
        calls.append(signum)

    async def main():
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
        return signal.getsignal(signal.SIGINT)

    signal.signal(signal.SIGINT, handler)
    assert api.run(main()) is handler
    assert calls == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is handler


def test_handler_that_main_installs_stays(api, sigint):
    def handler(signum, frame):
        pass

    async def main():
        signal.signal(signal.SIGINT, handler)

    api.run(main())
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.skipif(WINDOWS, reason="asyncio's loop has no signal handlers there")
def test_signal_handler_of_the_loop_takes_the_interrupt(api, sigint):
    async def main():
        loop = asyncio.get_running_loop()
        got = loop.create_future()
        loop.add_signal_handler(signal.SIGINT, got.set_result, "handled")
        signal.raise_signal(signal.SIGINT)
        result = await got
        loop.remove_signal_handler(signal.SIGINT)
        return result

    assert api.run(main()) == "handled"


# ------------------------------------------------------------ Runner


def test_runner_keeps_loop_and_context(api):
    async def main():
        before = var.get()
        var.set("by an earlier run")
        return asyncio.get_running_loop(), before

    with api.Runner() as runner:
        loop, first = runner.run(main())
        assert runner.run(main()) == (loop, "by an earlier run")
        assert runner.get_loop() is loop
    assert first == "unset"
    assert loop.is_closed()
    assert var.get() == "unset"


def test_runner_has_a_loop_of_ours():
    veloop = import_veloop()
    with veloop.Runner() as runner:
        assert type(runner.get_loop()) is veloop.EventLoop


def test_runner_takes_a_context(api):
    async def main():
        var.set("by main")

    context = contextvars.copy_context()
    with api.Runner() as runner:
        runner.run(main(), context=context)
    assert context[var] == "by main"


@pytest.mark.parametrize("debug", [True, False])
def test_runner_debug(api, debug):
    with api.Runner(debug=debug) as runner:
        assert runner.get_loop().get_debug() is debug


@pytest.mark.parametrize("factory_kind", ["veloop", "asyncio"])
def test_runner_loop_factory(api, factory_kind):
    loop = new_event_loop(factory_kind)
    with api.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(current_loop()) is loop
    assert loop.is_closed()


def test_runner_that_was_never_used_makes_no_loop(api):
    def factory():
        raise AssertionError("not needed")

    api.Runner(loop_factory=factory).close()


def test_runner_goes_on_after_an_exception(api):
    async def fail():
        raise LookupError

    with api.Runner() as runner:
        with pytest.raises(LookupError):
            runner.run(fail())
        assert runner.run(value()) == 42


def test_runner_goes_on_after_an_interrupt(api, sigint):
    async def main():
        signal.raise_signal(signal.SIGINT)
        await forever()

    with api.Runner() as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert runner.run(value()) == 42


def test_close_twice(api):
    runner = api.Runner()
    runner.run(value())
    runner.close()
    runner.close()


def test_closed_runner_refuses(api):
    runner = api.Runner()
    runner.get_loop()
    runner.close()
    main = value()
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.run(main)
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.get_loop()
    with pytest.raises(RuntimeError, match="Runner is closed"), runner:
        pass
    main.close()


def test_runner_refuses_to_run_inside_a_running_loop(api):
    runner = api.Runner()

    async def main():
        inner = value()
        with pytest.raises(RuntimeError, match=r"Runner\.run\(\) cannot be called from"):
            runner.run(inner)
        inner.close()

    api.run(main())
    assert runner.run(value()) == 42
    runner.close()
