"""_speedups: what it holds it lets go of, and what it lets go of is seen by the collector."""

import asyncio
import contextvars
import gc
import sys
import weakref

import pytest

import veloop
from helpers import run, run_turns
from speedups_helpers import accelerated_only, pair, resident
from veloop.loop.handles import Handle

pytestmark = accelerated_only


@pytest.fixture
def loop_kind(variant):
    return "veloop"


class Canary:
    """Something that can be seen to go."""


def nothing(*args):
    pass


# ------------------------------------------------------------ the garbage collector


def test_loop_without_references_is_collected_with_what_is_pending(variant):
    """A handle that only the queue has is the queue's, also for the garbage collector."""
    loop = veloop.new_event_loop()
    run_turns(loop)
    canary = Canary()
    for _ in range(3):
        loop.call_soon(nothing, loop, canary)
        loop.call_later(1000, nothing, loop, canary)
    gone = weakref.ref(canary)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop, canary
        gc.collect()
    assert gone() is None


@pytest.mark.parametrize("method", ["call_soon", "call_later"])
@pytest.mark.parametrize("cancel", [False, True])
def test_cycle_through_a_handle_is_collected_once_it_ran(loop, method, cancel):
    canary = Canary()
    args = (0, nothing) if method == "call_later" else (nothing,)
    canary.handle = getattr(loop, method)(*args, canary)
    if cancel:
        canary.handle.cancel()
    run_turns(loop, 3)
    gone = weakref.ref(canary)
    del canary
    gc.collect()
    assert gone() is None


def test_pending_handles_survive_the_collector(loop):
    seen = []
    handles = [loop.call_soon(seen.append, [i]) for i in range(100)]
    timers = [loop.call_later(0, seen.append, [i]) for i in range(100)]
    for i in range(100):
        loop.call_soon(seen.append, [i])
        loop.call_later(0, seen.append, [i])
    del handles[::2], timers[::2]
    gc.collect()
    run_turns(loop, 3)
    assert sorted(seen) == sorted([[i] for i in range(100)] * 4)


def test_handle_that_somebody_keeps_is_not_used_again(loop):
    kept = [loop.call_soon(nothing, i) for i in range(50)]
    weak = weakref.ref(loop.call_soon(nothing, "weak"))
    run_turns(loop)
    for _ in range(100):
        loop.call_soon(nothing, None)
    assert [each._args for each in kept] == [(i,) for i in range(50)]
    assert weak() is None
    run_turns(loop)
    assert all(gc.is_tracked(each) for each in kept)


def test_destructors_may_use_the_loop(loop):
    class Late:
        def __del__(self):
            handles.append(loop.call_soon(seen.append, "late"))

    handles, seen = [], []
    for _ in range(5):
        loop.call_soon(nothing, Late())
        loop.call_later(0, nothing, Late())
        loop.call_later(1000, nothing, Late()).cancel()
    run_turns(loop, 5)
    assert seen == ["late"] * 15


# ------------------------------------------------------------ 100,000 times the same


def chunks(loop, operation):
    """100,000 operations, a thousand in a turn."""
    for _ in range(100):
        for _ in range(1000):
            operation()
        run_turns(loop)


OPERATIONS = {
    "call_soon": lambda loop, callback, context: loop.call_soon(callback, callback),
    "context": lambda loop, callback, context: loop.call_soon(callback, context=context),
    "threadsafe": lambda loop, callback, context: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, callback, context: loop.call_later(0, callback, callback),
    "call_at": lambda loop, callback, context: loop.call_at(0.0, callback, context=context),
    "cancel": lambda loop, callback, context: loop.call_soon(callback).cancel(),
    "cancel timer": lambda loop, callback, context: loop.call_later(9, callback).cancel(),
    "future": lambda loop, callback, context: loop.create_future().cancel(),
    "time": lambda loop, callback, context: (loop.time(), loop.get_debug()),
    "error": lambda loop, callback, context: outcome_of(loop.call_soon, callback, surprise=1),
}


