"""runners.py: which loop a Runner makes, whose the current loop is, how the end goes."""

import asyncio
import contextvars
import signal
import sys
import threading
import types

import pytest

from helpers import LOOPS, import_veloop, in_thread, new_event_loop
from task_helpers import forever

LOOP_METHODS = ("shutdown_asyncgens", "shutdown_default_executor", "close")


@pytest.fixture(scope="module", autouse=True)
def _warm_up():
    """What a process opens once, with its first loop, must not be taken for a leak."""
    new_event_loop("veloop").close()


@pytest.fixture
def api(loop_kind):
    """`run` and `Runner` of the one and of the other."""
    return import_veloop() if loop_kind == "veloop" else asyncio


@pytest.fixture
def sigint():
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.fixture
def current():
    """The arguments of set_event_loop(), which the Runner calls."""
    calls = []
    policy = asyncio.events._event_loop_policy
    asyncio.get_event_loop_policy() if sys.version_info < (3, 14) else None

    def record(loop):
        calls.append(loop)
        real(loop)

    real = asyncio.set_event_loop
    places = [asyncio.events, import_veloop().events]
    for place in places:
        place.set_event_loop = record
    yield calls
    for place in places:
        place.set_event_loop = real
    asyncio.events._event_loop_policy = policy


# ------------------------------------------------------------ the current loop


def test_loop_of_a_runner_is_the_current_one_until_close(api, current):
    with api.Runner() as runner:
        loop = runner.get_loop()
        runner.run(asyncio.sleep(0))
        runner.run(asyncio.sleep(0))
        assert asyncio.get_event_loop() is loop
        assert import_veloop().get_event_loop() is loop
        assert current == [loop]
    assert current == [loop, None]


@pytest.mark.parametrize("kind", LOOPS)
def test_loop_of_a_factory_is_not_the_current_one(api, kind, current):
    with api.Runner(loop_factory=lambda: new_event_loop(kind)) as runner:
        runner.run(asyncio.sleep(0))
    assert current == []


def test_runner_in_a_thread_sets_that_threads_loop(api, current):
    def work():
        with api.Runner() as runner:
            return asyncio.get_event_loop() is runner.get_loop()

    assert in_thread(work)


def test_close_unsets_the_loop_though_the_end_fails(api, current):
    runner = api.Runner()
    loop = runner.get_loop()

    async def fail():
        raise LookupError("no end")

    loop.shutdown_asyncgens = fail
    with pytest.raises(LookupError, match="no end"):
        runner.close()
    assert loop.is_closed()
    assert current == [loop, None]
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.get_loop()


def test_runner_makes_no_loop_of_a_policy():
    """The policy is for asyncio's functions; ours make our loop, or what the factory makes."""
    if sys.version_info >= (3, 14):
        pytest.skip("policies are deprecated")

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self):
            raise AssertionError

    veloop = import_veloop()
    asyncio.set_event_loop_policy(Policy())
    try:
        with veloop.Runner() as runner:
            assert type(runner.get_loop()) is veloop.EventLoop
            assert asyncio.get_event_loop() is runner.get_loop()
    finally:
        asyncio.set_event_loop_policy(None)


# ------------------------------------------------------------ the context


def test_context_is_copied_when_the_loop_is_made(api):
    var = contextvars.ContextVar("var", default="before")
    runner = api.Runner()
    var.set("at enter")
    runner.get_loop()
    var.set("later")

    async def main():
        return var.get()

    assert runner.run(main()) == "at enter"
    runner.close()


def test_given_context_may_be_empty(api):
    context = contextvars.Context()
    var = contextvars.ContextVar("var")

    async def main():
        var.set("by main")

    with api.Runner() as runner:
        runner.run(main(), context=context)
    assert context[var] == "by main"


# ------------------------------------------------------------ close


