"""stream.py, reading: data and its end, pause and resume, protocols that fail.

BufferedProtocol: test_stream_buffered.py. Writing: test_stream_write.py. The end of a connection:
test_stream_close.py. asyncio's streams on top: test_stream_layer.py. Every way a transport comes
about is tried where it could matter.
"""

import asyncio
import socket
import unittest.mock

import pytest

from helpers import (
    RecordingProtocol,
    drain,
    in_thread,
)
from tcp_helpers import MUCH, WAYS, in_executor, linked, pattern, reset, run, turns, until, wired

# asyncio's transports and veloop's read at most so much at once.
READ_MAX = 256 * 1024


async def send_all(peer, data):
    """Send from a thread: the loop has to read meanwhile."""
    await in_executor(peer.sendall, data)


# ------------------------------------------------------------ data


@pytest.mark.parametrize("way", WAYS)
def test_data_is_bytes_in_order(loop, way):
    types = set()

    class Protocol(RecordingProtocol):
        def data_received(self, data):
            types.add(type(data))
            super().data_received(data)

    async def main():
        async with wired(loop, lambda: Protocol(loop), way) as (_, protocol, peer):
            data = pattern(1 << 21)
            await send_all(peer, data)
            assert await protocol.received(len(data)) == data

    run(loop, main())
    assert types == {bytes}


def test_data_kept_by_the_protocol_stays_what_it_was(loop):
    # What is read next must not come into the same memory.
    pieces = []

    class Protocol(RecordingProtocol):
        def data_received(self, data):
            pieces.append(data)
            super().data_received(data)

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (_, protocol, peer):
            for number in range(100):
                peer.sendall(b"%04d" % number)
                await protocol.received(4 * (number + 1))

    run(loop, main())
    assert b"".join(pieces) == b"".join(b"%04d" % number for number in range(100))


class Proxy:
    """Stands for another protocol, and forwards whatever it is asked, as tracing libraries do."""

    def __init__(self, target):
        self._target = target

    def __getattr__(self, name):
        return getattr(self._target, name)


@pytest.mark.parametrize("kind", [lambda mock: mock, Proxy], ids=["mock", "proxy"])
def test_protocol_that_answers_every_attribute_gets_bytes(loop, kind):
    async def main():
        pieces = asyncio.Queue()
        mock = unittest.mock.MagicMock()
        mock.data_received = pieces.put_nowait
        async with wired(loop, way="given") as (transport, _, peer):
            transport.set_protocol(kind(mock))
            kept = []
            for word in (b"first", b"second", b"third"):
                peer.send(word)
                kept.append(await pieces.get())
            assert kept == [b"first", b"second", b"third"]
            assert {type(piece) for piece in kept} == {bytes}

    run(loop, main())


