"""start_tls: on our transports, on transports of others, on TLS itself; and streams' start_tls."""

import asyncio
import gc
import logging
import socket
import ssl
import weakref

import pytest

from certificates import client_context, server_context
from helpers import (
    PYPY,
    RecordingBufferedProtocol,
    RecordingProtocol,
    drain,
    socket_pair,
    tcp_pair,
)
from tcp_helpers import HOST, address, in_executor, linked, pattern, run, serving, turns, until
from tls_helpers import NAME, Peer, tls_linked


async def upgrade(loop, client, server, **kwargs):
    """(client's, server's new transport): both ends of a connection begin to encrypt."""
    return await asyncio.gather(
        loop.start_tls(client.transport, client, client_context(), server_hostname=NAME, **kwargs),
        loop.start_tls(server.transport, server, server_context(), server_side=True, **kwargs),
    )


async def say_something(client, server, transports):
    near, far = transports
    client.data.clear()
    server.data.clear()
    near.write(pattern(100_000))
    assert await server.received(100_000) == pattern(100_000)
    far.write(pattern(100_000))
    assert await client.received(100_000) == pattern(100_000)


@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
def test_both_ends_go_over_to_tls(loop, kind):
    async def main():
        async with linked(loop, lambda: kind(loop), lambda: kind(loop)) as (client, server):
            client.transport.write(b"plain")
            await server.received(5)
            plain = client.transport
            near, far = transports = await upgrade(loop, client, server)
            assert near is not plain
            assert near.get_protocol() is client
            assert near.get_extra_info("peername") == plain.get_extra_info("peername")
            assert near.get_extra_info("peercert")["subject"]
            assert client.names.count("connection_made") == 1
            await say_something(client, server, transports)
            near.close()
            assert await client.lost is None
            assert await server.lost is None
            assert plain.is_closing()
            assert far.is_closing()

    run(loop, main())


def test_arguments(loop):
    async def main():
        async with linked(loop) as (client, _):
            with pytest.raises(TypeError, match="instance of ssl.SSLContext, got None"):
                await loop.start_tls(client.transport, client, None)
            with pytest.raises(TypeError, match=r"is not supported by start_tls\(\)"):
                await loop.start_tls(asyncio.Transport(), client, client_context())
            for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
                with pytest.raises(ValueError, match=f"{name} should be a positive number"):
                    await loop.start_tls(client.transport, client, client_context(), **{name: 0})
            client.transport.write(b"as before")

    run(loop, main())


@pytest.mark.veloop_only("asyncio returns None, or waits for the handshake timeout")
@pytest.mark.parametrize("lost", [False, True])
def test_closed_transport_is_refused(loop, lost):
    async def main():
        async with linked(loop) as (client, _):
            client.transport.close()
            if lost:
                await client.lost
            with pytest.raises(ConnectionResetError, match="closed"):
                await loop.start_tls(client.transport, client, client_context())
            assert await client.lost is None

    run(loop, main())


@pytest.mark.veloop_only("asyncio returns None")
@pytest.mark.parametrize("method", ["close", "abort"])
def test_closed_during_the_handshake(loop, method):
    async def main():
        async with linked(loop) as (client, server):
            task = loop.create_task(
                loop.start_tls(client.transport, client, client_context(), server_hostname=NAME)
            )
            await server.received(1)
            getattr(client.transport, method)()
            with pytest.raises(ConnectionAbortedError):
                await task
            assert await client.lost is None

    run(loop, main())


@pytest.mark.veloop_only("asyncio does not tell the protocol that its connection is lost")
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_handshake_that_is_given_up(loop, how):
    async def main():
        async with linked(loop) as (client, server):
            task = loop.create_task(
                loop.start_tls(
                    client.transport,
                    client,
                    client_context(),
                    server_hostname=NAME,
                    ssl_handshake_timeout=0.05 if how == "timeout" else None,
                )
            )
            await server.received(1)
            if how == "cancel":
                task.cancel()
            with pytest.raises(
                asyncio.CancelledError if how == "cancel" else ConnectionAbortedError
            ):
                await task
            await client.lost
            await server.lost

    run(loop, main())


