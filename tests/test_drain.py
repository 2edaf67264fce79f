"""_uv/events.py: the records of one turn: all of them arrive, in order, once, whatever happens.

An exception that ends the run in the middle of a batch, records of handles that were closed
meanwhile, more records than the ring has room for, more data than the slab has room for.
"""

import asyncio
import contextlib
import socket
import time

import pytest

from helpers import (
    PATIENCE,
    WINDOWS,
    RecordingBufferedProtocol,
    RecordingProtocol,
    collect,
    poll,
    run_until,
)
from tcp_helpers import (
    HOST,
    address,
    in_executor,
    pattern,
    reset,
    run,
    run_forever,
    serving,
    turns,
    until,
)
from veloop._uv import events

ENDINGS = [KeyboardInterrupt, SystemExit]


class Interrupting(RecordingProtocol):
    """Raises what `raises` says out of the callback it names, after it has noted the call."""

    raises = {}

    def _maybe_raise(self, name):
        exc = self.raises.pop(name, None)
        if exc is not None:
            raise exc(name)

    def connection_made(self, transport):
        super().connection_made(transport)
        self._maybe_raise("connection_made")

    def data_received(self, data):
        super().data_received(data)
        self._maybe_raise("data_received")

    def eof_received(self):
        self.events.append(("eof",))
        self._maybe_raise("eof_received")

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._maybe_raise("connection_lost")


# ------------------------------------------------------------ interrupted in the middle


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_interrupt_in_data_received_loses_nothing(loop, connections, ending, debug):
    loop.set_debug(debug)
    pairs = connections(20, lambda: Interrupting(loop))
    pairs[7][0].raises = {"data_received": ending}
    for number, (_, peer) in enumerate(pairs):
        peer.sendall(b"%04d" % number)
    with pytest.raises(ending, match="data_received"):
        run_forever(loop)
    for number, (protocol, _) in enumerate(pairs):
        run(loop, protocol.received(4))
        assert protocol.data == b"%04d" % number
    # And goes on.
    for number, (protocol, peer) in enumerate(pairs):
        peer.sendall(b"more")
        assert run(loop, protocol.received(8)) == b"%04dmore" % number


@pytest.mark.parametrize("ending", ENDINGS)
def test_interrupted_again_and_again_loses_nothing(loop, connections, ending):
    pairs = connections(10, lambda: Interrupting(loop))
    for protocol, peer in pairs:
        protocol.raises = {"data_received": ending}
        peer.sendall(b"data")
    for _ in pairs:
        with pytest.raises(ending):
            run_forever(loop)
    assert [bytes(protocol.data) for protocol, _ in pairs] == [b"data"] * 10