def test_close_goes_in_order(api):
    log = []
    runner = api.Runner()
    loop = runner.get_loop()

    def wrap(name):
        method = getattr(loop, name)

        def call(*args, **kwargs):
            log.append((name, args))
            return method(*args, **kwargs)

        setattr(loop, name, call)

    for name in LOOP_METHODS:
        wrap(name)

    async def left():
        try:
            await forever()
        finally:
            log.append("task cancelled")

    task = runner.run(started(left))
    runner.close()
    assert task.cancelled()
    takes_timeout = api is not asyncio or sys.version_info >= (3, 12)
    assert log == [
        "task cancelled",
        ("shutdown_asyncgens", ()),
        ("shutdown_default_executor", (300.0,) if takes_timeout else ()),
        ("close", ()),
    ]


async def started(function):
    task = asyncio.get_running_loop().create_task(function())
    await asyncio.sleep(0)
    return task


def test_close_works_on_a_stock_loop():
    """Whose shutdown_default_executor() takes no time limit before 3.12."""
    veloop = import_veloop()
    with veloop.Runner(loop_factory=lambda: new_event_loop("asyncio")) as runner:
        thread = runner.run(veloop.to_thread(threading.current_thread))
    assert not thread.is_alive()


def test_close_of_an_unused_runner_does_not_close_it(api):
    runner = api.Runner()
    runner.close()
    assert runner.run(asyncio.sleep(0, "still good")) == "still good"
    runner.close()


def test_what_tasks_raise_at_the_end_is_reported(api, loop_kind):
    contexts = []

    async def left():
        try:
            await forever()
        finally:
            raise LookupError("at the end")

    with api.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: contexts.append(context))
        task = runner.run(started(left))
    (context,) = contexts
    assert context["message"] == "unhandled exception during asyncio.run() shutdown"
    assert context["task"] is task
    assert context["exception"] is task.exception()


# ------------------------------------------------------------ interrupts


def test_task_that_was_cancelled_otherwise_too_ends_in_its_cancellation(api, sigint):
    async def main():
        asyncio.current_task().cancel()
        signal.raise_signal(signal.SIGINT)
        await forever()

    with api.Runner() as runner, pytest.raises(asyncio.CancelledError):
        runner.run(main())


def test_interrupt_says_where_main_was(api, sigint):
    async def main():
        signal.raise_signal(signal.SIGINT)
        await forever()

    with api.Runner() as runner, pytest.raises(KeyboardInterrupt) as caught:
        runner.run(main())
    assert isinstance(caught.value.__context__, asyncio.CancelledError)


def test_tasks_without_uncancel_end_in_their_cancellation(api, sigint):
    class Minimal:
        """The least that a loop needs of a task."""

        def __init__(self, task):
            self.task = task

        def __getattr__(self, name):
            if name == "uncancel":
                raise AttributeError(name)
            return getattr(self.task, name)

        def __await__(self):
            return self.task.__await__()

    async def main():
        signal.raise_signal(signal.SIGINT)
        await forever()

    with api.Runner() as runner:
        loop = runner.get_loop()
        loop.set_task_factory(
            lambda loop, coro, **kwargs: Minimal(asyncio.Task(coro, loop=loop, **kwargs))
        )
        try:
            with pytest.raises(asyncio.CancelledError):
                runner.run(main())
        finally:
            loop.set_task_factory(None)


def test_interrupt_after_the_end_of_main_is_raised(api, sigint):
    async def main():
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)

    runner = api.Runner()
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    runner.close()


def test_counts_of_interrupts_are_those_of_one_run(api, sigint):
    async def main():
        signal.raise_signal(signal.SIGINT)
        await forever()

    with api.Runner() as runner:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                runner.run(main())


def test_no_handler_where_signals_cannot_be_set(api, sigint, monkeypatch):
    def refuse(*args):
        raise ValueError("signal only works in main thread of the main interpreter")

    with api.Runner() as runner:
        runner.get_loop()
        monkeypatch.setattr(signal, "signal", refuse)
        assert runner.run(asyncio.sleep(0, "ran")) == "ran"
        monkeypatch.undo()


def test_no_handler_in_another_thread(api, sigint):
    async def main():
        return signal.getsignal(signal.SIGINT)

    assert in_thread(lambda: api.run(main())) is signal.default_int_handler


def test_handler_is_a_callable_of_two_arguments(api, sigint):
    async def main():
        return signal.getsignal(signal.SIGINT)

    handler = api.run(main())
    assert not isinstance(handler, types.FunctionType) and callable(handler)
    assert handler is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