def test_certificate_that_is_refused(loop):
    async def main():
        async with linked(loop) as (client, server):
            theirs = loop.create_task(
                loop.start_tls(
                    server.transport, server, server_context("othername"), server_side=True
                )
            )
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.start_tls(
                    client.transport, client, client_context(), server_hostname=NAME
                )
            assert isinstance(await client.lost, ssl.SSLCertVerificationError)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await theirs
            await server.lost

    run(loop, main())


@pytest.mark.skipif(PYPY, reason="PyPy has no reference counts: a cycle costs nothing there")
@pytest.mark.veloop_only("asyncio is free of cycles here only since 3.15")
def test_failure_makes_no_reference_cycle(loop):
    class Forgetful(asyncio.Protocol):
        """Does not keep the exception, whose traceback keeps everything."""

    async def attempt(references):
        protocol = Forgetful()
        with socket_pair() as (sock, other):
            transport, _ = await loop.create_connection(lambda: protocol, sock=sock.dup())
            references += [weakref.ref(transport), weakref.ref(protocol)]
            other.send(b"this is not TLS")
            try:
                await loop.start_tls(transport, protocol, client_context(), server_hostname=NAME)
            except ssl.SSLError:
                pass
            await turns()

    async def main():
        references = []
        gc.collect()
        gc.disable()
        try:
            await attempt(references)
            await turns(3)
            assert [ref() for ref in references] == [None, None]
            assert not [each for each in gc.get_objects() if isinstance(each, ssl.SSLError)]
        finally:
            gc.enable()

    run(loop, main())


def test_data_that_came_in_the_meantime_is_the_handshakes(loop):
    """The peer begins at once, and its first bytes may be read before start_tls is called."""

    async def main():
        with tcp_pair() as (near, far):
            transport, protocol = await loop.connect_accepted_socket(
                lambda: RecordingProtocol(loop), near.dup()
            )
            transport.pause_reading()
            peer = Peer(far)
            handshake = loop.create_task(in_executor(peer.handshake))
            await turns(10)
            new = await loop.start_tls(transport, protocol, server_context(), server_side=True)
            await handshake
            peer.send(b"hello")
            assert await protocol.received(5) == b"hello"
            new.abort()
            await protocol.lost

    run(loop, main())


def test_peer_that_is_gone_before_start_tls_fails_the_handshake(loop):
    """The end was told to the protocol of before; nobody waits for the handshake's timeout."""

    async def main():
        with tcp_pair() as (near, far):
            transport, protocol = await loop.connect_accepted_socket(
                lambda: RecordingProtocol(loop, keep_open_on_eof=True), near.dup()
            )
            far.shutdown(socket.SHUT_WR)
            await protocol.ended
            with pytest.raises(ConnectionResetError):
                await loop.start_tls(transport, protocol, server_context(), server_side=True)

    run(loop, main())


@pytest.mark.veloop_only("asyncio never tells the protocol to go on")
def test_begun_while_much_is_still_unsent(loop):
    async def main():
        with tcp_pair() as (near, far):
            transport, protocol = await loop.connect_accepted_socket(
                lambda: RecordingProtocol(loop), near.dup()
            )
            size = 1 << 24
            transport.write(pattern(size))
            assert protocol.names[-1] == "pause_writing"
            peer = Peer(far)
            task = loop.create_task(
                loop.start_tls(transport, protocol, server_context(), server_side=True)
            )
            await turns(5)
            assert await in_executor(drain, far, size) == pattern(size)
            handshake = loop.create_task(in_executor(peer.handshake))
            new = await task
            await handshake
            assert protocol.names[-1] == "resume_writing"
            new.write(b"hello")
            assert await in_executor(peer.recv, 5) == b"hello"
            new.abort()
            await protocol.lost

    run(loop, main())


# ------------------------------------------------------------ TLS in TLS


def test_tls_in_tls_in_tls(loop):
    async def main():
        async with tls_linked(loop) as (client, server):
            transports = client.transport, server.transport
            for _ in range(2):
                transports = await upgrade(loop, client, server)
                client.transport, server.transport = transports
                await say_something(client, server, transports)
            transports[0].close()
            assert await client.lost is None
            assert await server.lost is None
            for protocol in (client, server):
                assert protocol.names.count("connection_lost") == 1

    run(loop, main())


