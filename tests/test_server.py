"""server.py: what a Server does from its start to its end.

veloop has the newest CPython's server on every version. Where it listens: test_tcp_listen.py.
"""

import asyncio
import socket
import threading

import pytest

from helpers import PATIENCE, RecordingProtocol, collect, drain, in_thread
from tcp_helpers import HOST, address, in_executor, run, serving, turns, until, with_client

waits_for_clients = pytest.mark.stock_since("3.12.1", "wait_closed did not wait for connections")


def refuses(where):
    try:
        socket.create_connection(where, PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


# ------------------------------------------------------------ what it is


def test_server_is_asyncios(loop):
    async def main():
        async with serving(loop) as (server, _):
            assert isinstance(server, asyncio.AbstractServer)
            assert isinstance(server, asyncio.Server)
            assert server.get_loop() is loop
            assert server.is_serving() is True

    run(loop, main())


def test_sockets_are_there_until_the_server_is_closed(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        assert isinstance(server.sockets, tuple)
        sock = server.sockets[0]
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_STREAM
        assert sock.fileno() > 0
        with pytest.raises(ValueError, match="settimeout"):
            sock.settimeout(1)
        assert "Server" in repr(server)
        assert str(sock.getsockname()[1]) in repr(server)
        server.close()
        assert server.sockets == ()
        assert "Server" in repr(server)
        await server.wait_closed()

    run(loop, main())


def test_async_with_closes_the_server(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        where = address(server)
        async with server as same:
            assert same is server
        assert not server.is_serving()
        assert server.sockets == ()
        assert refuses(where)

    run(loop, main())


def test_server_nobody_keeps_serves_on(loop):
    async def main():
        protocols = []

        def factory():
            protocols.append(RecordingProtocol(loop))
            return protocols[-1]

        server = await loop.create_server(factory, HOST, 0)
        where = address(server)
        closer = server.close
        del server
        collect()
        with socket.create_connection(where, PATIENCE):
            await until(lambda: protocols)
            await protocols[0].connected
            protocols[0].transport.abort()
            await protocols[0].lost
        closer()
        await turns()

    run(loop, main())


# ------------------------------------------------------------ start_serving


def test_start_serving_again_does_nothing(loop):
    async def main():
        async with with_client(loop) as (server, protocol, peer):
            await server.start_serving()
            await server.start_serving()
            assert server.is_serving()
            peer.sendall(b"hello")
            assert await protocol.received(5) == b"hello"

    run(loop, main())


@pytest.mark.veloop_only("asyncio dies of a TypeError")
def test_start_serving_a_closed_server_is_refused(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        server.close()
        with pytest.raises(RuntimeError, match=r"<Server sockets=\(\)> is closed"):
            await server.start_serving()
        assert not server.is_serving()

    run(loop, main())


def test_serve_forever_starts_serving(loop):
    async def main():
        async with serving(loop, start_serving=False) as (server, protocols):
            task = loop.create_task(server.serve_forever())
            await until(server.is_serving)
            with socket.create_connection(address(server), PATIENCE):
                await until(lambda: protocols)
                await protocols[0].connected
            await protocols[0].lost
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(loop, main())


# ------------------------------------------------------------ close and wait_closed


def test_close_refuses_new_connections_at_once(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        where = address(server)
        server.close()
        assert not server.is_serving()
        assert refuses(where)
        await server.wait_closed()

    run(loop, main())


def test_close_again_does_nothing(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        for _ in range(3):
            server.close()
            await server.wait_closed()

    run(loop, main())


def test_close_leaves_connections_alone(loop):
    async def main():
        async with with_client(loop) as (server, protocol, peer):
            server.close()
            await turns()
            peer.sendall(b"still")
            assert await protocol.received(5) == b"still"
            protocol.transport.write(b"here")
            assert drain(peer, 4) == b"here"

    run(loop, main())


@pytest.mark.stock_since("3.12.1", "wait_closed returned at once where there was no client")
def test_wait_closed_waits_for_close(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        waiting = loop.create_task(server.wait_closed())
        await turns(10)
        assert not waiting.done()
        server.close()
        await waiting

    run(loop, main())


@waits_for_clients
def test_wait_closed_waits_for_the_last_connection(loop):
    async def main():
        async with serving(loop) as (server, protocols):
            peers = [socket.create_connection(address(server), PATIENCE) for _ in range(2)]
            await until(lambda: len(protocols) == 2)
            await turns()
            server.close()
            waiting = [loop.create_task(server.wait_closed()) for _ in range(2)]
            for peer, protocol in zip(peers, protocols, strict=True):
                await turns(10)
                assert not any(task.done() for task in waiting)
                peer.close()
                await protocol.lost
            await asyncio.gather(*waiting)

    run(loop, main())


@waits_for_clients
def test_wait_closed_ends_where_the_last_connection_went_before_close(loop):
    async def main():
        async with with_client(loop) as (server, protocol, peer):
            waiting = loop.create_task(server.wait_closed())
            peer.close()
            await protocol.lost
            await turns(10)
            assert not waiting.done()
            server.close()
            await waiting

    run(loop, main())


@waits_for_clients
def test_cancelled_wait_closed_does_not_hurt_the_others(loop):
    async def main():
        async with with_client(loop) as (server, protocol, peer):
            server.close()
            first, second = (loop.create_task(server.wait_closed()) for _ in range(2))
            await turns()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            peer.close()
            await protocol.lost
            await second

    run(loop, main())


@waits_for_clients
def test_connection_lost_of_the_last_connection_comes_before_wait_closed_ends(loop):
    order = []

    class Protocol(RecordingProtocol):
        def connection_lost(self, exc):
            order.append("connection_lost")
            super().connection_lost(exc)

    async def main():
        async with with_client(loop, lambda: Protocol(loop)) as (server, _, peer):
            server.close()
            peer.close()
            await server.wait_closed()
            order.append("wait_closed")

    run(loop, main())
    assert order == ["connection_lost", "wait_closed"]


def test_server_closed_in_connection_made(loop):
    class Last(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            servers[0].close()

    servers = []

    async def main():
        async with with_client(loop, lambda: Last(loop)) as (server, protocol, peer):
            assert not server.is_serving()
            peer.sendall(b"hello")
            assert await protocol.received(5) == b"hello"

    async def create_server(*args, **kwargs):
        servers.append(await original(*args, **kwargs))
        return servers[0]

    original, loop.create_server = loop.create_server, create_server
    run(loop, main())


@waits_for_clients
@pytest.mark.veloop_only("asyncio's transport asserts that its server is open, and is lost")
def test_server_closed_by_its_protocol_factory_waits_for_that_connection(loop):
    async def main():
        protocols = []

        def factory():
            server.close()
            protocols.append(RecordingProtocol(loop))
            return protocols[-1]

        server = await loop.create_server(factory, HOST, 0)
        with socket.create_connection(address(server), PATIENCE) as peer:
            await until(lambda: protocols)
            await protocols[0].connected
            waiting = loop.create_task(server.wait_closed())
            await turns(10)
            assert not waiting.done()
            peer.close()
            await protocols[0].lost
            await waiting

    run(loop, main())


# ------------------------------------------------------------ serve_forever


def test_serve_forever_is_ended_by_close(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        task = loop.create_task(server.serve_forever())
        await turns()
        assert not task.done()
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main())


def test_serve_forever_cancelled_closes_the_server(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        where = address(server)
        task = loop.create_task(server.serve_forever())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving()
        assert server.sockets == ()
        assert refuses(where)

    run(loop, main())


@pytest.mark.stock_since("3.14.0", "serve_forever waited for the clients without closing them")
def test_serve_forever_cancelled_closes_the_connections(loop):
    async def main():
        async with with_client(loop) as (server, protocol, peer):
            task = loop.create_task(server.serve_forever())
            await turns()
            protocol.transport.write(b"last words")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert protocol.lost.done()
            assert drain(peer, 10) == b"last words"
            assert peer.recv(1) == b""

    run(loop, main())


def test_serve_forever_cannot_run_twice(loop):
    async def main():
        async with serving(loop) as (server, _):
            task = loop.create_task(server.serve_forever())
            await turns()
            with pytest.raises(RuntimeError, match="already being awaited on serve_forever"):
                await server.serve_forever()
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(loop, main())


def test_serve_forever_of_a_closed_server_is_refused(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        server.close()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    run(loop, main())


def test_timeout_around_serve_forever(loop):
    async def main():
        server = await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await server.serve_forever()
        assert server.sockets == ()

    run(loop, main())


# ------------------------------------------------------------ foreign threads, closed loops


@pytest.mark.veloop_only("asyncio corrupts itself silently outside debug mode")
def test_foreign_thread_closing_a_server_is_refused_and_the_server_lives(loop):
    def touch(server):
        with pytest.raises(RuntimeError, match="thread") as caught:
            server.close()
        return str(caught.value), threading.current_thread().name

    async def main():
        async with serving(loop) as (server, protocols):
            message, name = await in_executor(touch, server)
            assert name in message
            assert threading.current_thread().name in message
            assert server.is_serving()
            assert len(server.sockets) == 1
            with socket.create_connection(address(server), PATIENCE):
                await until(lambda: protocols)
                await protocols[0].connected

    run(loop, main())


def test_server_may_be_closed_between_two_runs_of_the_loop(loop):
    async def create():
        return await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)

    server = run(loop, create())
    where = address(server)
    server.close()
    assert refuses(where)
    run(loop, server.wait_closed())


def test_server_may_be_closed_by_another_thread_while_the_loop_stands_still(loop):
    async def create():
        return await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)

    server = run(loop, create())
    in_thread(server.close)
    run(loop, server.wait_closed())


def test_server_may_be_closed_after_its_loop(new_loop):
    loop = new_loop()

    async def create():
        return await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0)

    server = run(loop, create())
    where = address(server)
    loop.close()
    server.close()
    assert server.sockets == ()
    assert not server.is_serving()
    assert refuses(where)


@pytest.mark.veloop_only("asyncio goes on with the selector of a closed loop")
def test_server_of_a_closed_loop_cannot_start(new_loop):
    loop, other = new_loop(), new_loop()

    async def create():
        return await loop.create_server(
            lambda: RecordingProtocol(loop), HOST, 0, start_serving=False
        )

    server = run(loop, create())
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        run(other, server.start_serving())
    server.close()