@pytest.mark.parametrize("ending", ENDINGS)
def test_interrupt_between_pieces_of_one_connection_loses_nothing(loop, ending):
    # Several reads of one connection in one turn, and its end.
    data = pattern(1 << 20)

    async def setup():
        server_protocols = []

        def factory():
            server_protocols.append(Interrupting(loop))
            return server_protocols[-1]

        server = await loop.create_server(factory, HOST, 0)
        peer = socket.create_connection(address(server), PATIENCE)
        await until(lambda: server_protocols)
        transport = await server_protocols[0].connected
        transport.pause_reading()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data) * 2)
        sending = loop.create_task(in_executor(peer.sendall, data))
        await turns(50)
        transport.resume_reading()
        server.close()
        return server_protocols[0], peer, sending

    protocol, peer, sending = run(loop, setup())
    interrupts = 0
    while len(protocol.data) < len(data):
        protocol.raises = {"data_received": ending}
        with pytest.raises(ending):
            run_forever(loop)
        interrupts += 1
    protocol.raises = {}
    assert interrupts > 1
    assert protocol.data == data
    run(loop, sending)
    peer.close()
    assert run(loop, protocol.lost) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_interrupt_while_held_data_is_delivered_loses_nothing(loop, ending):
    data = pattern(1 << 20)

    class Pausing(Interrupting):
        def data_received(self, data):
            self.transport.pause_reading()
            super().data_received(data)

    async def setup():
        left, right = socket.socketpair()
        right.settimeout(PATIENCE)
        _, protocol = await loop.connect_accepted_socket(lambda: Pausing(loop), left)
        sending = loop.create_task(in_executor(right.sendall, data))
        await until(lambda: protocol.data)
        await turns(50)
        return protocol, right, sending

    protocol, peer, sending = run(loop, setup())
    while len(protocol.data) < len(data):
        protocol.raises = {"data_received": ending}
        protocol.transport.resume_reading()
        with pytest.raises(ending):
            run_forever(loop)
    protocol.raises = {}
    assert protocol.data == data
    run(loop, sending)
    peer.close()
    protocol.transport.resume_reading()
    assert run(loop, protocol.lost) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_interrupt_in_a_held_piece_does_not_stop_the_ones_behind_it(loop, ending):
    # The protocol resumed for good: what is held must come without being asked for again.
    data = pattern(1 << 20)
    pieces = []

    class Pausing(Interrupting):
        def data_received(self, data):
            pieces.append(len(data))
            if len(pieces) == 1:
                self.transport.pause_reading()
            super().data_received(data)

    async def setup():
        left, right = socket.socketpair()
        right.settimeout(PATIENCE)
        left.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, len(data))
        right.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data) * 2)
        with contextlib.suppress(BlockingIOError):
            right.setblocking(False)
            sent = right.send(data)
        right.settimeout(PATIENCE)
        _, protocol = await loop.connect_accepted_socket(lambda: Pausing(loop), left)
        sending = loop.create_task(in_executor(right.sendall, data[sent:]))
        await until(lambda: protocol.data)
        await turns(50)
        return protocol, right, sending

    protocol, peer, sending = run(loop, setup())
    protocol.raises = {"data_received": ending}
    protocol.transport.resume_reading()
    with pytest.raises(ending):
        run_forever(loop)
    run(loop, protocol.received(len(data)))
    assert protocol.data == data
    run(loop, sending)
    peer.close()
    assert run(loop, protocol.lost) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_interrupt_in_buffer_updated_loses_nothing(loop, ending):
    data = pattern(1000)

    class Protocol(RecordingBufferedProtocol):
        raises = None

        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            exc, self.raises = self.raises, None
            if exc is not None:
                raise exc

    async def setup():
        left, right = socket.socketpair()
        _, protocol = await loop.connect_accepted_socket(lambda: Protocol(loop, 100), left)
        return protocol, right

    protocol, peer = run(loop, setup())
    protocol.raises = ending
    with peer:
        peer.sendall(data)
        with pytest.raises(ending):
            run_forever(loop)
        assert run(loop, protocol.received(1000)) == data
    assert run(loop, protocol.lost) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_connection_whose_connection_made_was_interrupted_is_read(loop, ending):
    protocols = []

    def factory():
        protocols.append(Interrupting(loop))
        if len(protocols) == 1:
            protocols[0].raises = {"connection_made": ending}
        return protocols[-1]

    server = run(loop, loop.create_server(factory, HOST, 0))
    peers = [socket.create_connection(address(server), PATIENCE) for _ in range(3)]
    for peer in peers:
        peer.sendall(b"hello")
    with pytest.raises(ending):
        run_forever(loop)
    run_until(loop, lambda: len(protocols) == 3)
    for protocol, peer in zip(protocols, peers, strict=True):
        assert run(loop, protocol.received(5)) == b"hello"
        peer.close()
        run(loop, protocol.lost)
    server.close()
    run(loop, server.wait_closed())


@pytest.mark.parametrize("ending", ENDINGS)
def test_connection_whose_eof_received_was_interrupted_ends(loop, connections, ending):
    (protocol, peer), (other, other_peer) = connections(2, lambda: Interrupting(loop))
    protocol.raises = {"eof_received": ending}
    peer.shutdown(socket.SHUT_WR)
    other_peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ending):
        run_forever(loop)
    assert run(loop, other.lost) is None
    assert run(loop, protocol.lost) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_connection_whose_connection_lost_was_interrupted_is_released(loop, connections, ending):
    ((protocol, peer),) = connections(1, lambda: Interrupting(loop))
    protocol.raises = {"connection_lost": ending}
    protocol.transport.close()
    with pytest.raises(ending):
        run_forever(loop)
    run(loop, turns())
    assert peer.recv(1) == b""
    assert protocol.transport.get_extra_info("socket").fileno() == -1