def test_tls_in_tls_with_much_and_little_reading(loop):
    async def main():
        async with tls_linked(loop) as (client, server):
            near, far = await upgrade(loop, client, server)
            size = 1 << 22
            far.pause_reading()
            near.write(pattern(size))
            far.write(pattern(size))
            await client.received(size)
            assert near.get_write_buffer_size() or far.get_read_buffer_size()
            far.resume_reading()
            assert await server.received(size) == pattern(size)
            assert client.data == pattern(size)
            near.abort()
            assert await client.lost is None
            await server.lost

    run(loop, main())


def test_end_of_tls_in_tls_is_no_reason_for_a_warning(loop, caplog):
    async def main():
        async with tls_linked(loop) as (client, server):
            near, _ = await upgrade(loop, client, server)
            near.close()
            assert await client.lost is None
            assert await server.lost is None

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(loop, main())
    assert caplog.text == ""


# ------------------------------------------------------------ transports of others


class Foreign(asyncio.Transport):
    """A transport in memory, with nothing but what asyncio's documentation promises."""

    _start_tls_compatible = True

    def __init__(self, loop, protocol):
        super().__init__({"peername": "memory"})
        self.loop = loop
        self.protocol = protocol
        self.other = None
        self.queue = []
        self.paused = self.closing = self.lost = False
        self.refused = []

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False
        self.loop.call_soon(self.deliver)

    def write(self, data):
        if self.closing:
            self.refused.append(data)
        else:
            assert isinstance(data, bytes)
            self.other.queue.append(data)
            self.loop.call_soon(self.other.deliver)

    def deliver(self):
        while self.queue and not self.paused and not self.lost:
            data = self.queue.pop(0)
            if data is None:
                if not self.protocol.eof_received():
                    self.close()
            elif isinstance(self.protocol, asyncio.BufferedProtocol):
                while data:
                    buffer = self.protocol.get_buffer(-1)
                    count = min(len(buffer), len(data))
                    buffer[:count], data = data[:count], data[count:]
                    self.protocol.buffer_updated(count)
            else:
                self.protocol.data_received(data)

    def close(self):
        if not self.closing:
            self.closing = True
            self.other.queue.append(None)
            self.loop.call_soon(self.other.deliver)
            self.loop.call_soon(self.lose)

    abort = close

    def lose(self):
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)

    def get_write_buffer_size(self):
        return 0


def memory_pair(loop):
    client, server = RecordingProtocol(loop), RecordingProtocol(loop)
    transports = [Foreign(loop, protocol) for protocol in (client, server)]
    transports[0].other, transports[1].other = reversed(transports)
    for transport, protocol in zip(transports, (client, server), strict=True):
        protocol.connection_made(transport)
    return client, server


def test_transport_of_somebody_else(loop):
    async def main():
        client, server = memory_pair(loop)
        near, far = await upgrade(loop, client, server)
        assert near.get_extra_info("peername") == "memory"
        await say_something(client, server, (near, far))
        near.close()
        assert await client.lost is None
        assert await server.lost is None

    run(loop, main())


@pytest.mark.veloop_only("asyncio calls a private method that foreign transports lack")
def test_transport_of_somebody_else_is_aborted(loop):
    async def main():
        client, server = memory_pair(loop)
        near, _ = await upgrade(loop, client, server)
        near.abort()
        assert await client.lost is None
        assert await server.lost is None
        client, server = memory_pair(loop)
        task = loop.create_task(
            loop.start_tls(client.transport, client, client_context(), server_hostname=NAME)
        )
        await server.received(1)
        server.transport.write(b"this is not TLS")
        with pytest.raises(ssl.SSLError):
            await task
        assert isinstance(await client.lost, ssl.SSLError)

    run(loop, main())