def test_one_call_takes_at_most_as_much_as_asyncio_does(loop):
    sizes = []

    class Protocol(RecordingProtocol):
        def data_received(self, data):
            sizes.append(len(data))
            super().data_received(data)

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (_, protocol, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            await send_all(peer, bytes(1 << 22))
            await protocol.received(1 << 22)

    run(loop, main())
    assert max(sizes) <= READ_MAX


def test_single_bytes(loop):
    async def main():
        async with wired(loop) as (_, protocol, peer):
            for number in range(300):
                peer.send(bytes([number % 256]))
            expected = bytes(number % 256 for number in range(300))
            assert await protocol.received(300) == expected

    run(loop, main())


def test_data_and_end_at_once_come_in_order(loop):
    async def main():
        async with wired(loop) as (_, protocol, peer):
            peer.sendall(b"last")
            peer.close()
            await protocol.lost
            return protocol.events

    assert run(loop, main()) == [
        ("connection_made",),
        ("data", b"last"),
        ("eof",),
        ("connection_lost", None),
    ]


# ------------------------------------------------------------ the end of the stream


@pytest.mark.parametrize("way", WAYS)
def test_eof_closes_unless_the_protocol_says_otherwise(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert transport.is_closing()
            assert peer.recv(1) == b""
            return protocol.names

    assert run(loop, main()) == ["connection_made", "eof", "connection_lost"]


@pytest.mark.parametrize("way", WAYS)
def test_eof_received_returning_true_keeps_the_other_half_open(loop, way):
    async def main():
        factory = lambda: RecordingProtocol(loop, keep_open_on_eof=True)  # noqa: E731
        async with wired(loop, factory, way) as (transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.ended
            await turns(10)
            assert not transport.is_closing()
            transport.write(b"still here")
            assert drain(peer, 10) == b"still here"
            transport.close()
            assert await protocol.lost is None
            # Once, although the socket stays readable.
            return protocol.names

    assert run(loop, main()) == ["connection_made", "eof", "connection_lost"]


def test_eof_received_may_write_before_the_close(loop):
    class Protocol(RecordingProtocol):
        def eof_received(self):
            self.transport.write(b"goodbye")
            return super().eof_received()

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (_, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert drain(peer, 7) == b"goodbye"

    run(loop, main())


def test_eof_while_much_is_to_be_written_is_answered_in_full(loop):
    size = MUCH

    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.write(b"x" * size)
            peer.shutdown(socket.SHUT_WR)
            await protocol.ended
            assert transport.is_closing()
            assert len(await in_executor(drain, peer, size)) == size
            assert await protocol.lost is None

    run(loop, main())


def test_protocol_without_eof_received_of_its_own_is_closed(loop):
    lost = []

    class Bare(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def connection_lost(self, exc):
            lost.append(exc)

    async def main():
        left, right = socket.socketpair()
        with right:
            await loop.connect_accepted_socket(Bare, left)
        await until(lambda: lost)

    run(loop, main())
    assert lost == [None]


# ------------------------------------------------------------ pause and resume


@pytest.mark.parametrize("way", WAYS)
def test_paused_transport_delivers_nothing(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            assert transport.is_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            peer.sendall(b"wait")
            await turns(50)
            assert protocol.data == b""
            transport.resume_reading()
            assert transport.is_reading()
            assert await protocol.received(4) == b"wait"

    run(loop, main())


def test_pause_and_resume_are_idempotent(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.resume_reading()
            for _ in range(3):
                transport.pause_reading()
                transport.pause_reading()
                assert not transport.is_reading()
                transport.resume_reading()
                transport.resume_reading()
                assert transport.is_reading()
            peer.sendall(b"hello")
            assert await protocol.received(5) == b"hello"

    run(loop, main())


def test_pause_and_resume_of_a_closing_transport_do_nothing(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.close()
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_reading()
            peer.sendall(b"too late")
            await protocol.lost
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_reading()
            assert protocol.data == b""

    run(loop, main())


def test_peer_is_held_up_while_reading_is_paused(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            peer.setblocking(False)
            sent = 0
            while True:
                try:
                    sent += peer.send(b"x" * 65536)
                except BlockingIOError:
                    await turns(20)
                    try:
                        sent += peer.send(b"x" * 65536)
                    except BlockingIOError:
                        break
            assert protocol.data == b""
            transport.resume_reading()
            await protocol.received(sent)
            assert len(protocol.data) == sent

    run(loop, main())


class Pausing(RecordingProtocol):
    """Pauses at each piece of data, and counts the calls."""

    def __init__(self, loop):
        super().__init__(loop)
        self.calls = 0

    def data_received(self, data):
        self.calls += 1
        self.transport.pause_reading()
        super().data_received(data)


@pytest.mark.parametrize("way", WAYS)
def test_pause_in_data_received_holds_what_was_read_already(loop, way):
    # libuv reads more than once a turn: those pieces must wait, in order, with the end behind.
    async def main():
        async with wired(loop, lambda: Pausing(loop), way) as (transport, protocol, peer):
            data = pattern(READ_MAX * 4)
            transport.pause_reading()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data) * 2)
            sending = loop.create_task(send_all(peer, data))
            await turns(50)
            calls = 0
            while len(protocol.data) < len(data):
                transport.resume_reading()
                await until(lambda calls=calls: protocol.calls > calls)
                await turns(10)
                # One piece for each time that it resumed.
                calls += 1
                assert protocol.calls == calls
            await sending
            assert protocol.data == data
            peer.close()
            await turns(50)
            assert "eof" not in protocol.names
            transport.resume_reading()
            assert await protocol.lost is None
            return protocol.names

    names = run(loop, main())
    assert names == ["connection_made", "data", "eof", "connection_lost"]


def test_end_of_the_stream_waits_while_paused(loop):
    async def main():
        async with wired(loop, lambda: Pausing(loop)) as (transport, protocol, peer):
            peer.sendall(b"data")
            peer.close()
            await protocol.received(4)
            await turns(50)
            assert protocol.names == ["connection_made", "data"]
            transport.resume_reading()
            await protocol.lost
            assert protocol.names[2:] == ["eof", "connection_lost"]

    run(loop, main())


def test_held_data_is_not_delivered_from_within_resume_reading(loop):
    # The protocol may be in the middle of something when it resumes.
    async def main():
        async with wired(loop, lambda: Pausing(loop)) as (transport, protocol, peer):
            transport.pause_reading()
            await send_all(peer, pattern(READ_MAX * 2))
            calls = protocol.calls
            transport.resume_reading()
            assert protocol.calls == calls
            await until(lambda: protocol.calls > calls)
            calls = protocol.calls
            transport.resume_reading()
            assert protocol.calls == calls
            await until(lambda: protocol.calls > calls)

    run(loop, main())


def test_pause_right_after_resume_delivers_nothing(loop):
    async def main():
        async with wired(loop, lambda: Pausing(loop)) as (transport, protocol, peer):
            transport.pause_reading()
            data = pattern(READ_MAX * 2)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data) * 2)
            sending = loop.create_task(send_all(peer, data))
            while len(protocol.data) < len(data):
                transport.resume_reading()
                transport.pause_reading()
                await turns(3)
                before = len(protocol.data)
                await turns(3)
                assert len(protocol.data) == before
                transport.resume_reading()
                await until(lambda before=before: len(protocol.data) > before)
            await sending
            assert protocol.data == data

    run(loop, main())


def test_pausing_and_resuming_within_data_received(loop):
    class Restless(RecordingProtocol):
        def data_received(self, data):
            self.transport.pause_reading()
            self.transport.resume_reading()
            super().data_received(data)

    async def main():
        async with wired(loop, lambda: Restless(loop)) as (_, protocol, peer):
            data = pattern(1 << 21)
            await send_all(peer, data)
            assert await protocol.received(len(data)) == data

    run(loop, main())


def test_transport_paused_in_connection_made_reads_nothing(loop):
    class Late(RecordingProtocol):
        def connection_made(self, transport):
            transport.pause_reading()
            super().connection_made(transport)

    async def main():
        async with wired(loop, lambda: Late(loop)) as (transport, protocol, peer):
            assert not transport.is_reading()
            peer.sendall(b"hello")
            await turns(50)
            assert protocol.data == b""
            transport.resume_reading()
            assert await protocol.received(5) == b"hello"

    run(loop, main())


def test_close_drops_held_data(loop):
    async def main():
        async with wired(loop, lambda: Pausing(loop)) as (transport, protocol, peer):
            transport.pause_reading()
            await send_all(peer, pattern(READ_MAX * 2))
            transport.resume_reading()
            await until(lambda: protocol.calls)
            transport.close()
            transport.resume_reading()
            await protocol.lost
            assert protocol.calls == 1

    run(loop, main())


# ------------------------------------------------------------ protocols that fail


@pytest.mark.parametrize("way", WAYS)
def test_data_received_that_raises_loses_its_connection(loop, loop_errors, way):
    class Failing(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            raise ZeroDivisionError("in data_received")

    async def main():
        async with wired(loop, lambda: Failing(loop), way) as (transport, protocol, peer):
            peer.sendall(b"x")
            exc = await protocol.lost
            assert peer.recv(1) == b""
            return transport, protocol, exc

    transport, protocol, exc = run(loop, main())
    assert isinstance(exc, ZeroDivisionError)
    assert protocol.names == ["connection_made", "data", "connection_lost"]
    context = loop_errors.take_one()
    assert context["message"] == "Fatal error: protocol.data_received() call failed."
    assert context["exception"] is exc
    assert context["transport"] is transport
    assert context["protocol"] is protocol


def test_server_outlives_protocols_that_raise(loop, loop_errors):
    class Failing(RecordingProtocol):
        def data_received(self, data):
            if data == b"bad":
                raise ZeroDivisionError("in data_received")
            super().data_received(data)

    async def main():
        async with linked(loop, server_factory=lambda: Failing(loop)) as (client, good):
            for _ in range(3):
                sock = socket.create_connection(client.transport.get_extra_info("peername"))
                sock.sendall(b"bad")
                await until(lambda: loop_errors.items)
                assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)
                sock.close()
            client.transport.write(b"good")
            assert await good.received(4) == b"good"

    run(loop, main())


def test_eof_received_that_raises_loses_its_connection(loop, loop_errors):
    class Failing(RecordingProtocol):
        def eof_received(self):
            super().eof_received()
            raise ZeroDivisionError("in eof_received")

    async def main():
        async with wired(loop, lambda: Failing(loop)) as (_, protocol, peer):
            peer.close()
            return await protocol.lost

    exc = run(loop, main())
    assert isinstance(exc, ZeroDivisionError)
    context = loop_errors.take_one()
    assert context["message"] == "Fatal error: protocol.eof_received() call failed."
    assert context["exception"] is exc


@pytest.mark.parametrize("way", WAYS)
def test_connection_made_that_raises_leaves_the_connection_open(loop, loop_errors, way):
    class Failing(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError("in connection_made")

    async def main():
        async with wired(loop, lambda: Failing(loop), way) as (transport, protocol, peer):
            assert protocol.transport is transport
            peer.sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            transport.write(b"world")
            assert drain(peer, 5) == b"world"

    run(loop, main())
    context = loop_errors.take_one()
    assert str(context["exception"]) == "in connection_made"
    assert context["message"].startswith("Exception in callback ")
    assert "Failing.connection_made" in context["message"]


@pytest.mark.parametrize("way", WAYS)
def test_closed_by_a_connection_made_that_raises(loop, loop_errors, way):
    class Failing(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()
            raise ZeroDivisionError("in connection_made")

    async def main():
        async with wired(loop, lambda: Failing(loop), way) as (_, protocol, peer):
            assert await protocol.lost is None
            assert peer.recv(1) == b""

    run(loop, main())
    assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)


# ------------------------------------------------------------ one transport and another


def test_closed_by_another_connection_in_the_same_turn_reads_nothing_more(loop):
    # Both have data waiting when the loop looks; the first one's protocol closes the second.
    protocols = []

    class Killer(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            for other in protocols:
                if other is not self:
                    other.transport.abort()

    async def main():
        async with wired(loop, lambda: Killer(loop)) as (_, one, first):
            async with wired(loop, lambda: Killer(loop)) as (_, two, second):
                protocols.extend([one, two])
                first.sendall(b"x")
                second.sendall(b"x")
                await until(lambda: one.lost.done() or two.lost.done())
                assert sorted(len(each.data) for each in protocols) == [0, 1]

    run(loop, main())


def test_reset_by_the_peer_while_paused_is_noticed_later(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            reset(peer)
            await turns(20)
            transport.resume_reading()
            assert isinstance(await protocol.lost, ConnectionResetError)

    run(loop, main())


def test_transport_is_usable_from_thread_to_thread_while_the_loop_stands_still(loop):
    # Ownership is of the thread that runs the loop, and only while it runs.
    async def setup():
        left, right = socket.socketpair()
        _, protocol = await loop.connect_accepted_socket(lambda: RecordingProtocol(loop), left)
        return protocol, right

    protocol, peer = run(loop, setup())
    with peer:
        in_thread(protocol.transport.write, b"from a thread")
        assert drain(peer, 13) == b"from a thread"
        peer.sendall(b"hello")
        in_thread(run, loop, protocol.received(5))
        assert protocol.data == b"hello"
        protocol.transport.close()
        run(loop, protocol.lost)