@pytest.mark.veloop_only("asyncio's is an exception of a task that nobody awaits")
@pytest.mark.parametrize("ending", ENDINGS)
def test_protocol_factory_that_interrupts_loses_only_its_own_connection(loop, ending):
    protocols = []
    endings = [ending]

    def factory():
        if endings:
            raise endings.pop()("in the factory")
        protocols.append(RecordingProtocol(loop))
        return protocols[-1]

    server = run(loop, loop.create_server(factory, HOST, 0))
    peers = [socket.create_connection(address(server), PATIENCE) for _ in range(3)]
    with pytest.raises(ending, match="in the factory"):
        run_forever(loop)
    run_until(loop, lambda: len(protocols) == 2)
    for protocol in protocols:
        run(loop, protocol.connected)
    for peer in peers:
        peer.close()
    for protocol in protocols:
        run(loop, protocol.lost)
    server.close()


@pytest.mark.veloop_only("asyncio has tasks and sockets left over then")
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.parametrize("ending", ENDINGS)
def test_loop_closed_after_an_interrupt_releases_what_was_not_delivered(new_loop, ending):
    # Connections that were accepted and not told of, data that nobody will get.
    loop = new_loop()
    endings = [ending]

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            if endings:
                raise endings.pop()

    server = run(loop, loop.create_server(Protocol, HOST, 0))
    peers = [socket.create_connection(address(server), PATIENCE) for _ in range(5)]
    for peer in peers:
        peer.sendall(b"data")
    with pytest.raises(ending):
        run_forever(loop)
    server.close()
    # Some transports were made: that they are not closed is this test's doing.
    loop.close()
    collect()
    for peer in peers:
        with contextlib.suppress(ConnectionError):
            assert peer.recv(1) == b""
        peer.close()


# ------------------------------------------------------------ late records


