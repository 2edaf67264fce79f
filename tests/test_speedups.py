"""_accelerate.py and _speedups: the accelerator does what the Python code does.

Each behaviour is tested four times: as it is with the accelerator, with Python's methods, and with
either's methods on the other's queue and timers, for what is rare goes from one to the other.
"""

import asyncio
import contextvars
import functools
import math
import random
import signal
import sys
import threading
from collections import deque
from decimal import Decimal
from fractions import Fraction

import pytest

import veloop
from helpers import outcome, run, run_turns
from speedups_helpers import CLASSES, accelerated_only, python
from veloop import _accelerate
from veloop.loop import core, datagram, gil, timers
from veloop.loop.handles import Handle, ThreadSafeHandle, TimerHandle
from veloop.loop.stream import StreamTransport

pytestmark = accelerated_only


@pytest.fixture
def loop_kind(variant):
    return "veloop"


# ------------------------------------------------------------ whether it is there


@pytest.mark.parametrize(
    ("value", "accelerated"), [("1", False), ("yes", False), ("0", True), ("", True)]
)
def test_environment_variable_switches_it_off(value, accelerated):
    code = "import veloop; print(veloop.accelerated, type(veloop.EventLoop.call_soon).__name__)"
    kind = "method_descriptor" if accelerated else "function"
    assert python(code, VELOOP_PURE=value) == [str(accelerated), kind]


def test_without_the_extension_veloop_is_pure():
    code = "import sys; sys.modules['veloop._speedups'] = None; import veloop as v; "
    assert python(code + "print(v.accelerated, len(v._accelerate.originals))") == ["False", "0"]


@pytest.mark.parametrize(
    "spoil",
    [
        "lib.vl_table = lambda: 0",
        "handles.Handle.__init_subclass__ = None; handles.Handle._args = 1",
        "core.Core._ready = property(lambda self: None)",
        "stream.StreamTransport._live = 1",
        "stream_reader.StreamReader._head = 1",
    ],
)
def test_what_does_not_fit_is_left_alone(spoil):
    """install() has looked at everything before it changes anything."""
    code = f"""
import types, veloop._uv as uv
class Lib:
    def __getattr__(self, name):
        return getattr(real, name)
real, lib = uv.lib, Lib()
from veloop.loop import handles
from veloop.loop import core, datagram, debug, gil, stream
from veloop._uv.events import Driver, drop
import asyncio, veloop._speedups as speedups
from veloop import stream_reader, streams
lib.vl_table = real.vl_table
{spoil}
try:
    speedups.install(lib.vl_table(), core.Core, handles.Handle, handles.TimerHandle, Driver,
                     stream.StreamTransport, stream_reader.StreamReader,
                     streams.StreamReaderProtocol, stream_reader.RESUMED,
                     datagram.UdpTransport, datagram.packed, datagram.unpacked, debug.run_all,
                     gil, drop, asyncio)
except ImportError as exc:
    print("refused", type(core.Core.call_soon).__name__)
"""
    assert python(code, VELOOP_PURE="1") == ["refused", "function"]


def test_it_is_installed_once():
    with pytest.raises(ImportError, match="in use already"):
        from veloop import _speedups

        _speedups.install(
            veloop._uv.lib.vl_table(),
            core.Core,
            Handle,
            TimerHandle,
            veloop._uv.events.Driver,
            StreamTransport,
            veloop.StreamReader,
            veloop.StreamReaderProtocol,
            veloop.stream_reader.RESUMED,
            datagram.UdpTransport,
            datagram.packed,
            datagram.unpacked,
            core.debug.run_all,
            gil,
            veloop._uv.events.drop,
            asyncio,
        )


def test_every_method_that_it_replaced_is_known():
    for name, original in _accelerate.originals.items():
        cls, _, method = name.partition(".")
        ours = getattr(CLASSES[cls], method)
        assert type(ours).__name__ == "method_descriptor", name
        assert callable(original) and original is not ours
        if original.__doc__ and cls == "Core" and method != "_run_until_stopped":
            assert ours.__doc__ == original.__doc__.strip()


