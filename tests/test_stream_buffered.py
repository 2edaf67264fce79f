"""stream.py, reading into the protocol's own buffers, and protocols that change in mid-stream."""

import socket

import pytest

from helpers import (
    RecordingBufferedProtocol,
    RecordingProtocol,
    resizing,
)
from tcp_helpers import in_executor, pattern, run, turns, until, wired

# asyncio's transports and veloop's read at most so much at once.
READ_MAX = 256 * 1024


async def send_all(peer, data):
    """Send from a thread: the loop has to read meanwhile."""
    await in_executor(peer.sendall, data)


# ------------------------------------------------------------ BufferedProtocol


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_buffers_of_any_size_are_filled_in_order(loop, size):
    total = min(size * 3000, 1 << 21) + 5

    async def main():
        factory = lambda: RecordingBufferedProtocol(loop, size)  # noqa: E731
        async with wired(loop, factory) as (_, protocol, peer):
            data = pattern(total)
            await send_all(peer, data)
            assert await protocol.received(total) == data
            assert all(isinstance(hint, int) for hint in protocol.hints)
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        lambda size: memoryview(bytearray(size)),
        lambda size: memoryview(bytearray(size * 2))[:size],
    ],
    ids=["bytearray", "memoryview", "slice"],
)
def test_buffer_may_be_anything_writable(loop, make):
    class Protocol(RecordingBufferedProtocol):
        def __init__(self, loop):
            super().__init__(loop)
            self.buffer = make(100)

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (_, protocol, peer):
            data = pattern(950)
            peer.sendall(data)
            assert await protocol.received(950) == data

    run(loop, main())


def test_buffer_may_be_resized_in_buffer_updated(loop):
    """Nobody holds a view of it any more."""
    Protocol = resizing(RecordingBufferedProtocol)

    async def main():
        async with wired(loop, lambda: Protocol(loop, 8)) as (_, protocol, peer):
            for size in (100, 200):
                peer.sendall(pattern(size))
                assert await protocol.received(size) == pattern(size)
                del protocol.data[:]

    run(loop, main())


def test_each_buffer_may_be_another_one(loop):
    # As a parser does that reads a header and then what the header says.
    class Protocol(RecordingBufferedProtocol):
        def get_buffer(self, sizehint):
            self.buffer = bytearray(len(self.data) % 5 + 1)
            return self.buffer

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (_, protocol, peer):
            data = pattern(5000)
            await send_all(peer, data)
            assert await protocol.received(5000) == data

    run(loop, main())


def test_buffered_protocol_may_pause_between_buffers(loop):
    class Protocol(RecordingBufferedProtocol):
        def buffer_updated(self, nbytes):
            self.transport.pause_reading()
            super().buffer_updated(nbytes)

    async def main():
        async with wired(loop, lambda: Protocol(loop, 10)) as (transport, protocol, peer):
            data = pattern(95)
            peer.sendall(data)
            peer.close()
            for size in [*range(10, 100, 10), 95]:
                await protocol.received(size)
                await turns(10)
                assert len(protocol.data) == size
                transport.resume_reading()
            assert await protocol.lost is None
            assert protocol.data == data

    run(loop, main())


@pytest.mark.parametrize("method", ["close", "abort"])
def test_buffered_protocol_may_close_between_buffers(loop, method):
    class Protocol(RecordingBufferedProtocol):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            getattr(self.transport, method)()

    async def main():
        async with wired(loop, lambda: Protocol(loop, 10)) as (_, protocol, peer):
            peer.sendall(pattern(100))
            assert await protocol.lost is None
            assert len(protocol.data) == 10

    run(loop, main())


@pytest.mark.parametrize("buffer", [b"", bytearray(), memoryview(b"")], ids=["b", "ba", "mv"])
def test_empty_buffer_is_an_error(loop, loop_errors, buffer):
    class Protocol(RecordingBufferedProtocol):
        def get_buffer(self, sizehint):
            return buffer

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (transport, protocol, peer):
            peer.sendall(b"x")
            exc = await protocol.lost
            assert isinstance(exc, RuntimeError)
            assert str(exc) == "get_buffer() returned an empty buffer"
            return transport

    transport = run(loop, main())
    context = loop_errors.take_one()
    assert context["message"] == "Fatal error: protocol.get_buffer() call failed."
    assert context["transport"] is transport


