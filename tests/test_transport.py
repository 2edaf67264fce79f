"""transport.py: what a transport is and tells: types, extra info, repr, protocol, debug mode.

Reading, writing and the end: test_stream*.py.
"""

import asyncio
import logging
import socket
import time
from asyncio import trsock

import pytest

from helpers import PATIENCE, RecordingProtocol, drain, has_ipv6
from tcp_helpers import (
    MUCH,
    WAYS,
    address,
    in_executor,
    linked,
    pattern,
    run,
    serving,
    turns,
    until,
    wired,
)


@pytest.mark.parametrize("way", WAYS)
def test_transport_is_asyncios(loop, way):
    # Code and other libraries' tests ask with isinstance.
    async def main():
        async with wired(loop, way=way) as (transport, _, _):
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.ReadTransport)
            assert isinstance(transport, asyncio.WriteTransport)
            assert isinstance(transport, asyncio.BaseTransport)

    run(loop, main())


# ------------------------------------------------------------ extra info


@pytest.mark.parametrize("way", WAYS)
def test_names_are_those_of_the_socket(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, _, peer):
            assert transport.get_extra_info("peername") == peer.getsockname()
            assert transport.get_extra_info("sockname") == peer.getpeername()
            sock = transport.get_extra_info("socket")
            assert sock.getsockname() == peer.getpeername()
            assert sock.getpeername() == peer.getsockname()

    run(loop, main())


@pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
def test_names_of_an_ipv6_connection(loop):
    async def main():
        async with serving(loop, host="::1") as (server, protocols):
            with socket.create_connection(address(server), PATIENCE) as peer:
                await until(lambda: protocols)
                transport = await protocols[0].connected
                assert transport.get_extra_info("peername") == peer.getsockname()
                assert transport.get_extra_info("sockname") == peer.getpeername()
                assert transport.get_extra_info("socket").family == socket.AF_INET6

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_names_are_known_after_the_end(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            names = peer.getsockname(), peer.getpeername()
            transport.close()
            await protocol.lost
            await turns()
            assert transport.get_extra_info("peername") == names[0]
            assert transport.get_extra_info("sockname") == names[1]

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_what_is_unknown_is_the_default(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, _, _):
            assert transport.get_extra_info("sslcontext") is None
            assert transport.get_extra_info("nothing", 42) == 42
            assert transport.get_extra_info("peername", 42) != 42

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_socket_is_a_transport_socket(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, _, _):
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, trsock.TransportSocket)
            assert transport.get_extra_info("socket") is sock
            assert sock.family == socket.AF_INET
            assert sock.type == socket.SOCK_STREAM
            assert sock.fileno() > 0
            assert sock.gettimeout() == 0
            # It is for options, not for data.
            assert not hasattr(sock, "recv")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
            with pytest.raises(ValueError, match="only 0 timeout is allowed"):
                sock.settimeout(1)
            with pytest.raises(ValueError, match="setblocking"):
                sock.setblocking(True)

    run(loop, main())


