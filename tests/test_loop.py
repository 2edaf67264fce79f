"""loop.py, scheduling half: what call_soon promises, the handles it gives, the clock.

Starting and stopping is in test_loop_run.py, tasks and generators in test_loop_tasks.py.
"""

import asyncio
import contextvars
import functools
import threading
import time
import weakref

import pytest

from helpers import (
    LINUX,
    Background,
    collect,
    in_thread,
    new_event_loop,
    open_fds,
    run,
    run_turns,
    socket_pair,
)

var = contextvars.ContextVar("var", default="unset")


# ------------------------------------------------------------ identity


def test_loop_is_an_abstract_event_loop(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)


def test_repr_tells_the_state(loop):
    assert "running=False closed=False debug=False" in repr(loop)

    async def main():
        return repr(loop)

    assert "running=True" in run(loop, main())
    loop.close()
    assert "closed=True" in repr(loop)


def test_loop_is_the_running_loop_of_its_callbacks(loop):
    async def main():
        return asyncio.get_running_loop(), asyncio.get_event_loop()

    assert run(loop, main()) == (loop, loop)
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_loops_are_weakly_referenceable_and_hashable(new_loop):
    first, second = new_loop(), new_loop()
    assert weakref.ref(first)() is first
    assert len({first, second}) == 2


def test_loop_takes_attributes(loop):
    # Frameworks hang their own things on the loop.
    loop.some_attribute = 1
    assert loop.some_attribute == 1


# ------------------------------------------------------------ call_soon


def test_callbacks_run_in_the_order_they_were_added(loop):
    seen = []
    for number in range(100):
        loop.call_soon(seen.append, number)
    run_turns(loop)
    assert seen == list(range(100))


