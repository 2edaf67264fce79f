"""Large messages, which the accelerator reads without a copy once it has seen one."""

import asyncio
import random
import socket

import pytest

from helpers import LINUX, WINDOWS, RecordingProtocol, poll, run_until
from tcp_helpers import run_forever

LARGE = 100 * 1024

pytestmark = pytest.mark.skipif(
    not (LINUX or WINDOWS), reason="a pair of sockets takes 8 KiB there, and nobody reads meanwhile"
)


def primed(loop, connections, factory=RecordingProtocol):
    """(protocol, peer) of a connection that has had a large message; the data is forgotten."""
    ((protocol, peer),) = connections(1, lambda: factory(loop))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * LARGE)
    for _ in range(2):
        peer.sendall(bytes(LARGE))
        run_until(loop, lambda: len(protocol.data) == LARGE)
        protocol.data.clear()
    protocol.events.clear()
    return protocol, peer


def message(seed, size=LARGE):
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_messages_of_all_sizes_arrive_as_they_were_sent(loop, connections, debug):
    protocol, peer = primed(loop, connections)
    loop.set_debug(debug)
    sizes = [1, LARGE, 3 * LARGE, 10, 16 * 1024, 16 * 1024 - 1, LARGE, LARGE, 64 * 1024 + 1]
    for number, size in enumerate(sizes):
        sent = message(number, size)
        peer.sendall(sent)
        run_until(loop, lambda size=size: len(protocol.data) >= size)
        assert protocol.data == sent
        protocol.data.clear()


def test_paused_protocol_is_given_nothing(loop, connections):
    protocol, peer = primed(loop, connections)
    sent = message(1)
    peer.sendall(sent)
    protocol.transport.pause_reading()
    poll(loop)
    assert not protocol.data
    protocol.transport.resume_reading()
    run_until(loop, lambda: len(protocol.data) >= len(sent))
    assert protocol.data == sent


def test_protocol_that_pauses_in_the_turn_of_the_poll_is_given_nothing(loop, connections):
    class Pausing(RecordingProtocol):
        other = None

        def data_received(self, data):
            super().data_received(data)
            if self.other is not None:
                self.other.transport.pause_reading()

    pairs = [primed(loop, connections, Pausing) for _ in range(2)]
    for protocol, (other, _) in zip((pairs[0][0], pairs[1][0]), reversed(pairs), strict=True):
        protocol.other = other
    for number, (_, peer) in enumerate(pairs):
        peer.sendall(message(number))
    poll(loop)
    # Whoever came first had the other one paused, and has the whole of its own.
    given = [len(protocol.data) for protocol, _ in pairs]
    assert sorted(given) == [0, LARGE]
    for protocol, _ in pairs:
        protocol.other = None
        protocol.transport.resume_reading()
    run_until(loop, lambda: all(len(protocol.data) >= LARGE for protocol, _ in pairs))
    assert [protocol.data for protocol, _ in pairs] == [message(0), message(1)]


@pytest.mark.parametrize("size", [0, 1, LARGE])
def test_end_of_the_stream_after_a_large_message(loop, connections, size):
    protocol, peer = primed(loop, connections)
    peer.sendall(message(1, size))
    peer.shutdown(socket.SHUT_WR)
    run_until(loop, protocol.lost.done)
    assert protocol.data == message(1, size)
    assert protocol.names[-2:] == ["eof", "connection_lost"]


def test_connection_that_is_reset_after_a_large_message(loop, connections):
    protocol, peer = primed(loop, connections)
    protocol.transport.write(b"unread")
    peer.close()
    run_until(loop, protocol.lost.done)
    assert isinstance(protocol.lost.result(), ConnectionResetError)
    assert protocol.names == ["connection_lost"]


def test_protocol_that_closes_gets_no_more(loop, connections):
    class Closing(RecordingProtocol):
        closes = False

        def data_received(self, data):
            super().data_received(data)
            if self.closes:
                self.transport.close()

    protocol, peer = primed(loop, connections, Closing)
    protocol.closes = True
    peer.sendall(bytes(LARGE))
    run_until(loop, protocol.lost.done)
    assert len(protocol.events) == 2


def test_next_message_goes_to_the_protocol_that_took_over(loop, connections):
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(LARGE)
            self.data = bytearray()

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, nbytes):
            self.data += self.buffer[:nbytes]

    protocol, peer = primed(loop, connections)
    other = Buffered()
    peer.sendall(message(1))
    protocol.transport.set_protocol(other)
    run_until(loop, lambda: len(other.data) == LARGE)
    assert other.data == message(1)
    protocol.transport.set_protocol(protocol)
    peer.sendall(message(2))
    run_until(loop, lambda: len(protocol.data) == LARGE)
    assert protocol.data == message(2)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_data_received_loses_nothing(loop, connections, ending):
    class Interrupting(RecordingProtocol):
        raises = False

        def data_received(self, data):
            super().data_received(data)
            if self.raises:
                self.raises = False
                raise ending("data_received")

    pairs = [primed(loop, connections, Interrupting) for _ in range(4)]
    for number, (protocol, peer) in enumerate(pairs):
        protocol.raises = True
        peer.sendall(message(number))
    for _ in pairs:
        with pytest.raises(ending, match="data_received"):
            run_forever(loop)
    run_until(loop, lambda: all(len(protocol.data) >= LARGE for protocol, _ in pairs))
    assert [protocol.data for protocol, _ in pairs] == [message(number) for number in range(4)]
