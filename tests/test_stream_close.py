"""stream.py, the end of a connection: close, abort, reset, and what comes after the end."""

import contextlib
import logging
import socket
import warnings
import weakref

import pytest

from helpers import PATIENCE, PYPY, RecordingProtocol, collect, drain
from tcp_helpers import (
    HOST,
    MUCH,
    WAYS,
    Sink,
    address,
    in_executor,
    left_alone,
    linked,
    pattern,
    read_all,
    reset,
    run,
    serving,
    turns,
    until,
    wired,
)

# ------------------------------------------------------------ close and abort


@pytest.mark.parametrize("way", WAYS)
def test_close_sends_what_is_buffered(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.close()
            assert transport.is_closing()
            await turns(5)
            assert not protocol.lost.done()
            assert await in_executor(read_all, peer) == pattern(MUCH)
            assert await protocol.lost is None

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_abort_drops_what_is_buffered(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.abort()
            assert transport.is_closing()
            assert await protocol.lost is None
            with pytest.raises((ConnectionResetError, EOFError)):
                if len(await in_executor(read_all, peer)) < MUCH:
                    raise EOFError

    run(loop, main())


@pytest.mark.parametrize("method", ["close", "abort"])
def test_connection_lost_comes_in_a_turn_of_its_own(loop, method):
    async def main():
        async with wired(loop) as (transport, protocol, _):
            getattr(transport, method)()
            assert transport.is_closing()
            assert not protocol.lost.done()
            await protocol.lost

    run(loop, main())


@pytest.mark.parametrize("first", ["close", "abort"])
@pytest.mark.parametrize("second", ["close", "abort"])
def test_ending_twice_tells_the_protocol_once(loop, first, second):
    async def main():
        async with wired(loop) as (transport, protocol, _):
            for method in (first, second, first, second):
                getattr(transport, method)()
            await protocol.lost
            for method in (first, second):
                getattr(transport, method)()
            await turns(5)
            assert protocol.names == ["connection_made", "connection_lost"]

    run(loop, main())


def test_abort_ends_a_close_that_waits_for_the_peer(loop):
    async def main():
        async with wired(loop) as (transport, protocol, _):
            transport.write(pattern(MUCH))
            transport.close()
            await turns(5)
            assert not protocol.lost.done()
            transport.abort()
            assert await protocol.lost is None

    run(loop, main())


def test_write_after_close_goes_out_while_something_is_buffered(loop):
    # asyncio's behaviour, on which TLS relies: closing begins when the buffer is empty.
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.close()
            transport.write(b"one more")
            assert await in_executor(read_all, peer) == pattern(MUCH) + b"one more"
            assert await protocol.lost is None

    run(loop, main())


def test_nothing_is_read_after_close(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.close()
            assert not transport.is_reading()
            peer.sendall(b"too late")
            await turns(20)
            assert protocol.data == b""
            # The socket is closed with something unread, which is a reset to the peer.
            with contextlib.suppress(ConnectionResetError):
                await in_executor(read_all, peer)
            await protocol.lost
            assert protocol.data == b""

    run(loop, main())


@pytest.mark.parametrize("method", ["close", "abort"])
def test_protocol_may_end_in_data_received(loop, method):
    class Once(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            getattr(self.transport, method)()

    async def main():
        async with wired(loop, lambda: Once(loop)) as (_, protocol, peer):
            peer.sendall(pattern(1 << 19))
            assert await protocol.lost is None
            # asyncio and libuv read at most so much in one go; the rest is dropped.
            assert len(protocol.data) <= 256 * 1024
            assert protocol.names == ["connection_made", "data", "connection_lost"]

    run(loop, main())


@pytest.mark.parametrize("method", ["close", "abort", "write_eof", "pause_reading"])
def test_protocol_may_do_anything_in_connection_lost(loop, method):
    class Late(RecordingProtocol):
        def connection_lost(self, exc):
            getattr(self.transport, method)()
            self.transport.write(b"nobody gets this")
            assert self.transport.is_closing()
            super().connection_lost(exc)

    async def main():
        async with wired(loop, lambda: Late(loop)) as (transport, protocol, _):
            transport.close()
            assert await protocol.lost is None

    run(loop, main())


def test_connection_lost_that_raises_is_reported_and_everything_is_released(loop, loop_errors):
    class Failing(RecordingProtocol):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError("in connection_lost")

    async def main():
        async with wired(loop, lambda: Failing(loop)) as (transport, protocol, peer):
            transport.close()
            await protocol.lost
            await turns()
            assert peer.recv(1) == b""
            assert transport.get_extra_info("socket").fileno() == -1

    run(loop, main())
    assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)


def test_socket_is_still_open_in_connection_lost(loop):
    class Asking(RecordingProtocol):
        def connection_lost(self, exc):
            sock = self.transport.get_extra_info("socket")
            names.append((sock.getsockname(), sock.getpeername()))
            super().connection_lost(exc)

    names = []

    async def main():
        async with wired(loop, lambda: Asking(loop)) as (transport, protocol, peer):
            transport.close()
            await protocol.lost
            assert names == [(peer.getpeername(), peer.getsockname())]

    run(loop, main())


def test_peer_sees_the_end_only_after_connection_lost(loop):
    # The protocol may still use the socket in connection_lost.
    class Asking(RecordingProtocol):
        def connection_lost(self, exc):
            peers[0].setblocking(False)
            with pytest.raises(BlockingIOError):
                peers[0].recv(1)
            super().connection_lost(exc)

    peers = []

    async def main():
        async with wired(loop, lambda: Asking(loop)) as (transport, protocol, peer):
            peers.append(peer)
            transport.close()
            await protocol.lost
            peer.settimeout(PATIENCE)
            assert await in_executor(peer.recv, 1) == b""

    run(loop, main())


# ------------------------------------------------------------ the peer goes away


@pytest.mark.parametrize("way", WAYS)
def test_reset_by_the_peer_is_the_exception_of_connection_lost(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            reset(peer)
            exc = await protocol.lost
            assert isinstance(exc, ConnectionResetError)
            assert transport.is_closing()
            # Without eof_received.
            assert protocol.names == ["connection_made", "connection_lost"]

    run(loop, main())


def test_data_before_a_reset_may_be_delivered_but_the_reset_comes_last(loop):
    async def main():
        async with wired(loop) as (_, protocol, peer):
            peer.sendall(b"data")
            await protocol.received(4)
            reset(peer)
            assert isinstance(await protocol.lost, ConnectionResetError)
            assert protocol.names == ["connection_made", "data", "connection_lost"]

    run(loop, main())


@pytest.mark.parametrize("size", [10, MUCH])
def test_writing_to_a_peer_that_is_gone_ends_with_an_error(loop, size):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            reset(peer)
            while not transport.is_closing():
                transport.write(bytes(size))
                await turns(1)
            exc = await protocol.lost
            assert isinstance(exc, (BrokenPipeError, ConnectionResetError))
            assert protocol.names[-1] == "connection_lost"

    run(loop, main())


def test_peer_reset_while_much_is_buffered(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            reset(peer)
            exc = await protocol.lost
            assert isinstance(exc, (BrokenPipeError, ConnectionResetError))
            assert transport.get_write_buffer_size() == 0

    run(loop, main())


def test_peer_reset_while_closing_with_much_buffered(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.close()
            await turns(5)
            reset(peer)
            assert isinstance(await protocol.lost, (BrokenPipeError, ConnectionResetError))
            assert protocol.names.count("connection_lost") == 1

    run(loop, main())


def test_network_errors_are_no_errors_of_the_program(loop, caplog):
    # Neither the exception handler nor, outside debug mode, the log hears of them.
    async def main():
        async with wired(loop) as (_, protocol, peer):
            reset(peer)
            await protocol.lost

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        run(loop, main())
    assert [each for each in caplog.records if "Fatal" in each.getMessage()] == []


def test_network_errors_are_logged_in_debug_mode(loop, caplog):
    async def main():
        loop.set_debug(True)
        loop.slow_callback_duration = PATIENCE
        async with wired(loop) as (_, protocol, peer):
            reset(peer)
            await protocol.lost

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        run(loop, main())
    messages = [each.getMessage() for each in caplog.records if each.levelno == logging.DEBUG]
    assert any("Fatal read error on socket transport" in message for message in messages)


def test_write_eof_to_a_peer_that_is_gone_is_no_crash(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            reset(peer)
            await turns(5)
            try:
                transport.write_eof()
            except OSError:
                transport.abort()  # asyncio lets the error of shutdown() through
            transport.resume_reading()
            await protocol.lost

    run(loop, main())


# ------------------------------------------------------------ after the end


def ended(loop, way="accepted", how="close"):
    """A transport whose connection is over, with its protocol."""

    async def main():
        async with wired(loop, way=way) as (transport, protocol, _):
            getattr(transport, how)()
            await protocol.lost
            await turns()
            return transport, protocol

    return run(loop, main())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["close", "abort"])
def test_write_after_the_end_is_ignored_and_warned_of(loop, way, how, caplog):
    # Other loops raise here; asyncio warns, beginning with the sixth write.
    transport, protocol = ended(loop, way, how)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        for _ in range(4):
            transport.write(b"x")
        assert caplog.records == []
        for _ in range(3):
            transport.write(b"x")
    assert [each.getMessage() for each in caplog.records] == ["socket.send() raised exception."] * 3
    assert protocol.names == ["connection_made", "connection_lost"]


def test_write_between_close_and_the_end_counts_too(loop, caplog):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.close()
            with caplog.at_level(logging.WARNING, logger="asyncio"):
                for _ in range(6):
                    transport.write(b"x")
            assert len(caplog.records) == 2
            await protocol.lost
            assert peer.recv(1) == b""

    run(loop, main())


@pytest.mark.stock_since("3.14.9", "writelines of an ended transport was an error")
def test_writelines_after_the_end_is_ignored_and_warned_of(loop, caplog):
    transport, _ = ended(loop)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        for _ in range(5):
            transport.writelines([b"x"])
    assert [each.getMessage() for each in caplog.records] == ["socket.send() raised exception."]


@pytest.mark.parametrize("data", [None, "text", 5])
def test_wrong_type_is_wrong_after_the_end_too(loop, data):
    transport, _ = ended(loop)
    with pytest.raises(TypeError, match="data argument must be a bytes"):
        transport.write(data)


def test_everything_may_be_called_after_the_end(loop):
    transport, protocol = ended(loop)
    transport.write(b"")
    transport.close()
    transport.abort()
    transport.write_eof()
    transport.pause_reading()
    transport.resume_reading()
    assert transport.is_closing()
    assert not transport.is_reading()
    assert transport.get_write_buffer_size() == 0
    assert transport.can_write_eof()
    assert transport.get_extra_info("peername") is not None
    assert transport.get_extra_info("socket").fileno() == -1
    assert transport.get_extra_info("nothing", 5) == 5
    assert "closed" in repr(transport)
    run(loop, turns())
    assert protocol.names == ["connection_made", "connection_lost"]


@pytest.mark.parametrize("way", WAYS)
def test_transport_that_ended_is_freed(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, _):
            transport.close()
            await protocol.lost
            await turns()
            protocol.transport = None
            # Its futures know it too.
            protocol.connected = None
            return weakref.ref(transport), weakref.ref(protocol)

    references = run(loop, main())
    run(loop, turns())
    collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.skipif(PYPY, reason="PyPy has no reference counts")
@pytest.mark.veloop_only("asyncio's transport and its bound methods are a cycle")
def test_transport_that_ended_needs_no_garbage_collector(loop):
    async def main():
        async with serving(loop) as (server, protocols):
            with socket.create_connection(address(server), PATIENCE):
                await until(lambda: protocols)
                transport = await protocols[0].connected
                reference = weakref.ref(transport)
                del transport
                protocols[0].connected = protocols[0].transport = None
            await protocols[0].lost
            await turns()
            return reference

    reference = run(loop, main())
    run(loop, turns())
    assert reference() is None


# ------------------------------------------------------------ transports nobody closes


@contextlib.contextmanager
def unclosed():
    """Texts of the warnings about unclosed transports, filled in at the end of the block.

    In a cycle asyncio's socket may be finalized, and complain, before its transport.
    """
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
        collect()
        texts += [str(each.message) for each in caught if each.category is ResourceWarning]
        texts[:] = [text for text in texts if text.startswith("unclosed transport")]
        caught.clear()  # they hold on to the transports
        collect()


@pytest.mark.parametrize("way", WAYS)
def test_transport_open_when_its_loop_is_closed_is_warned_of(new_loop, way):
    loop, peers = new_loop(), []
    reference = run(loop, left_alone(loop, way, peers))
    collect()
    assert reference() is not None
    with unclosed() as texts:
        loop.close()
        del loop
    assert len(texts) == 1
    assert reference() is None
    # It is closed all the same.
    with peers[0] as peer:
        peer.settimeout(PATIENCE)
        assert peer.recv(1) == b""


@pytest.mark.parametrize("way", WAYS)
def test_transport_of_a_closed_loop_may_be_used_in_any_way(new_loop, way):
    loop, peers = new_loop(), []
    transport = run(loop, left_alone(loop, way, peers))()
    loop.close()
    with peers[0], unclosed() as texts:
        use_in_every_way(transport)
        del transport
    assert len(texts) == 1


def use_in_every_way(transport):
    """Whatever it answers: no crash, and nothing but these two exceptions."""
    repr(transport)
    for call in (
        transport.is_closing,
        transport.is_reading,
        transport.get_write_buffer_size,
        lambda: transport.get_extra_info("socket"),
        lambda: transport.get_extra_info("peername"),
        transport.pause_reading,
        transport.resume_reading,
        lambda: transport.write(b"x"),
        lambda: transport.writelines([b"x" * 50_000, b"y"]),
        lambda: transport.set_write_buffer_limits(high=0),
        lambda: transport.set_protocol(Sink()),
        transport.write_eof,
        transport.close,
        transport.abort,
        transport.close,
        lambda: transport.write(b"x"),
    ):
        with contextlib.suppress(RuntimeError, OSError):
            call()


@pytest.mark.veloop_only("asyncio goes on with the socket of a transport without a loop")
@pytest.mark.parametrize("way", WAYS)
def test_write_to_a_transport_of_a_closed_loop_is_like_one_after_the_end(new_loop, way, caplog):
    loop, peers = new_loop(), []
    transport = run(loop, left_alone(loop, way, peers))()
    loop.close()
    with peers[0] as peer, unclosed() as texts:
        assert transport.is_closing()
        assert not transport.is_reading()
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            for _ in range(6):
                transport.write(b"x")
        assert len(caplog.records) == 2
        del transport
        collect()
        peer.settimeout(PATIENCE)
        assert peer.recv(1) == b""
    assert len(texts) == 1


@pytest.mark.parametrize("size", [0, MUCH])
def test_loop_may_be_closed_before_connection_lost_was_called(new_loop, size):
    loop, peers = new_loop(), []
    transport = run(loop, left_alone(loop, "given", peers))()
    transport.write(bytes(size))
    transport.close()
    with peers[0], unclosed() as texts:
        loop.close()
        del transport, loop
    assert len(texts) == 1


def test_transport_works_after_its_protocol_let_go_of_it(loop):
    # Nobody but the loop keeps it while it is open.
    async def main():
        received = []

        class Keeping(Sink):
            def data_received(self, data):
                received.append(data)

        server = await loop.create_server(Keeping, HOST, 0)
        with socket.create_connection(address(server), PATIENCE) as peer:
            await turns(20)
            collect()
            peer.sendall(b"hello")
            await until(lambda: received)
        server.close()
        await turns(20)
        return received

    assert run(loop, main()) == [b"hello"]


def test_ends_of_a_connection_on_one_loop_end_each_other(loop):
    async def main():
        async with linked(loop) as (client, server):
            client.transport.write(b"bye")
            client.transport.close()
            await client.lost
            await server.lost
            assert server.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


def test_drain_of_the_kernel_buffer_is_not_awaited_by_close(loop):
    # What the kernel has taken is its business; close() ends at once.
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.write(b"x" * 10_000)
            transport.close()
            await protocol.lost
            assert drain(peer, 10_000) == b"x" * 10_000
            assert peer.recv(1) == b""

    run(loop, main())
