"""sockets.py: sock_connect and sock_accept. Leaks are conftest's to find."""

import asyncio
import contextlib
import socket
import ssl
import time

import pytest

from helpers import LINUX, PATIENCE, listening_socket, refusing_address
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
        with pytest.raises(OSError, match="[Bb]ad file descriptor|WinError 10038"):
            await call(sock)

    run(loop, main())


def test_wait_that_gave_way_does_not_take_the_later_one_along(loop, listener):
    async def main():
        early = loop.create_task(loop.sock_accept(listener))
        await turns()
        late = loop.create_task(loop.sock_accept(listener))
        await turns()
        early.cancel()
        await turns()
        with socket.create_connection(listener.getsockname(), PATIENCE):
            conn, _ = await late
            conn.close()
        with pytest.raises(asyncio.CancelledError):
            await early

    run(loop, main())


@pytest.fixture
def unix_listener(tmp_path):
    """One whose backlog is full, and the connections that fill it."""
    with socket.socket(socket.AF_UNIX) as sock, contextlib.ExitStack() as fillers:
        sock.setblocking(False)
        sock.bind(str(tmp_path / "socket"))
        sock.listen(0)
        while True:
            filler = fillers.enter_context(socket.socket(socket.AF_UNIX))
            filler.setblocking(False)
            if filler.connect_ex(sock.getsockname()):
                break
        yield sock


@pytest.fixture
def unix_client():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        yield sock


needs_full_backlog = pytest.mark.skipif(not LINUX, reason="elsewhere a full backlog refuses")


@needs_full_backlog
@pytest.mark.veloop_only("asyncio takes the unconnected socket for a connected one")
def test_connect_waits_for_room_in_the_backlog_of_a_unix_socket(loop, unix_listener, unix_client):
    async def main():
        cpu = time.process_time()
        task = loop.create_task(loop.sock_connect(unix_client, unix_listener.getsockname()))
        await asyncio.sleep(0.2)
        assert not task.done()
        assert time.process_time() - cpu < 0.1  # it does not spin
        while not task.done():
            conn, _ = await loop.sock_accept(unix_listener)
            conn.close()
            await asyncio.wait([task], timeout=0.05)
        await task
        assert unix_client.getpeername() == unix_listener.getsockname()

    run(loop, main())


@needs_full_backlog
@pytest.mark.veloop_only("asyncio takes the unconnected socket for a connected one")
def test_wait_for_room_in_a_backlog_can_be_cancelled(loop, unix_listener, unix_client):
    async def main():
        task = loop.create_task(loop.sock_connect(unix_client, unix_listener.getsockname()))
        await turns(20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main())


@needs_full_backlog
def test_connect_to_a_unix_socket_that_is_not_there(loop, tmp_path, unix_client):
    with pytest.raises(FileNotFoundError):
        run(loop, loop.sock_connect(unix_client, str(tmp_path / "nothing")))


def test_closed_loop_refuses(new_loop, listener):
    loop, other = new_loop(), new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(other, loop.sock_accept(listener))