@pytest.mark.veloop_only("asyncio calls a private method that foreign transports lack")
def test_transport_of_somebody_else_that_cannot_write_the_alert(loop):
    def refuse(data):
        raise RuntimeError("not now")

    async def main():
        client, server = memory_pair(loop)
        await upgrade(loop, client, server)
        client.transport.write = refuse
        server.transport.write(b"this is not TLS")
        assert isinstance(await client.lost, ssl.SSLError)
        assert client.transport.closing
        await server.lost

    run(loop, main())


def test_transport_of_somebody_else_is_paused(loop):
    async def main():
        client, server = memory_pair(loop)
        near, far = await upgrade(loop, client, server)
        far.pause_reading()
        for _ in range(100):
            near.write(bytes(16 * 1024))
            await turns(2)
        assert server.transport.paused
        assert far.get_read_buffer_size() < 512 * 1024
        far.resume_reading()
        await server.received(100 * 16 * 1024)
        assert not server.transport.paused
        near.close()
        await client.lost
        await server.lost

    run(loop, main())


@pytest.mark.veloop_only("asyncio closes a transport that it still has something to say to")
def test_transport_of_somebody_else_hears_nothing_after_close(loop):
    async def main():
        client, server = memory_pair(loop)
        near, far = await upgrade(loop, client, server)
        below = server.transport
        below.protocol.pause_writing()
        far.close()
        near.close()
        await turns(10)
        assert not below.closing
        below.protocol.resume_writing()
        assert await client.lost is None
        assert await server.lost is None
        assert not below.refused

    run(loop, main())


@pytest.mark.veloop_only("asyncio keeps what nobody will read")
def test_transport_of_somebody_else_that_delivers_after_abort(loop):
    async def main():
        client, server = memory_pair(loop)
        near, _ = await upgrade(loop, client, server)
        below = client.transport
        near.abort()
        below.protocol.data_received(bytes(100_000))
        assert near.get_read_buffer_size() == 0
        assert await client.lost is None
        await server.lost
        assert client.data == b""

    run(loop, main())


# ------------------------------------------------------------ streams


def test_streams_over_tls(loop):
    async def main():
        async def serve(reader, writer):
            while data := await reader.readline():
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, HOST, 0, ssl=server_context())
        reader, writer = await asyncio.open_connection(
            *address(server), ssl=client_context(), server_hostname=NAME
        )
        for i in range(100):
            writer.write(b"line %d\n" % i)
            await writer.drain()
            assert await reader.readline() == b"line %d\n" % i
        assert not writer.can_write_eof()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, main())


@pytest.mark.parametrize(
    "early",
    [False, pytest.param(True, marks=pytest.mark.stock_since("3.14.3", "gh-142352"))],
)
def test_start_tls_of_streams(loop, early):
    """As SMTP does it. With early, the client's handshake comes with its last plain line."""

    async def main():
        done = loop.create_future()

        async def serve(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            if early:
                await turns(20)
            else:
                writer.write(b"go ahead\n")
            await writer.start_tls(server_context())
            assert writer.get_extra_info("sslcontext")
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            done.set_result(None)

        server = await asyncio.start_server(serve, HOST, 0)
        reader, writer = await asyncio.open_connection(*address(server))
        writer.write(b"STARTTLS\n")
        if not early:
            assert await reader.readline() == b"go ahead\n"
        await writer.start_tls(client_context(), server_hostname=NAME)
        writer.write(b"secret\n")
        assert await reader.readline() == b"secret\n"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await done
        server.close()
        await server.wait_closed()

    run(loop, main())


# ------------------------------------------------------------ servers


@pytest.mark.veloop_only("asyncio closes the TCP connection below it")
def test_upgraded_connection_is_closed_by_its_server_in_order(loop):
    async def main():
        async with serving(loop) as (server, protocols):
            with socket.create_connection(address(server)) as sock:
                peer = Peer(sock)
                await until(lambda: protocols)
                protocol = protocols[0]
                handshake = loop.create_task(in_executor(peer.handshake))
                transport = await loop.start_tls(
                    await protocol.connected, protocol, server_context(), server_side=True
                )
                await handshake
                server.close()
                transport.write(b"bye")
                server.close_clients()
                assert await in_executor(peer.recv_all) == b"bye"
                await in_executor(peer.unwrap)
                await server.wait_closed()
                assert protocol.lost.done()

    run(loop, main())