@pytest.mark.parametrize("method", ["close", "abort"])
def test_record_of_a_connection_closed_in_the_same_turn_is_dropped(loop, connections, method):
    class Killer(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            for protocol, _ in pairs:
                if protocol is not self:
                    getattr(protocol.transport, method)()

    pairs = connections(10, lambda: Killer(loop))
    for _, peer in pairs:
        peer.sendall(b"data")
    run_until(loop, lambda: sum(protocol.lost.done() for protocol, _ in pairs) == 9)
    assert sorted(len(protocol.data) for protocol, _ in pairs) == [0] * 9 + [4]


def test_end_and_reset_of_connections_closed_in_the_same_turn_are_dropped(loop, connections):
    class Killer(RecordingProtocol):
        def eof_received(self):
            super().eof_received()
            for protocol, _ in pairs:
                protocol.transport.abort()

    pairs = connections(10, lambda: Killer(loop))
    for _, peer in pairs:
        peer.close()
    run_until(loop, lambda: all(protocol.lost.done() for protocol, _ in pairs))
    assert sum("eof" in protocol.names for protocol, _ in pairs) == 1
    assert {protocol.lost.result() for protocol, _ in pairs} == {None}


def test_reader_removed_in_the_same_turn_is_not_called(loop, connections):
    seen = []

    class Remover(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            seen.append(loop.remove_reader(left))

    left, right = socket.socketpair()
    with left, right:
        ((_, peer),) = connections(1, lambda: Remover(loop))
        loop.add_reader(left, seen.append, "called")
        peer.sendall(b"x")
        right.sendall(b"x")
        run_until(loop, lambda: True in seen)
        count = len(seen)
        poll(loop)
        assert len(seen) == count


def test_accepted_connections_of_a_server_closed_in_the_same_turn_are_closed(loop):
    servers = []

    class Last(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            servers[0].close()

    async def main():
        protocols = []

        def factory():
            protocols.append(Last(loop))
            return protocols[-1]

        servers.append(await loop.create_server(factory, HOST, 0))
        where = address(servers[0])
        peers = [socket.create_connection(where, PATIENCE) for _ in range(20)]
        await until(lambda: protocols)
        await protocols[0].connected
        await turns(10)
        # Those that were accepted in the same turn are told of, or closed; none is forgotten.
        for protocol in protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        await turns(10)
        for peer in peers:
            with contextlib.suppress(ConnectionError):
                assert peer.recv(1) == b""
            peer.close()

    if isinstance(loop, asyncio.SelectorEventLoop):
        pytest.skip(
            "not on stock asyncio: it asserts that the server is open, and leaks the socket"
        )
    run(loop, main())


# ------------------------------------------------------------ much in one turn


@pytest.mark.parametrize("count", [300, 1000])
def test_more_events_in_one_turn_than_the_ring_had_room_for(loop, loop_kind, connections, count):
    pairs = connections(count, lambda: RecordingProtocol(loop))
    for number, (_, peer) in enumerate(pairs):
        peer.sendall(b"%04d" % number)
    time.sleep(0.005)  # a loop that was busy for so long takes all there is
    run_until(loop, lambda: all(len(protocol.data) == 4 for protocol, _ in pairs))
    for number, (protocol, _) in enumerate(pairs):
        assert protocol.data == b"%04d" % number
    if loop_kind == "veloop" and not WINDOWS:  # where libuv brings no more than 128
        from veloop._uv import lib

        assert lib.vl_loop_ring_capacity(loop._driver.pointer) >= count


@pytest.mark.parametrize("ending", ENDINGS)
def test_interrupt_in_a_batch_for_which_the_ring_grew(loop, connections, ending):
    pairs = connections(400, lambda: Interrupting(loop))
    for number, (protocol, peer) in enumerate(pairs):
        if number % 100 == 50:
            protocol.raises = {"data_received": ending}
        peer.sendall(b"%04d" % number)
    time.sleep(0.005)
    for _ in range(4):
        with pytest.raises(ending):
            run_forever(loop)
    run_until(loop, lambda: all(len(protocol.data) == 4 for protocol, _ in pairs))
    assert [bytes(protocol.data) for protocol, _ in pairs] == [b"%04d" % n for n in range(400)]


@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
def test_more_data_in_one_turn_than_the_slab_has_room_for(loop, connections, kind):
    pairs = connections(200, lambda: kind(loop))
    size = 64 * 1024
    for number, (_, peer) in enumerate(pairs):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size * 4)
        peer.sendall(bytes([number]) * size)
    run_until(loop, lambda: all(len(protocol.data) == size for protocol, _ in pairs))
    for number, (protocol, _) in enumerate(pairs):
        assert protocol.data == bytes([number]) * size


def test_connections_that_find_the_slab_full_are_not_starved(loop, connections):
    # The first ones send without end; the last one must get its turn all the same.
    pairs = connections(12, lambda: RecordingProtocol(loop))
    chunk = bytes(128 * 1024)

    def refill(peer):
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                peer.send(chunk)

    last, last_peer = pairs[-1]
    last_peer.sendall(b"me too")
    for _ in range(200):
        for _, peer in pairs[:-1]:
            refill(peer)
        poll(loop)
        for protocol, _ in pairs[:-1]:
            protocol.data.clear()
            protocol.events.clear()
        if last.data:
            break
    assert last.data == b"me too"


def test_accepting_while_the_slab_is_full(loop, connections):
    pairs = connections(12, lambda: RecordingProtocol(loop))

    async def main():
        async with serving(loop) as (server, protocols):
            for _, peer in pairs:
                peer.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        peer.send(bytes(128 * 1024))
            clients = [socket.create_connection(address(server), PATIENCE) for _ in range(50)]
            await until(lambda: len(protocols) == 50)
            for protocol, client in zip(protocols, clients, strict=True):
                transport = await protocol.connected
                assert transport.get_extra_info("peername") == client.getsockname()
                reset(client)

    run(loop, main())


def test_records_as_pypy_takes_them_go_on_behind_the_one_that_raised():
    records = events.Records(list(range(12)))
    for record in records:
        assert record == (0, 1, 2, 3)
        break
    assert list(records) == [(4, 5, 6, 7), (8, 9, 10, 11)]
    assert list(records) == []