def test_call_soon_does_not_call_at_once(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    assert seen == []
    run_turns(loop)
    assert seen == [1]


def test_each_callback_runs_once(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    run_turns(loop, 5)
    assert seen == [1]


def test_callback_gets_its_arguments(loop):
    seen = []
    loop.call_soon(lambda *args: seen.append(args), 1, "two", None)
    loop.call_soon(lambda *args: seen.append(args))
    run_turns(loop)
    assert seen == [(1, "two", None), ()]


def test_call_soon_takes_no_keyword_arguments_for_the_callback(loop):
    with pytest.raises(TypeError):
        loop.call_soon(print, end="")


def test_callback_added_in_a_turn_runs_in_the_next_one(loop):
    seen = []

    def again(generation):
        seen.append(generation)
        if generation < 3:
            loop.call_soon(again, generation + 1)
        loop.call_soon(seen.append, f"added by {generation}")

    loop.call_soon(again, 0)
    loop.call_soon(seen.append, "same turn")
    for turn in range(3):
        run_turns(loop)
        seen.append(f"end of {turn}")
    assert seen == [
        0, "same turn", "end of 0",
        1, "added by 0", "end of 1",
        2, "added by 1", "end of 2",
    ]  # fmt: skip
    run_turns(loop, 2)


def test_endless_rescheduling_does_not_starve_timers_and_readiness(loop):
    # A callback that always adds itself again leaves room for all else.
    fired = loop.create_future()
    loop.call_later(0.001, fired.set_result, "timer")

    def spin():
        if not fired.done():
            loop.call_soon(spin)

    loop.call_soon(spin)
    assert run(loop, fired) == "timer"


def test_callback_is_called_with_the_callable_not_as_a_method(loop):
    class Callable:
        calls = 0

        def __call__(self, n):
            self.calls += n

    target = Callable()
    loop.call_soon(target, 2)
    loop.call_soon(functools.partial(target, 3))
    run_turns(loop)
    assert target.calls == 5


def test_non_callable_fails_when_its_turn_comes(loop, loop_errors):
    loop.call_soon("not callable")
    run_turns(loop)
    context = loop_errors.take_one()
    assert isinstance(context["exception"], TypeError)
    assert "not callable" in str(context["exception"])


def test_callback_is_released_after_it_ran(loop):
    class Target:
        def __call__(self):
            pass

    target = Target()
    ref = weakref.ref(target)
    loop.call_soon(target)
    del target
    run_turns(loop, 2)
    collect()
    assert ref() is None


# ------------------------------------------------------------ context


def test_callback_runs_in_a_copy_of_the_callers_context(loop):
    seen = []
    token = var.set("caller")
    loop.call_soon(lambda: seen.append(var.get()))
    loop.call_soon(var.set, "callback")
    var.reset(token)
    loop.call_soon(lambda: seen.append(var.get()))
    run_turns(loop)
    assert seen == ["caller", "unset"]
    assert var.get() == "unset"


def test_callback_runs_in_the_given_context(loop):
    context = contextvars.copy_context()
    loop.call_soon(var.set, "inside", context=context)
    run_turns(loop)
    assert context[var] == "inside"
    assert var.get() == "unset"


def test_several_callbacks_share_one_context(loop):
    context = contextvars.copy_context()
    seen = []
    loop.call_soon(var.set, 1, context=context)
    loop.call_soon(lambda: seen.append(var.get()), context=context)
    loop.call_later(0, lambda: seen.append(var.get()), context=context)
    loop.call_at(loop.time(), lambda: seen.append(var.get()), context=context)
    loop.call_soon_threadsafe(lambda: seen.append(var.get()), context=context)
    done = loop.create_future()
    loop.call_later(0.001, done.set_result, None)
    run(loop, done)
    assert seen == [1, 1, 1, 1]


@pytest.mark.stock_since("3.12", "Handle.get_context is new in 3.12")
@pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe"])
def test_handle_tells_its_context(loop, schedule):
    context = contextvars.copy_context()
    handle = getattr(loop, schedule)(print, context=context)
    assert handle.get_context() is context
    handle.cancel()


# ------------------------------------------------------------ handles


@pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe"])
def test_handle_is_a_stock_handle(loop, schedule):
    handle = getattr(loop, schedule)(print)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    assert not handle.cancelled()
    handle.cancel()


@pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe"])
def test_cancelled_handle_does_not_run(loop, schedule):
    seen = []
    handle = getattr(loop, schedule)(seen.append, "cancelled")
    getattr(loop, schedule)(seen.append, "kept")
    handle.cancel()
    assert handle.cancelled()
    run_turns(loop)
    assert seen == ["kept"]


def test_handle_may_be_cancelled_twice_and_after_it_ran(loop):
    handle = loop.call_soon(lambda: None)
    run_turns(loop)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()


def test_handle_cancelled_by_an_earlier_callback_of_the_same_turn_does_not_run(loop):
    seen = []
    handles = []
    loop.call_soon(lambda: handles[0].cancel())
    handles.append(loop.call_soon(seen.append, "cancelled"))
    run_turns(loop)
    assert seen == []


def test_handle_may_cancel_itself_while_it_runs(loop):
    handles = []
    seen = []

    def callback():
        handles[0].cancel()
        seen.append("ran")

    handles.append(loop.call_soon(callback))
    run_turns(loop)
    assert seen == ["ran"]
    assert handles[0].cancelled()


def test_cancelled_handle_releases_the_callback_at_once(loop):
    class Target:
        def __call__(self):
            raise AssertionError

    target = Target()
    ref = weakref.ref(target)
    handle = loop.call_soon(target)
    del target
    handle.cancel()
    collect()
    assert ref() is None


def test_repr_of_a_handle_names_callback_and_state(loop):
    def a_callback(argument):
        raise AssertionError

    handle = loop.call_soon(a_callback, "an argument")
    assert "Handle" in repr(handle)
    assert "a_callback" in repr(handle)
    assert __file__ in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)
    assert "a_callback" not in repr(handle)


def test_handles_are_weakly_referenceable_and_hashable(loop):
    handle = loop.call_soon(lambda: None)
    assert weakref.ref(handle)() is handle
    assert hash(handle) == hash(handle)
    run_turns(loop)


# ------------------------------------------------------------ the clock


def test_time_is_the_monotonic_clock(loop):
    before = time.monotonic()
    now = loop.time()
    after = time.monotonic()
    assert isinstance(now, float)
    assert before <= now <= after


def test_time_advances_within_one_turn(loop):
    # A clock that is cached per turn is what makes timers fire early.
    async def main():
        start = loop.time()
        while loop.time() == start:
            pass
        return True

    assert run(loop, main())


def test_time_follows_a_patched_monotonic_clock(loop, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 123.0)
        now = loop.time()
    assert now == 123.0


def test_time_works_in_every_state(loop):
    async def main():
        return loop.time()

    readings = [loop.time(), run(loop, main()), in_thread(loop.time)]
    loop.close()
    readings.append(loop.time())
    assert readings == sorted(readings)


# ------------------------------------------------------------ closed loop


def test_closed_loop_refuses_everything_that_schedules(loop):
    loop.close()

    async def coroutine():
        pass

    coro = coroutine()
    refused = {
        "call_soon": lambda: loop.call_soon(print),
        "call_later": lambda: loop.call_later(1, print),
        "call_later 0": lambda: loop.call_later(0, print),
        "call_at": lambda: loop.call_at(1, print),
        "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(print),
        "create_task": lambda: loop.create_task(coro),
        "run_in_executor": lambda: loop.run_in_executor(None, print),
        "add_reader": lambda: loop.add_reader(0, print),
        "add_writer": lambda: loop.add_writer(1, print),
        "run_forever": loop.run_forever,
        "run_until_complete": lambda: loop.run_until_complete(coro),
    }
    for name, call in refused.items():
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            pytest.fail(f"{name} returned {call()!r}")
    coro.close()


def test_closed_loop_still_answers_what_asks_for_state(loop):
    loop.close()
    assert loop.is_closed()
    assert not loop.is_running()
    assert loop.get_debug() is False
    assert loop.get_task_factory() is None
    assert loop.remove_reader(0) is False
    assert loop.remove_writer(0) is False
    loop.stop()
    loop.close()
    assert "closed=True" in repr(loop)


def test_close_drops_what_is_still_queued(loop):
    class Target:
        def __call__(self):
            raise AssertionError

    target = Target()
    ref = weakref.ref(target)
    loop.call_soon(target)
    loop.call_soon_threadsafe(target)
    loop.call_later(10, target)
    del target
    loop.close()
    collect()
    assert ref() is None


def test_loop_is_freed_after_close(new_loop, loop_kind):
    loop = new_event_loop(loop_kind)
    run_turns(loop, 3)
    loop.call_later(60, print)
    ref = weakref.ref(loop)
    loop.close()
    del loop
    collect()
    assert ref() is None


def test_unclosed_loop_warns_and_closes_itself(loop_kind):
    loop = new_event_loop(loop_kind)
    run_turns(loop)
    loops = [loop]
    del loop

    def drop():
        loops.clear()
        collect()

    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        drop()


def test_many_loops_made_and_closed(loop_kind):
    # The guard of the test compares descriptors and libuv handles.
    for _ in range(200):
        loop = new_event_loop(loop_kind)
        run_turns(loop)
        loop.close()


def test_loops_live_side_by_side(new_loop):
    loops = [new_loop() for _ in range(5)]
    seen = []
    for number, loop in enumerate(loops):
        loop.call_soon(seen.append, number)
    for loop in reversed(loops):
        run_turns(loop)
    assert seen == [4, 3, 2, 1, 0]


def test_loops_run_in_threads_at_the_same_time(new_loop):
    barrier = threading.Barrier(2)
    first, second = new_loop(), new_loop()

    async def main(loop):
        # Both loops run when they meet here.
        await loop.run_in_executor(None, barrier.wait, 20)
        return asyncio.get_running_loop() is loop

    with Background(run, first, main(first)) as other:
        assert run(second, main(second))
        assert other.result()


@pytest.mark.skipif(not LINUX, reason="io_uring is Linux's")
def test_loop_sets_up_no_io_uring(loop):
    # Sandboxes kill processes for it, and libuv makes one for each loop unless it is kept from it.
    with socket_pair() as (left, right):
        loop.add_reader(left, loop.stop)
        right.send(b"x")
        loop.run_forever()
        loop.remove_reader(left)
    assert not [what for what in open_fds().values() if "io_uring" in what]
