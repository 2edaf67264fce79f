"""_speedups: slots that programs deleted or filled with odd things, and code run at odd times.

What would end the process runs in one of its own.
"""

import asyncio

import pytest

import veloop
from helpers import run, run_turns
from speedups_helpers import accelerated_only, pair, python

pytestmark = accelerated_only


@pytest.fixture
def loop_kind(variant):
    return "veloop"


# ------------------------------------------------------------ it used to end the process


def test_destructor_of_a_time_may_run_another_loop():
    """The handles that the other loop gives back fill the list of those that are kept."""
    code = """
import threading, veloop
loop = veloop.new_event_loop()

def other():
    second = veloop.new_event_loop()
    now = second.time()
    for _ in range(1100):
        second.call_at(now, int)
    second.call_at(now, second.stop)
    second.run_forever()
    second.close()

class Time(float):
    def __del__(self):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

loop.call_at(Time(loop.time()), int)
for _ in range(3):
    loop.call_soon(loop.stop)
    loop.run_forever()
timers = [loop.call_later(0, int) for _ in range(3000)]
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
print(len(set(map(id, timers))))
"""
    assert python(code) == ["3000"]


def test_destructor_of_scheduled_may_schedule_timers():
    code = """
import veloop
loop = veloop.new_event_loop()
kept = []

class Scheduled:
    def __del__(self):
        kept.extend(loop.call_later(5000, int) for _ in range(20000))

timers = [loop.call_later(1000 - i, int) for i in range(300)]
timers[20]._scheduled = Scheduled()
for timer in timers[10:290]:
    timer.cancel()
loop.call_soon(loop.stop)
loop.run_forever()
scheduled = loop._timers.scheduled
print(len(kept), sum(not timer.cancelled() for timer in scheduled))
loop.close()
"""
    assert python(code) == ["20000", "20020"]


def test_time_is_no_place_for_the_collector():
    # On 3.11 an exception that is made may collect garbage, in the midst of the sorting.
    code = """
import gc, veloop
loop = veloop.new_event_loop()
timers = [loop.call_at(10.0**9 - i, int) for i in range(50)]
timers[-1]._when = 10**400
more = []

class Garbage:
    def __init__(self):
        self.me = self

    def __del__(self):
        more.extend(loop.call_at(10.0**9, int) for _ in range(20000))

gc.collect()
gc.disable()
Garbage()
gc.set_threshold(1)
try:
    raise ValueError
except ValueError:
    gc.enable()
    loop._timers.next_when()
gc.collect()
print(len(more), loop._timers.pending)
loop.close()
"""
    assert python(code) == ["20000", "20050"]


def test_endpoint_that_is_closed_while_an_address_is_packed():
    """By a finalizer, or a signal's handler: the handle is dead then."""
    code = """
import asyncio, socket, veloop

async def main():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    transport._queued = 1  # so that abort() closes the handle at once
    pack, numbers = socket.inet_pton, []

    def abort(family, host):
        socket.inet_pton = pack
        transport.abort()
        numbers.extend(range(1 << 46, (1 << 46) + 20000))  # where its pointer was
        return pack(family, host)

    socket.inet_pton = abort
    transport.sendto(b"x", ("127.0.0.2", 9))
    print(transport.is_closing())

veloop.run(main())
"""
    assert python(code) == ["True"]


@pytest.mark.parametrize("name", ["_context", "_protocol"])
def test_protocol_that_deletes_what_its_transport_needs(name):
    code = f"""
import asyncio, veloop

class Deleting(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, hint):
        del self.transport.{name}
        return bytearray(100)

async def main():
    loop = asyncio.get_running_loop()
    failed = loop.create_future()
    loop.set_exception_handler(lambda loop, context: failed.set_result(context["exception"]))
    server = await loop.create_server(Deleting, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x")
    print(type(await failed).__name__, flush=True)
    os._exit(0)  # nothing could close that transport in order

import os
veloop.run(main())
"""
    assert python(code) == ["AttributeError"]


def test_timers_are_copied_before_the_collector_can_change_them():
    code = """
import gc, veloop
loop = veloop.new_event_loop()
timers = [loop.call_later(1000 + i, int, i) for i in range(50)]

class Garbage:
    def __init__(self):
        self.me = self

    def __del__(self):
        while timers:
            timers.pop().cancel()

gc.collect()
gc.set_threshold(1, 1, 1)
Garbage()
scheduled = loop._timers.scheduled
gc.set_threshold(700, 10, 10)
print(len(scheduled), sum(timer.when() >= 1000 for timer in scheduled))
loop.close()
"""
    assert python(code) == ["50", "50"]


# ------------------------------------------------------------ slots


class Frozen(veloop.EventLoop):
    """Its clock is set by hand."""

    now = 0.0

    def time(self):
        return Frozen.now


def test_timer_without_a_time_fires_at_the_one_that_it_had(variant, monkeypatch):
    if variant in ("python", "python containers"):
        pytest.skip("like asyncio's these look at the timer again")
    loop = Frozen()
    seen = []
    timer = loop.call_at(1.0, seen.append, 1)
    del timer._when
    monkeypatch.setattr(Frozen, "now", 1.0)
    run_turns(loop)
    loop.close()
    assert seen == [1]


@pytest.mark.parametrize("value", [1, True])
def test_what_is_true_is_cancelled(loop, value):
    seen = []
    for handle in (loop.call_soon(seen.append, 1), loop.call_later(0, seen.append, 2)):
        handle._cancelled = value
    run_turns(loop, 3)
    assert seen == []