def test_methods_refuse_objects_of_other_classes(variant):
    with pytest.raises((TypeError, AttributeError)):
        core.Core.call_soon(object(), print)
    with pytest.raises((TypeError, AttributeError)):
        Handle.cancel(object())


# ------------------------------------------------------------ call_soon


def test_callbacks_run_in_order_with_their_arguments(loop):
    seen = []
    for i in range(300):
        handle = loop.call_soon(lambda *args: seen.append(args), *range(i % 7))
        assert type(handle) is Handle and isinstance(handle, asyncio.Handle)
    run_turns(loop)
    assert seen == [tuple(range(i % 7)) for i in range(300)]


def test_handle_is_what_pythons_is(loop):
    context = contextvars.copy_context()
    callback, argument = print, object()
    for handle in (
        loop.call_soon(callback, argument, context=context),
        loop.call_soon_threadsafe(callback, argument, context=context),
        loop.call_later(60, callback, argument, context=context),
        loop.call_at(loop.time() + 60, callback, argument, context=context),
    ):
        assert handle._callback is callback
        assert handle._args == (argument,)
        assert handle._loop is loop
        assert handle._context is handle.get_context() is context
        assert (handle._cancelled, handle._repr, handle._source_traceback) == (False, None, None)
        assert handle.cancelled() is False
        assert "print" in repr(handle)
        handle.cancel()
        assert handle.cancelled()
        assert (handle._callback, handle._args) == (None, None)
        assert "cancelled" in repr(handle)
        handle.cancel()


def test_cancelled_handle_remembers_its_text_in_debug_mode(loop):
    loop.set_debug(True)
    handle = loop.call_soon(print)
    handle.cancel()
    assert "print" in repr(handle)
    run_turns(loop)


