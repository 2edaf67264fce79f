"""_speedups/stream.c: what is read and written is what Python's methods read and write."""

import asyncio
import contextvars
import os

import pytest

import veloop
from helpers import RecordingProtocol, run, run_turns
from speedups_helpers import accelerated_only, pair

pytestmark = accelerated_only


@pytest.fixture
def loop_kind(variant):
    return "veloop"


@pytest.fixture
def connected(loop):
    """A function that connects a protocol: (transport, the other end)."""
    ends = []

    def connect(protocol):
        ours, theirs = pair()
        ends.append(theirs)
        transport, _ = run(loop, loop.create_connection(lambda: protocol, sock=ours))
        return transport, theirs

    yield connect
    for end in ends:
        end.close()
    run_turns(loop, 3)


def turns_until(loop, condition):
    for _ in range(1000):
        if condition():
            return
        run_turns(loop)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_write_takes_any_buffer(loop, connected, kind):
    transport, peer = connected(asyncio.Protocol())
    transport.write(kind(b"abc"))
    transport.write(kind(b""))
    if kind is memoryview:
        transport.write(memoryview(b"a.b.c.")[::2])
        released = memoryview(b"x")
        released.release()
        with pytest.raises(ValueError):
            transport.write(released)
        with pytest.raises(BufferError):
            array = bytearray(b"x")
            view = memoryview(array)
            transport.write(view)
            array.append(1)
        view.release()
    expected = {bytes: b"abc", bytearray: b"abc", memoryview: b"abcabcx"}[kind]
    assert peer.recv(100) == expected
    for wrong in ("text", None, 1, ["x"]):
        with pytest.raises(TypeError):
            transport.write(wrong)
    transport.write_eof()
    with pytest.raises(RuntimeError):
        transport.write(kind(b"late"))
    transport.abort()
    turns_until(loop, lambda: transport._handle is None)
    assert transport._address is None
    with pytest.raises(RuntimeError):
        transport.write(kind(b"late"))


def test_large_writes_are_queued_and_pause_the_protocol(loop, connected):
    protocol = RecordingProtocol(loop)
    transport, peer = connected(protocol)
    data = os.urandom(1 << 20)
    transport.write(data)
    transport.write(bytearray(data))
    assert transport.get_write_buffer_size() > 0
    received = bytearray()
    while len(received) < 2 * len(data):
        run_turns(loop)
        try:
            received += peer.recv(1 << 20)
        except BlockingIOError:
            pass
    assert received == data * 2
    transport.abort()
    run_turns(loop, 3)


def test_write_after_the_loop_was_closed(variant):
    loop = veloop.new_event_loop()
    ours, theirs = pair()
    transport, _ = run(loop, loop.create_connection(asyncio.Protocol, sock=ours))
    loop.close()
    transport.write(b"lost")
    transport.write(memoryview(b"lost"))
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, _
    theirs.close()


class Failing(asyncio.Protocol):
    """Raises what it is told to; remembers what it was given."""

    def __init__(self, exc=None):
        self.exc, self.data, self.lost = exc, b"", []

    def connection_lost(self, exc):
        self.lost.append(exc)

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data
        if self.exc is not None:
            exc, self.exc = self.exc, None
            raise exc


class FailingBuffered(asyncio.BufferedProtocol):
    def __init__(self, exc=None, where="buffer_updated", size=1000):
        self.exc, self.data, self.lost = exc, b"", []
        self.where, self.buffer = where, bytearray(size)

    def connection_lost(self, exc):
        self.lost.append(exc)

    def fail(self, where):
        if self.exc is not None and where == self.where:
            exc, self.exc = self.exc, None
            raise exc

    def get_buffer(self, hint):
        assert hint == -1
        self.fail("get_buffer")
        return self.buffer

    def buffer_updated(self, size):
        self.data += self.buffer[:size]
        self.fail("buffer_updated")


MADE = [
    Failing,
    FailingBuffered,
    lambda exc=None: FailingBuffered(exc, "get_buffer"),
    lambda exc=None: FailingBuffered(exc, "buffer_updated", 4),
]


@pytest.mark.parametrize("make", MADE)
def test_protocol_that_fails_loses_its_connection(loop, connected, loop_errors, make):
    exc = ValueError("mine")
    protocol = make(exc)
    transport, peer = connected(protocol)
    peer.send(b"0123456789")
    turns_until(loop, lambda: protocol.lost)
    assert protocol.lost == [exc]
    assert loop_errors.take_one()["exception"] is exc


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_protocol_that_is_interrupted_loses_nothing(loop, connected, make, kind):
    protocol, other = make(kind()), Failing()
    transport, peer = connected(protocol)
    second, second_peer = connected(other)
    peer.send(b"0123456789")
    second_peer.send(b"other")
    with pytest.raises(kind):
        turns_until(loop, lambda: protocol.data and other.data)
    turns_until(loop, lambda: protocol.data == b"0123456789" and other.data == b"other")
    transport.abort()
    second.abort()
    turns_until(loop, lambda: protocol.lost and other.lost)


@pytest.mark.parametrize(
    ("buffer", "error"),
    [
        (b"read only", TypeError),
        (bytearray(), RuntimeError),
        (b"", RuntimeError),
        (memoryview(bytearray(160)).cast("i")[::2], TypeError),
        (memoryview(bytearray(40))[::2], None),
        (5, TypeError),
        (memoryview(bytearray(40)).cast("i"), None),
        (memoryview(bytearray(16)).cast("B", (4, 4)), None),
    ],
)
def test_buffers_of_every_kind(loop, connected, loop_errors, buffer, error):
    protocol = FailingBuffered()
    protocol.buffer = buffer
    protocol.buffer_updated = lambda size: protocol.sizes.append(size)
    protocol.sizes = []
    transport, peer = connected(protocol)
    peer.send(b"01234567")
    if error is None:
        turns_until(loop, lambda: protocol.sizes)
        assert protocol.sizes == [8]
        assert memoryview(buffer).tobytes()[:8] == b"01234567"
        transport.abort()
    turns_until(loop, lambda: protocol.lost)
    if error is not None:
        assert type(loop_errors.take_one()["exception"]) is error


def test_protocol_runs_in_the_context_of_its_connection(loop, connected):
    var = contextvars.ContextVar("var", default=None)
    seen = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            var.set("connection")

        def data_received(self, data):
            seen.append(var.get())

    transport, peer = connected(Protocol())
    var.set("elsewhere")
    peer.send(b"x")
    turns_until(loop, lambda: seen)
    assert seen == ["connection"]
    transport.abort()
    run_turns(loop, 3)


def test_protocol_may_be_replaced_paused_and_closed_by_what_it_is_given(loop, connected):
    second = Failing()

    class First(FailingBuffered):
        def buffer_updated(self, size):
            super().buffer_updated(size)
            transport.set_protocol(second)

    first = First(size=3)
    transport, peer = connected(first)
    peer.send(b"abcdef")
    turns_until(loop, lambda: second.data)
    assert (first.data, second.data) == (b"abc", b"def")
    transport.pause_reading()
    peer.send(b"later")
    run_turns(loop, 3)
    assert second.data == b"def"
    transport.resume_reading()
    turns_until(loop, lambda: second.data == b"deflater")
    transport.close()
    turns_until(loop, lambda: second.lost)