@pytest.mark.parametrize(("when", "fires"), [(-(10**400), True), (10**400, False)])
def test_time_that_no_float_can_hold(when, fires):
    loop = veloop.new_event_loop()
    seen = []
    timer = loop.call_at(when, seen.append, 1)
    assert timer.when() == when
    run_turns(loop, 2)
    assert loop._timers.scheduled == ([] if fires else [timer])
    assert seen == [1] * fires
    timer.cancel()
    loop.close()


# ------------------------------------------------------------ the turn


def test_sleep_of_minus_two_seconds_is_one_without_end():
    class Loop(veloop.EventLoop):
        def _sleep_time(self):
            self.call_soon_threadsafe(self.stop)
            return -2.0

    loop = Loop()
    timer = loop.call_later(1000, int)
    loop.run_forever()
    timer.cancel()
    loop.close()


def test_exception_of_sleep_time_leaves_the_loop():
    class Loop(veloop.EventLoop):
        def _sleep_time(self):
            raise ZeroDivisionError

    loop = Loop()
    loop.call_later(1000, int).cancel()
    loop.call_later(1000, int)
    with pytest.raises(ZeroDivisionError):
        loop.run_forever()
    loop.close()


def test_debug_mode_switched_on_holds_for_timers_of_the_same_turn(loop, caplog):
    now = loop.time()
    loop.slow_callback_duration = 0.0
    loop.call_at(now, loop.set_debug, True)
    loop.call_at(now, int, "7")
    run_turns(loop, 2)
    loop.set_debug(False)
    assert "int('7')" in caplog.text


# ------------------------------------------------------------ buffers


@pytest.mark.parametrize("backing", [bytearray(10), b"0123456789", b""])
def test_released_buffer_is_an_error_of_the_protocol(loop, backing):
    errors = []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

    class Protocol(asyncio.BufferedProtocol):
        def get_buffer(self, hint):
            view = memoryview(backing)
            view.release()
            return view

        def buffer_updated(self, size):
            raise AssertionError

    ours, theirs = pair()
    transport, _ = run(loop, loop.create_connection(Protocol, sock=ours))
    theirs.send(b"abc")
    for _ in range(1000):
        run_turns(loop)
        if errors:
            break
    assert [type(exc) for exc in errors] == [ValueError]
    assert transport.is_closing()
    theirs.close()
    run_turns(loop, 3)


# ------------------------------------------------------------ memory


def cancel_all(loop, timers):
    for timer in timers:
        timer.cancel()


def clear(loop, timers):
    loop._timers.clear()


@pytest.mark.parametrize("end", [cancel_all, clear])
def test_timers_give_their_memory_back(end):
    import tracemalloc  # PyPy has none

    loop = veloop.new_event_loop()
    try:
        live = loop.call_later(1, int)
        timers = [loop.call_later(1000 + i, int) for i in range(20_000)]
        tracemalloc.start()  # from here on the list grows, for which it moves as a whole
        try:
            timers += [loop.call_later(1000 + i, int) for i in range(20_000)]
            room = 8 * len(timers)  # bytes, at least
            before = tracemalloc.get_traced_memory()[0]
            end(loop, timers)  # all of them but for the list are still there
            assert before - tracemalloc.get_traced_memory()[0] > room // 2
        finally:
            tracemalloc.stop()
        live.cancel()
    finally:
        loop.close()


# ------------------------------------------------------------ installing


@pytest.mark.parametrize("name", ["call_soon", "create_task", "cancel", "write"])
def test_half_an_installation_is_undone(name):
    code = f"""
import asyncio, veloop
from veloop import _speedups as speedups
from veloop._uv import lib
from veloop._uv.events import Driver, drop
from veloop.loop.handles import Handle, TimerHandle
from veloop.loop import core, datagram, debug, gil, stream
from veloop import stream_reader, streams

class Meta(type):
    armed = True

    def __setattr__(cls, name, value):
        if name == {name!r} and cls.armed and type(value).__name__ == "method_descriptor":
            raise ValueError(name)
        type.__setattr__(cls, name, value)

class Core(core.Core, metaclass=Meta):
    __slots__ = ()

    def time(self):
        return 1.0

class Timer(TimerHandle, metaclass=Meta):
    __slots__ = ()

class Stream(stream.StreamTransport, metaclass=Meta):
    __slots__ = ()

class Protocol(streams.StreamReaderProtocol, metaclass=Meta):
    __slots__ = ()

class Reader(veloop.StreamReader, metaclass=Meta):
    __slots__ = ()

class Udp(datagram.UdpTransport, metaclass=Meta):
    __slots__ = ()

classes = Core, Handle, Timer, Stream, Reader, Protocol, Udp
before = [dict(vars(cls)) for cls in classes]
arguments = (Core, Handle, Timer, Driver, Stream, Reader, Protocol,
             stream_reader.RESUMED, Udp, datagram.packed, datagram.unpacked, debug.run_all,
             gil, drop, asyncio)
try:
    speedups.install(lib.vl_table(), *arguments)
except ValueError:
    print("refused")
print([dict(vars(cls)) for cls in classes] == before)
Meta.armed = False
speedups.install(lib.vl_table(), *arguments)
print(type(Core.call_soon).__name__)
"""
    assert python(code, VELOOP_PURE="1") == ["refused", "True", "method_descriptor"]


def test_extension_without_its_containers_is_left_out():
    code = """
import sys, types
fake = types.ModuleType("veloop._speedups")
fake.install = lambda **_: print("installed")
sys.modules["veloop._speedups"] = fake
import veloop
print(veloop.accelerated)
"""
    assert python(code) == ["False"]