def test_context_is_copied_unless_it_is_given(loop):
    var = contextvars.ContextVar("var", default=0)
    seen = []

    def callback():
        seen.append(var.get())
        var.set(100)

    given = contextvars.Context()
    given.run(var.set, 1)
    var.set(2)
    for _ in range(2):
        loop.call_soon(callback)
        loop.call_soon(callback, context=given)
        loop.call_soon(callback, context=None)
    var.set(0)
    run_turns(loop)
    assert seen == [2, 1, 2, 2, 100, 2]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_call_soon_refuses_what_pythons_does(loop, method):
    call = getattr(loop, method)
    for args, kwargs in [((), {}), ((print,), {"contxt": None}), ((print,), {"a": 1, "b": 2})]:
        with pytest.raises(TypeError):
            call(*args, **kwargs)
    kind = Handle if method == "call_soon" else ThreadSafeHandle
    assert type(call(callback=print)) is kind
    loop._ready.clear()


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_closed_loop_refuses(new_loop, method):
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        getattr(loop, method)(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(0, print)
    coro = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(coro)
    coro.close()


def test_debug_mode_checks(loop):
    loop.set_debug(True)
    with pytest.raises(TypeError, match="callable"):
        loop.call_soon(1)
    handle = loop.call_soon(print)
    assert handle._source_traceback[-1].filename == __file__
    handle.cancel()
    timer = loop.call_later(0, print)
    assert timer._source_traceback[-1].filename == __file__
    timer.cancel()
    run_turns(loop)


def test_overridden_methods_are_used(variant):
    class Loop(veloop.EventLoop):
        def call_soon(self, callback, *args, context=None):
            calls.append(callback)
            return super().call_soon(callback, *args, context=context)

        def time(self):
            return 5.0

    calls = []
    loop = Loop()
    loop.call_soon(loop.stop)
    assert loop.call_later(1, print).when() == 6.0
    loop.run_forever()
    assert calls == [loop.stop]
    loop.call_soon = lambda *args, **kwargs: calls.append("instance") or args[0]()
    future = loop.create_future()
    future.add_done_callback(lambda _: None)
    with pytest.raises(TypeError):
        future.set_result(1)  # the callback wants an argument
    assert calls[1:] == ["instance"]
    del loop.call_soon
    loop.close()


def test_foreign_handles_in_the_queue_are_run(loop):
    class Mine(Handle):
        pass

    seen = []
    loop._ready.append(Mine(seen.append, (1,), loop))
    loop._ready.append(asyncio.Handle(seen.append, (2,), loop, contextvars.copy_context()))
    cancelled = asyncio.Handle(seen.append, (3,), loop, contextvars.copy_context())
    cancelled.cancel()
    loop._ready.append(cancelled)
    run_turns(loop)
    assert seen == [1, 2]


# ------------------------------------------------------------ exceptions


def test_exceptions_are_reported_with_the_handle(loop, loop_errors):
    def fail(*args):
        raise ValueError(*args)

    handle = loop.call_soon(fail, 1)
    loop.call_later(0, fail, 2)
    loop.call_soon(fail, 3, context=contextvars.Context())
    seen = []
    loop.call_soon(seen.append, "goes on")
    run_turns(loop, 3)
    first, second, third = sorted(loop_errors.take(), key=lambda each: each["exception"].args)
    assert first["handle"] is handle and ".fail(" in first["message"]
    assert type(second["handle"]) is TimerHandle and ".fail(" in second["message"]
    assert type(third["handle"]) is Handle
    assert seen == ["goes on"]
    assert first["exception"].__traceback__ is not None


def test_exception_handler_sees_the_exception_as_handled(loop):
    seen = []
    loop.set_exception_handler(lambda *_: seen.append(sys.exc_info()[1]))
    exc = GeneratorExit()  # one that is no Exception

    def fail():
        raise exc

    loop.call_soon(fail)
    run_turns(loop)
    assert seen == [exc]
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_stops_the_program_leaves_the_loop(loop, kind):
    seen = []

    def leave():
        raise kind

    loop.call_soon(seen.append, 1)
    loop.call_soon(leave)
    loop.call_soon(seen.append, 2)
    with pytest.raises(kind):
        loop.run_forever()
    assert seen == [1]
    run_turns(loop)
    assert seen == [1, 2]
    loop.call_later(0, leave)
    loop.call_later(0, seen.append, 3)
    with pytest.raises(kind):
        run_turns(loop, 5)
    run_turns(loop, 5)
    assert seen == [1, 2, 3]


def test_exception_handler_may_stop_the_program(new_loop):
    loop = new_loop()

    def handler(loop, context):
        raise KeyboardInterrupt

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.set_exception_handler(None)


def test_entered_context_is_an_error_of_the_callback(loop, asyncio_log):
    context = contextvars.copy_context()
    loop.call_soon(print, context=context)
    context.run(run_turns, loop)
    # The exception handler cannot run in it either.
    assert "cannot enter context" in asyncio_log.take_one().getMessage()


def test_context_may_be_anything_that_runs(loop):
    class Context:
        def run(self, callback, *args):
            seen.append("context")
            callback(*args)

    seen = []
    loop.call_soon(seen.append, 1, context=Context())
    run_turns(loop)
    assert seen == ["context", 1]


def test_signal_handlers_run_while_no_python_code_does(loop):
    class Stop(Exception):
        pass

    def handler(*_):
        raise Stop

    before = signal.signal(signal.SIGALRM, handler)
    try:
        loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.005)
        with pytest.raises(Stop):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_debug_mode_may_change_in_the_middle_of_a_turn(loop):
    seen = []
    for enabled in (True, False, True, False):
        loop.call_soon(seen.append, enabled)
        loop.call_soon(loop.set_debug, enabled)
        loop.call_later(0, seen.append, 2)
        loop.call_soon(lambda: loop.call_soon(seen.append, 3))
        run_turns(loop, 3)
    assert sorted(seen) == sorted([True, 2, 3, False, 2, 3] * 2)


def test_other_threads_run_while_no_python_code_does(loop):
    again = functools.partial(print)
    again.__setstate__((loop.call_soon, (again,), {}, {}))  # calls itself for ever, in C
    running = threading.Event()

    def stop():
        running.wait()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=stop)
    thread.start()
    loop.call_soon(running.set)
    loop.call_soon(again)
    loop.run_forever()
    thread.join()
    again.__setstate__((print, (), {}, {}))
    loop._ready.clear()