@pytest.mark.parametrize("asked", ["before", "after"])
@pytest.mark.parametrize("way", WAYS)
def test_socket_is_closed_after_the_end(loop, way, asked):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, _):
            if asked == "before":
                sock = transport.get_extra_info("socket")
                assert sock.fileno() > 0
            transport.close()
            await protocol.lost
            await turns()
            assert transport.get_extra_info("socket").fileno() == -1
            if asked == "before":
                assert sock.fileno() == -1

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_duplicate_of_the_socket_is_the_applications_own(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            with transport.get_extra_info("socket").dup() as copy:
                transport.close()
                await protocol.lost
                await turns()
                copy.send(b"still open")
                assert drain(peer, 10) == b"still open"
            assert peer.recv(1) == b""

    run(loop, main())


def test_shutdown_of_the_socket_is_noticed(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            await protocol.lost
            assert peer.recv(1) == b""

    run(loop, main())


# ------------------------------------------------------------ the protocol


def test_set_protocol_and_get_protocol(loop):
    async def main():
        async with wired(loop) as (transport, protocol, _):
            assert transport.get_protocol() is protocol
            other = RecordingProtocol(loop)
            transport.set_protocol(other)
            assert transport.get_protocol() is other
            assert not other.connected.done()
            transport.close()
            await other.lost
            assert not protocol.lost.done()
            assert transport.get_protocol() is None

    run(loop, main())


def test_set_protocol_while_closing_is_who_hears_of_the_end(loop):
    async def main():
        async with wired(loop) as (transport, protocol, _):
            transport.close()
            other = RecordingProtocol(loop)
            transport.set_protocol(other)
            await other.lost
            assert not protocol.lost.done()

    run(loop, main())


def test_new_protocol_hears_of_flow_control(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            assert protocol.names[-1] == "pause_writing"
            other = RecordingProtocol(loop)
            transport.set_protocol(other)
            await in_executor(drain, peer, MUCH)
            await until(lambda: other.names == ["resume_writing"])

    run(loop, main())


# ------------------------------------------------------------ repr


@pytest.mark.parametrize("way", WAYS)
def test_repr_tells_the_state(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, _):
            await turns()
            number = transport.get_extra_info("socket").fileno()
            text = repr(transport)
            assert text.startswith("<")
            assert type(transport).__name__ in text
            assert f" fd={number} " in text
            assert "read=polling" in text
            assert "write=<idle, bufsize=0>" in text
            assert "clos" not in text
            transport.pause_reading()
            assert "read=idle" in repr(transport)
            transport.write(pattern(MUCH))
            size = transport.get_write_buffer_size()
            assert f"write=<polling, bufsize={size}>" in repr(transport)
            transport.close()
            assert " closing " in repr(transport)
            transport.abort()
            await protocol.lost
            await turns()
            assert " closed" in repr(transport)
            assert "closing" not in repr(transport)

    run(loop, main())


def test_repr_after_the_loop_was_closed(new_loop):
    loop = new_loop()

    async def main():
        async with wired(loop) as (transport, protocol, _):
            transport.close()
            await protocol.lost
            return transport

    transport = run(loop, main())
    loop.close()
    assert "closed" in repr(transport)


# ------------------------------------------------------------ debug mode


def test_everything_works_in_debug_mode(loop):
    async def main():
        loop.set_debug(True)
        loop.slow_callback_duration = PATIENCE
        async with linked(loop) as (client, server):
            client.transport.write(pattern(MUCH))
            assert await server.received(MUCH) == pattern(MUCH)
            server.transport.pause_reading()
            server.transport.resume_reading()
            server.transport.writelines([b"one", b"two"])
            assert await client.received(6) == b"onetwo"
            client.transport.write_eof()
            await server.lost
            await client.lost

    run(loop, main())


def test_slow_protocol_is_named_in_debug_mode(loop, caplog):
    class Slow(RecordingProtocol):
        def data_received(self, data):
            # The loop's clock is what counts.
            ends = time.monotonic() + 0.02
            while time.monotonic() < ends:
                pass
            super().data_received(data)

    async def main():
        async with wired(loop, lambda: Slow(loop)) as (_, protocol, peer):
            loop.set_debug(True)
            loop.slow_callback_duration = 0.01
            peer.sendall(b"x")
            await protocol.received(1)
            await turns()
            loop.set_debug(False)

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(loop, main())
    messages = [each.getMessage() for each in caplog.records]
    assert any("Executing" in text and "ransport" in text for text in messages), messages


def test_protocol_that_fails_in_debug_mode(loop, loop_errors):
    class Failing(RecordingProtocol):
        def data_received(self, data):
            raise ZeroDivisionError("in data_received")

    async def main():
        loop.set_debug(True)
        loop.slow_callback_duration = PATIENCE
        async with wired(loop, lambda: Failing(loop)) as (_, protocol, peer):
            peer.sendall(b"x")
            return await protocol.lost

    exc = run(loop, main())
    assert loop_errors.take_one()["exception"] is exc


def test_fatal_error_without_a_handler_is_logged(loop, asyncio_log):
    class Failing(RecordingProtocol):
        def data_received(self, data):
            raise ZeroDivisionError("in data_received")

    async def main():
        loop.set_exception_handler(None)
        async with wired(loop, lambda: Failing(loop)) as (_, protocol, peer):
            peer.sendall(b"x")
            await protocol.lost

    run(loop, main())
    record = asyncio_log.take_one()
    assert "Fatal error: protocol.data_received() call failed." in record.getMessage()
    assert "transport: <" in record.getMessage()
    assert record.exc_info[0] is ZeroDivisionError
