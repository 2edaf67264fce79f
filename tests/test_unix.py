"""unix.py: create_unix_connection and create_unix_server."""

import asyncio
import contextlib
import errno
import os
import pathlib
import socket
import sys
import tempfile

import pytest

from helpers import LINUX, PATIENCE, RecordingProtocol, drain, listen
from tcp_helpers import end, in_executor, pattern, run, turns, until

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets"
)
CLEANUP = pytest.mark.stock_since("3.13", "a server can remove its socket file")


class Path(os.PathLike):
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


@pytest.fixture
def path():
    """A short one: what fits into an address is about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        yield f"{folder}/s"


@contextlib.asynccontextmanager
async def serving(loop, path, factory=None, **kwargs):
    protocols = []

    def make():
        protocols.append((factory or (lambda: RecordingProtocol(loop)))())
        return protocols[-1]

    server = await loop.create_unix_server(make, path, **kwargs)
    try:
        yield server, protocols
    finally:
        server.close()
        await turns()
        for protocol in protocols:
            if protocol.transport is not None:
                end(protocol.transport)
        await turns()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def connected(loop, path):
    transport, protocol = await loop.create_unix_connection(lambda: RecordingProtocol(loop), path)
    try:
        yield transport, protocol
    finally:
        end(transport)
        await turns()


def bound(path, kind=socket.SOCK_STREAM):
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    return sock


# ------------------------------------------------------------ there and back


@pytest.mark.parametrize("form", [str, os.fsencode, pathlib.Path, Path])
def test_both_ends_talk(loop, path, form):
    async def main():
        async with serving(loop, form(path)) as (server, protocols):
            assert server.sockets[0].getsockname() == path
            assert server.sockets[0].family == socket.AF_UNIX
            async with connected(loop, form(path)) as (transport, protocol):
                await until(lambda: protocols)
                transport.write(b"question")
                assert await protocols[0].received(8) == b"question"
                protocols[0].transport.write(b"answer")
                assert await protocol.received(6) == b"answer"
                transport.write_eof()
                await protocols[0].lost
                assert await protocol.lost is None

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="abstract addresses are Linux's")
@pytest.mark.parametrize("form", [str, str.encode])
def test_abstract_address(loop, path, form):
    name = "\0" + path

    async def main():
        async with serving(loop, form(name)) as (server, protocols):
            assert server.sockets[0].getsockname() == name.encode()
            assert not os.path.exists(path)
            async with connected(loop, form(name)) as (transport, _):
                assert transport.get_extra_info("peername") == name.encode()
                await until(lambda: protocols)
                accepted = await protocols[0].connected
                assert accepted.get_extra_info("sockname") == name.encode()

    run(loop, main())


def test_extra_info_names_the_ends(loop, path):
    async def main():
        async with serving(loop, path) as (_, protocols), connected(loop, path) as (client, _):
            await until(lambda: protocols)
            accepted = await protocols[0].connected
            assert client.get_extra_info("peername") == path
            assert client.get_extra_info("sockname") == ""
            assert accepted.get_extra_info("peername") == ""
            assert accepted.get_extra_info("sockname") == path
            for transport in (client, accepted):
                sock = transport.get_extra_info("socket")
                assert sock.family == socket.AF_UNIX
                assert sock.type == socket.SOCK_STREAM

    run(loop, main())


def test_much_arrives_whole_while_flow_is_controlled(loop, path):
    size = 1 << 22

    async def main():
        async with serving(loop, path) as (_, protocols), connected(loop, path) as (client, mine):
            await until(lambda: protocols)
            client.write(pattern(size))
            assert "pause_writing" in mine.names
            await protocols[0].received(size)
            assert protocols[0].data == pattern(size)
            assert "resume_writing" in mine.names

    run(loop, main())


def test_connected_socket_is_taken_over(loop):
    async def main():
        mine, peer = socket.socketpair()
        with peer:
            transport, protocol = await loop.create_unix_connection(
                lambda: RecordingProtocol(loop), sock=mine
            )
            transport.write(b"out")
            assert await in_executor(drain, peer, 3) == b"out"
            peer.sendall(b"in")
            assert await protocol.received(2) == b"in"
            transport.close()
            await protocol.lost
            await turns()
            assert mine.fileno() == -1

    run(loop, main())


def test_bound_socket_serves(loop, path):
    async def main():
        async with serving(loop, None, sock=bound(path)) as (_, protocols):
            async with connected(loop, path):
                await until(lambda: protocols)

    run(loop, main())


def test_serving_can_begin_later(loop, path):
    async def main():
        async with serving(loop, path, start_serving=False) as (server, protocols):
            assert not server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                await loop.create_unix_connection(asyncio.Protocol, path)
            await server.start_serving()
            async with connected(loop, path):
                await until(lambda: protocols)

    run(loop, main())


def test_streams_over_a_unix_socket(loop, path):
    async def main():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_unix_server(echo, path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"line\n")
        assert await reader.read() == b"line\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, main())


# ------------------------------------------------------------ connecting that fails


def test_nobody_there_is_file_not_found(loop, path):
    with pytest.raises(FileNotFoundError):
        run(loop, loop.create_unix_connection(asyncio.Protocol, path))


def test_nobody_listens_is_connection_refused(loop, path):
    bound(path).close()
    with pytest.raises(ConnectionRefusedError):
        run(loop, loop.create_unix_connection(asyncio.Protocol, path))


@pytest.mark.stock_since("3.14", "a call that fails closes the socket")
def test_factory_that_raises_leaves_no_socket(loop, path):
    async def main():
        async with serving(loop, path):
            with pytest.raises(ZeroDivisionError):
                await loop.create_unix_connection(lambda: 1 / 0, path)

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="other systems refuse the connection")
@pytest.mark.veloop_only("asyncio reports a connection that there is not")
def test_full_backlog_is_waited_for(loop, path):
    """A blocking connect waits then. The kernel says EAGAIN, and nothing when there is room."""

    async def main():
        with bound(path) as listener:
            listen(listener, 0)
            listener.settimeout(PATIENCE)
            first, _ = await loop.create_unix_connection(asyncio.Protocol, path)
            waiting = asyncio.ensure_future(
                loop.create_unix_connection(lambda: RecordingProtocol(loop), path)
            )
            await turns(10)
            assert not waiting.done()
            listener.accept()[0].close()
            second, protocol = await waiting
            with listener.accept()[0] as conn:
                conn.sendall(b"hello")
                assert await protocol.received(5) == b"hello"
            first.abort()
            second.abort()
            await turns()

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="other systems refuse the connection")
@pytest.mark.veloop_only("asyncio reports a connection that there is not")
def test_waiting_for_a_full_backlog_can_be_cancelled(loop, path):
    async def main():
        with bound(path) as listener:
            listen(listener, 0)
            listener.settimeout(PATIENCE)
            first, _ = await loop.create_unix_connection(asyncio.Protocol, path)
            waiting = asyncio.ensure_future(loop.create_unix_connection(asyncio.Protocol, path))
            await turns(10)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            first.abort()
            await turns()

    run(loop, main())


# ------------------------------------------------------------ the name


def test_stale_socket_file_is_replaced(loop, path):
    bound(path).close()

    async def main():
        async with serving(loop, path) as (_, protocols), connected(loop, path):
            await until(lambda: protocols)

    run(loop, main())


@pytest.mark.parametrize("form", [str, os.fsencode, pathlib.Path])
def test_other_file_is_in_use(loop, path, form):
    pathlib.Path(path).write_text("mine")
    with pytest.raises(OSError, match="Address .*v.*/s' is already in use") as caught:
        run(loop, loop.create_unix_server(asyncio.Protocol, form(path)))
    assert caught.value.errno == errno.EADDRINUSE
    assert pathlib.Path(path).read_text() == "mine"


@pytest.mark.skipif(not LINUX, reason="abstract addresses are Linux's")
def test_abstract_address_is_in_use(loop, path):
    name = "\0" + path
    with bound(name), pytest.raises(OSError, match="Address .* is already in use") as caught:
        run(loop, loop.create_unix_server(asyncio.Protocol, name))
    assert caught.value.errno == errno.EADDRINUSE


def test_missing_folder_is_file_not_found(loop, path):
    with pytest.raises(FileNotFoundError):
        run(loop, loop.create_unix_server(asyncio.Protocol, path + "/none/s"))


@CLEANUP
def test_socket_file_goes_with_the_server(loop, path):
    async def main():
        async with serving(loop, path, cleanup_socket=True) as (server, _):
            assert os.path.exists(path)
            server.close()
            assert not os.path.exists(path)
            server.close()

    run(loop, main())


@CLEANUP
def test_file_of_a_bound_socket_goes_too(loop, path):
    async def main():
        async with serving(loop, None, sock=bound(path), cleanup_socket=True):
            pass
        assert not os.path.exists(path)

    run(loop, main())


def test_what_becomes_of_the_file_is_up_to_the_python_version(loop, path):
    async def main():
        async with serving(loop, path):
            pass
        assert os.path.exists(path) == (sys.version_info < (3, 13))

    run(loop, main())


@CLEANUP
def test_socket_file_stays_when_asked(loop, path):
    async def main():
        async with serving(loop, path, cleanup_socket=False):
            pass
        assert os.path.exists(path)

    run(loop, main())


@CLEANUP
def test_file_that_took_the_place_of_ours_stays(loop, path):
    async def main():
        async with serving(loop, path, cleanup_socket=True):
            os.rename(path, path + "old")  # so that its inode is not given to the other
            with bound(path):
                pass
        assert os.path.exists(path)

    run(loop, main())


@CLEANUP
def test_file_that_is_gone_already_does_not_matter(loop, path):
    async def main():
        async with serving(loop, path, cleanup_socket=True):
            os.unlink(path)

    run(loop, main())


@CLEANUP
def test_cancelled_serve_forever_removes_the_file(loop, path):
    async def main():
        server = await loop.create_unix_server(asyncio.Protocol, path, cleanup_socket=True)
        task = asyncio.ensure_future(server.serve_forever())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not os.path.exists(path)

    run(loop, main())


# ------------------------------------------------------------ arguments


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
def test_path_or_socket(loop, path, method):
    call = getattr(loop, method)
    with pytest.raises(ValueError, match="no.* sock.* specified"):
        run(loop, call(asyncio.Protocol))
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ValueError, match="same time"):
        run(loop, call(asyncio.Protocol, path, sock=sock))


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
@pytest.mark.parametrize(
    "kind", [("AF_INET", "SOCK_STREAM"), ("AF_UNIX", "SOCK_DGRAM")], ids=lambda kind: kind[0]
)
def test_socket_must_be_a_unix_stream_socket(loop, method, kind):
    with socket.socket(*(getattr(socket, name) for name in kind)) as sock:
        with pytest.raises(ValueError, match="A UNIX Domain Stream Socket was expected, got <"):
            run(loop, getattr(loop, method)(asyncio.Protocol, sock=sock))
        assert sock.fileno() != -1  # it stays the caller's


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
@pytest.mark.parametrize("wrong", [5, object(), ["x"]], ids=lambda wrong: type(wrong).__name__)
def test_path_must_be_a_path(loop, method, wrong):
    with pytest.raises(TypeError):
        run(loop, getattr(loop, method)(asyncio.Protocol, wrong))


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_tls_arguments_need_tls(loop, path, method, name):
    with pytest.raises(ValueError, match=f"{name} is only meaningful with ssl"):
        run(loop, getattr(loop, method)(asyncio.Protocol, path, **{name: 10.0}))


def test_server_hostname_goes_with_tls(loop, path):
    with pytest.raises(ValueError, match="server_hostname is only meaningful with ssl"):
        run(loop, loop.create_unix_connection(asyncio.Protocol, path, server_hostname="host"))
    with pytest.raises(ValueError, match="you have to pass server_hostname when using ssl"):
        run(loop, loop.create_unix_connection(asyncio.Protocol, path, ssl=True))
    with pytest.raises(TypeError, match="ssl argument must be an SSLContext or None"):
        run(loop, loop.create_unix_server(asyncio.Protocol, path, ssl=True))


@pytest.mark.veloop_only("asyncio leaves the socket open")
def test_null_character_in_a_path(loop, path):
    with pytest.raises(ValueError, match="null"):
        run(loop, loop.create_unix_server(asyncio.Protocol, path + "\0x"))


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
def test_path_that_is_too_long(loop, path, method):
    with pytest.raises(OSError, match="too long"):
        run(loop, getattr(loop, method)(asyncio.Protocol, path + "x" * 200))


@pytest.mark.veloop_only("asyncio raises an IndexError from within")
def test_server_needs_a_name(loop):
    with pytest.raises(ValueError, match="path must not be empty"):
        run(loop, loop.create_unix_server(asyncio.Protocol, ""))


def test_unbound_socket_cannot_serve(loop):
    with socket.socket(socket.AF_UNIX) as sock:
        with pytest.raises((OSError, IndexError)):
            run(loop, loop.create_unix_server(asyncio.Protocol, sock=sock))