# ------------------------------------------------------------ timers


def test_timers_of_one_time_fire_in_order_of_their_creation(loop):
    now = [0.0]
    loop.time = lambda: now[0]
    rng = random.Random(5)
    seen, expected = [], []
    for i in range(500):
        when = rng.choice([1, 2, Fraction(3, 2), 2.5, Decimal("0.5")])
        handle = loop.call_at(when, seen.append, i)
        if rng.random() < 0.5:
            handle.cancel()
        else:
            expected.append((when, i))
    now[0] = 10.0
    run_turns(loop, 2)
    assert seen == [i for _, i in sorted(expected)]
    assert not loop._timers.pending


@pytest.mark.parametrize("when", [Fraction(1, 3), Decimal("0.1"), 0.1, 7])
def test_timers_are_not_early_whatever_they_count_in(loop, when):
    now = [when - type(when)(1)]
    loop.time = lambda: now[0]
    seen = []
    loop.call_at(when, seen.append, 1)
    loop.call_soon(lambda: None)
    run_turns(loop, 2)
    assert seen == []
    now[0] = when
    run_turns(loop, 2)
    assert seen == [1]


@pytest.mark.parametrize("when", [None, "1", float("nan"), [], 1j])
def test_times_that_are_none(loop, when):
    kind = ValueError if when != when else TypeError
    with pytest.raises(kind):
        loop.call_at(when, print)
    with pytest.raises(kind):
        loop.call_later(when, print)
    assert not loop._timers.pending


def test_call_later_reads_the_clock_once(loop):
    times = iter([1.0, Fraction(5, 2)])
    loop.time = lambda: next(times)
    assert loop.call_later(1, print).when() == 2.0
    assert loop.call_later(1, print).when() == Fraction(7, 2)
    loop._timers.clear()


def test_cancelled_timers_go(loop):
    timers = [loop.call_later(1000 + i, print) for i in range(1000)]
    keep = timers[::10]
    for timer in timers:
        if timer not in keep:
            timer.cancel()
    assert loop._timers.pending < 400
    assert [each for each in timers if each._scheduled and not each._cancelled] == keep
    for timer in keep:
        timer.cancel()
    loop._timers.clear()
    assert not any(each._scheduled for each in timers)