@pytest.mark.parametrize("buffer", [b"read-only", None, "text", 5], ids=repr)
def test_what_is_no_writable_buffer_is_an_error(loop, loop_errors, buffer):
    class Protocol(RecordingBufferedProtocol):
        def get_buffer(self, sizehint):
            return buffer

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (_, protocol, peer):
            peer.sendall(b"x")
            return await protocol.lost

    exc = run(loop, main())
    assert isinstance(exc, (TypeError, BufferError, ValueError))
    assert loop_errors.take_one()["exception"] is exc


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("get_buffer", "Fatal error: protocol.get_buffer() call failed."),
        ("buffer_updated", "Fatal error: protocol.buffer_updated() call failed."),
    ],
)
def test_buffered_protocol_that_raises_loses_its_connection(loop, loop_errors, method, message):
    def fail(*args):
        raise ZeroDivisionError(method)

    async def main():
        async with wired(loop, lambda: RecordingBufferedProtocol(loop)) as (_, protocol, peer):
            setattr(protocol, method, fail)
            peer.sendall(b"x")
            return await protocol.lost

    exc = run(loop, main())
    assert isinstance(exc, ZeroDivisionError)
    context = loop_errors.take_one()
    assert context["message"] == message
    assert context["exception"] is exc


# ------------------------------------------------------------ protocols change in mid-stream


def test_protocol_may_change_from_one_kind_to_the_other(loop):
    async def main():
        async with wired(loop) as (transport, first, peer):
            protocol = first
            for number in range(6):
                peer.sendall(b"%06d" % number)
                assert await protocol.received(6) == b"%06d" % number
                kind = RecordingProtocol if number % 2 else RecordingBufferedProtocol
                protocol = kind(loop)
                transport.set_protocol(protocol)
                assert transport.get_protocol() is protocol
            assert first.names == ["connection_made", "data"]
            peer.shutdown(socket.SHUT_WR)
            await protocol.lost
            # Only the last one hears of the end; connection_made is called once, of the first.
            assert protocol.names == ["eof", "connection_lost"]
            assert not first.lost.done()

    run(loop, main())


def test_plain_protocol_takes_over_in_data_received(loop):
    # As a proxy does: what follows in the same turn goes to the new protocol.
    after = []

    class First(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            after.append(RecordingProtocol(self.loop))
            self.transport.set_protocol(after[0])

    async def main():
        async with wired(loop, lambda: First(loop)) as (transport, first, peer):
            data = pattern(READ_MAX * 3)
            transport.pause_reading()
            sending = loop.create_task(send_all(peer, data))
            await turns(20)
            transport.resume_reading()
            await sending
            await until(lambda: after and len(first.data) + len(after[0].data) == len(data))
            assert len(first.data) <= READ_MAX
            assert first.data + after[0].data == data

    run(loop, main())


@pytest.mark.parametrize("size", [5, 100, 1 << 20])
def test_plain_protocol_takes_over_from_a_buffered_one(loop, size):
    # What does not fit into the one's buffer goes to the other, not lost and not twice.
    after = []

    class First(RecordingBufferedProtocol):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            after.append(RecordingProtocol(self.loop))
            self.transport.set_protocol(after[0])

    async def main():
        async with wired(loop, lambda: First(loop, size)) as (_, first, peer):
            data = pattern(50_000)
            await send_all(peer, data)
            await until(
                lambda: len(first.data) + sum(len(each.data) for each in after) == len(data)
            )
            assert len(first.data) <= size
            assert first.data + b"".join(bytes(each.data) for each in after) == data

    run(loop, main())


def test_buffered_protocol_takes_over_in_data_received(loop):
    after = []

    class First(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            after.append(RecordingBufferedProtocol(self.loop, 1000))
            self.transport.set_protocol(after[0])

    async def main():
        async with wired(loop, lambda: First(loop)) as (_, first, peer):
            data = pattern(READ_MAX * 2)
            sending = loop.create_task(send_all(peer, data))
            await sending
            await until(lambda: after and len(first.data) + len(after[0].data) == len(data))
            assert first.data + after[0].data == data

    run(loop, main())
