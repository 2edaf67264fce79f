"""sockets.py: sock_connect and sock_accept. What they leave behind is conftest's to find."""

import asyncio
import socket
import ssl

import pytest

from helpers import PATIENCE, listening_socket, refusing_address
from tcp_helpers import HOST, run, turns


@pytest.fixture
def listener():
    with listening_socket() as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def client():
    with socket.socket() as sock:
        sock.setblocking(False)
        yield sock


def test_connect_and_accept(loop, listener, client):
    async def main():
        accepting = loop.create_task(loop.sock_accept(listener))
        assert await loop.sock_connect(client, listener.getsockname()) is None
        conn, where = await accepting
        with conn:
            assert where == client.getsockname() == conn.getpeername()
            assert conn.gettimeout() == 0

    run(loop, main())


def test_accept_of_a_connection_that_waits_already(loop, listener):
    async def main():
        with socket.create_connection(listener.getsockname(), PATIENCE) as peer:
            conn, where = await loop.sock_accept(listener)
            with conn:
                assert where == peer.getsockname()

    run(loop, main())


def test_connect_by_host_name(loop, client):
    async def main():
        with socket.create_server((HOST, 0)) as server:
            await loop.sock_connect(client, ("localhost", server.getsockname()[1]))
            assert client.getpeername() == server.getsockname()

    run(loop, main())


def test_refused_connection_names_the_address(loop, client):
    async def main():
        with refusing_address() as where:
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.sock_connect(client, where)
            assert str(where) in str(caught.value)

    run(loop, main())


@pytest.mark.parametrize("waiting", ["accept", "connect"])
def test_cancelled_wait_leaves_no_watch(loop, listener, client, waiting):
    async def main():
        if waiting == "accept":
            task = loop.create_task(loop.sock_accept(listener))
            sock = listener
        else:
            # The backlog is full: this connection stays under way.
            listener.listen(0)
            fillers = [socket.socket() for _ in range(8)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            task = loop.create_task(loop.sock_connect(client, listener.getsockname()))
            sock = client
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_reader(sock) is False
        assert loop.remove_writer(sock) is False
        if waiting == "connect":
            for filler in fillers:
                filler.close()

    run(loop, main())


def test_socket_is_the_applications_again_after_the_wait(loop, listener, client):
    async def main():
        accepting = loop.create_task(loop.sock_accept(listener))
        await loop.sock_connect(client, listener.getsockname())
        conn, _ = await accepting
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, conn)
        await turns()
        transport.abort()
        await turns()
        assert conn.fileno() == -1

    run(loop, main())


@pytest.mark.parametrize("method", ["sock_accept", "sock_connect"])
def test_bad_sockets(loop, method):
    async def call(sock):
        await getattr(loop, method)(sock, *([(HOST, 1)] if method == "sock_connect" else []))

    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(socket.socket()) as sock:
            with pytest.raises(TypeError, match="SSLSocket"):
                await call(sock)
        loop.set_debug(True)
        try:
            with socket.socket() as sock, pytest.raises(ValueError, match="non-blocking"):
                await call(sock)
        finally:
            loop.set_debug(False)
        sock = socket.socket()
        sock.setblocking(False)
        sock.close()
        with pytest.raises(OSError, match="[Bb]ad file descriptor"):
            await call(sock)

    run(loop, main())


def test_closed_loop_refuses(new_loop, listener):
    loop, other = new_loop(), new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(other, loop.sock_accept(listener))