TIMES = {
    "float": lambda rng, step: float(rng.randrange(100) + step // 30),
    "most at the end": lambda rng, step: step // 30 + (90.0 if rng.random() < 0.9 else 5.0),
    "crowded": lambda rng, step: step / 30 + rng.random() / 100,
    "far": lambda rng, step: rng.choice([1e6, math.inf, step / 30, step // 30]),
    "fraction": lambda rng, step: Fraction(rng.randrange(300) + step // 10, 3),
    "fraction now and then": lambda rng, step: (Fraction if rng.random() < 0.01 else float)(
        rng.randrange(60) + step // 30
    ),
}


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("seed", range(5))
def test_timers_behave_as_pythons_under_random_use(variant, time, seed):
    if variant != "accelerated":
        pytest.skip("compares the two by itself")
    from veloop import _speedups

    rng = random.Random(seed)
    loop = veloop.new_event_loop()
    ours, theirs, due = _speedups.Timers(), timers.Timers(), {}
    pairs = []
    for step in range(3000):
        action = rng.random()
        if action < 0.6:
            when = TIMES[time](rng, step)
            pair = [TimerHandle(when, print, (step,), loop) for _ in range(2)]
            pairs.append(pair)
            ours.add(pair[0])
            theirs.add(pair[1])
        elif action < 0.8 and pairs:
            # A new one more often than any: that is what happens to a timeout.
            chosen = pairs[-1] if rng.random() < 0.3 else rng.choice(pairs)
            for each, timer in zip((ours, theirs), chosen, strict=True):
                if not timer._cancelled:
                    if each.cancelled(timer):
                        each.compact(timer)
                    timer._cancelled = True
        elif action < 0.9:
            when = theirs.next_when()
            assert ours.next_when() == (None if when is None else float(when))
            clock = [lambda: step / 30, lambda: Fraction(step, 30)][step % 2]  # noqa: B023
            assert ours.sleep_time(clock) == pytest.approx(float(theirs.sleep_time(clock)))
        else:
            due = [_speedups.Queue(), deque()]
            now = step / 30 if rng.random() < 0.5 else Fraction(step, 30)
            ours.pop_due(now, due[0])
            theirs.pop_due(now, due[1])
            assert [each._args for each in due[0]] == [each._args for each in due[1]]
        if step % 100 == 0:
            live = [pair for pair in pairs if pair[0]._scheduled and not pair[0]._cancelled]
            assert {id(pair[0]) for pair in live} == {
                id(each) for each in ours.scheduled if not each._cancelled
            }
            assert all(pair[1]._scheduled for pair in live)
    ours.clear()
    theirs.clear()
    assert ours.next_when() is theirs.next_when() is None
    loop.close()


@pytest.mark.parametrize(
    ("now", "apart", "count", "seconds"),
    [
        (0.0, 1e-5, 40, 1e-3),  # many: they wait for the end of a millisecond
        (0.0, 1e-5, 31, 5e-4),
        (0.0, 2e-5, 32, 5e-4),  # the last of them is due later
        (-10.0, 1e-5, 40, 10.0005),
        (5e-4, 1e-5, 40, 0.0),  # never, if one is due
        (1.0, 1e-5, 40, 0.0),
        (-1e9, 1e-5, 40, 24 * 3600.0),
        (0.0, 0.0, 0, -1.0),
    ],
)
def test_time_to_sleep(variant, now, apart, count, seconds):
    loop = veloop.new_event_loop()
    try:
        for number in range(count):
            loop._timers.add(TimerHandle(5e-4 + number * apart, print, (), loop))
        loop._timers.next_when()
        assert loop._timers.sleep_time(lambda: now) == pytest.approx(seconds)
        loop._timers.clear()
    finally:
        loop.close()


def test_queue_behaves_as_a_deque_under_random_use(variant):
    if variant != "accelerated":
        pytest.skip("compares the two by itself")
    from veloop import _speedups

    rng = random.Random(3)
    ours, theirs = _speedups.Queue(), deque()
    for step in range(5000):
        action = rng.choice(["append", "append", "popleft", "extend", "clear"])
        if action == "clear" and rng.random() < 0.98:
            continue
        args = {"append": (step,), "extend": (range(step % 60),)}.get(action, ())
        assert (
            outcome(getattr(ours, action), *args)[0] == outcome(getattr(theirs, action), *args)[0]
        )
        assert len(ours) == len(theirs) and bool(ours) == bool(theirs)
        if step % 50 == 0:
            assert list(ours) == list(theirs)
    with pytest.raises(TypeError):
        ours.extend(1)
    with pytest.raises(ZeroDivisionError):
        ours.extend(1 // each for each in (1, 0))
    with pytest.raises(TypeError):
        _speedups.Timers().add(object())


# ------------------------------------------------------------ futures and tasks


def test_futures_and_tasks_are_asyncios(loop, monkeypatch):
    assert type(loop.create_future()) is asyncio.Future
    context = contextvars.copy_context()

    async def main():
        return asyncio.current_task().get_name()

    assert run(loop, loop.create_task(main(), name="a", context=context)) == "a"
    assert run(loop, loop.create_task(coro=main())).startswith("Task-")
    coro = main()
    with pytest.raises(TypeError):
        loop.create_task(coro, loop=loop)
    with pytest.raises(TypeError):
        loop.create_task(coro, surprise=1)
    coro.close()

    class Future(asyncio.Future):
        pass

    monkeypatch.setattr(asyncio, "Future", Future)
    assert type(loop.create_future()) is Future


def test_task_factory_is_used(loop):
    seen = []

    def factory(loop, coro, **kwargs):
        seen.append(kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    run(loop, loop.create_task(asyncio.sleep(0)))
    assert len(seen) == 1