def outcome_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except TypeError:
        pass


@pytest.fixture
def accelerated_loop():
    loop = veloop.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.memory
@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_references_and_memory_do_not_grow(accelerated_loop, name):
    loop = accelerated_loop
    operation = OPERATIONS[name]
    context = contextvars.copy_context()

    def callback(*args):
        pass

    def operate():
        operation(loop, callback, context)

    for _ in range(2000):
        operate()
    run_turns(loop)
    gc.collect()
    things = [callback, context, loop, Handle]
    before, memory = [sys.getrefcount(each) for each in things], resident()
    chunks(loop, operate)
    gc.collect()
    after = [sys.getrefcount(each) for each in things]
    assert after[:3] == before[:3]
    # A handle that is kept for the next call counts as a reference to its class.
    assert abs(after[3] - before[3]) < 1500
    assert resident() - memory < 4 << 20


@pytest.mark.memory
@pytest.mark.slow
@pytest.mark.parametrize("buffered", [False, True])
def test_streams_do_not_leak(accelerated_loop, buffered):
    loop = accelerated_loop
    received = 0

    class Protocol(asyncio.BufferedProtocol if buffered else asyncio.Protocol):
        def get_buffer(self, hint):
            return buffer

        def buffer_updated(self, size):
            nonlocal received
            received += size
            transport.write(memoryview(buffer)[:size])

        def data_received(self, data):
            nonlocal received
            received += len(data)
            transport.write(data)

    buffer = bytearray(64)
    ours, theirs = pair()
    protocol = Protocol()
    transport, _ = run(loop, loop.create_connection(lambda: protocol, sock=ours))

    def exchange(times):
        for _ in range(times):
            theirs.send(b"x" * 64)
            run_turns(loop, 2)
            assert theirs.recv(100) == b"x" * 64

    exchange(500)
    things = [protocol, transport, buffer, transport._context]
    before, memory = [sys.getrefcount(each) for each in things], resident()
    exchange(5000)
    assert [sys.getrefcount(each) for each in things] == before
    assert resident() - memory < 4 << 20
    transport.abort()
    run_turns(loop, 3)
    theirs.close()


# ------------------------------------------------------------ no memory

try:
    from _testcapi import remove_mem_hooks, set_nomemory
except (ImportError, OSError):  # PyPy compiles it, from sources that are not always there
    set_nomemory = None


@pytest.mark.skipif(set_nomemory is None, reason="this Python cannot be made to fail")
@pytest.mark.parametrize("name", [*OPERATIONS, "turn"])
def test_memory_that_is_missing_is_an_exception(accelerated_loop, name):
    """Whichever allocation fails: a MemoryError, a loop that works, and nothing left behind."""
    loop = accelerated_loop
    failed = []
    loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
    context = contextvars.copy_context()
    for start in range(60):
        # What Python itself keeps for later must not save a call from asking for memory.
        held = [loop.create_future() for _ in range(100)]
        try:
            if name == "turn":  # only of the turn: run_forever() before and after it is Python
                loop.call_soon(set_nomemory, start, start + 1)
                for _ in range(3):
                    loop.call_soon(bytearray, 1000)
                    loop.call_later(0, bytearray, 1000)
                loop.call_later(0, remove_mem_hooks)
                loop.call_later(0, loop.stop)
                loop.run_forever()
            else:
                set_nomemory(start, start + 1)
                OPERATIONS[name](loop, nothing, context)
        except MemoryError as exc:
            failed.append(exc)
        finally:
            remove_mem_hooks()
        del held
        run_turns(loop, 2)
    if name not in ("time", "error"):
        assert failed and {type(exc) for exc in failed} == {MemoryError}
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_later(0, seen.append, 2)
    run_turns(loop, 3)
    assert seen == [1, 2]
