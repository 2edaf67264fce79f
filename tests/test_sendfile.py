"""sendfile.py: files over sockets and transports, with os.sendfile and without it."""

import asyncio
import contextlib
import io
import os
import socket

import pytest

import veloop.loop.sendfile
from helpers import LINUX, PYPY, collect, drain, fill, socket_pair, tcp_pair
from tcp_helpers import run, turns, until

CONTENT = bytes(range(256)) * (4 << 12)  # 4 MiB: more than the kernel takes at once

native_only = pytest.mark.skipif(not LINUX, reason="about os.sendfile")
# Where asyncio and veloop have it from.
SENDFILE = [(os, "sendfile"), (veloop.loop.sendfile, "_sendfile")]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        yield file


@pytest.fixture(params=["regular", "memory"])
def any_file(request, file):
    """A file that os.sendfile takes, and one that it does not."""
    return file if request.param == "regular" else io.BytesIO(CONTENT)


@pytest.fixture
def pair():
    with socket_pair() as ends:
        yield ends


class Protocol(asyncio.Protocol):
    """Writes down what happens to it."""

    def __init__(self):
        self.events = []
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.data += data

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@contextlib.contextmanager
def narrow_pair():
    """A TCP connection whose ends take little at once: (client, peer)."""
    with tcp_pair() as (client, peer):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        client.setblocking(False)
        yield client, peer


@contextlib.asynccontextmanager
async def transport_and_peer(loop):
    with narrow_pair() as (client, peer):
        transport, protocol = await loop.create_connection(Protocol, sock=client)
        try:
            yield transport, protocol, peer
        finally:
            transport.abort()
            await protocol.lost


PARTS = [(0, None), (1000, None), (0, 1), (1000, 2_000_000)]


@pytest.mark.parametrize(("offset", "count"), PARTS)
def test_file_over_a_socket(loop, pair, any_file, offset, count):
    async def main():
        expected = CONTENT[offset:][:count]
        receiving = loop.run_in_executor(None, drain, pair[1], len(expected))
        assert await loop.sock_sendfile(pair[0], any_file, offset, count) == len(expected)
        assert await receiving == expected
        assert any_file.tell() == offset + len(expected)

    run(loop, main())


@pytest.mark.parametrize(("offset", "count"), PARTS)
def test_file_over_a_transport(loop, any_file, offset, count):
    async def main():
        expected = b"before" * 100_000 + CONTENT[offset:][:count] + b"after"
        async with transport_and_peer(loop) as (transport, _, peer):
            receiving = loop.run_in_executor(None, drain, peer, len(expected))
            transport.write(b"before" * 100_000)
            sent = await loop.sendfile(transport, any_file, offset, count)
            transport.write(b"after")
            assert sent == len(expected) - 600_005
            assert any_file.tell() == offset + sent
            assert await receiving == expected

    run(loop, main())


@pytest.mark.stock_since("3.15", "went on at the file's position if offset was 0")
@pytest.mark.parametrize("offset", [0, len(CONTENT)])
def test_position_of_the_file_does_not_matter(loop, pair, any_file, offset):
    async def main():
        any_file.seek(77)
        receiving = loop.run_in_executor(None, drain, pair[1], len(CONTENT) - offset)
        await loop.sock_sendfile(pair[0], any_file, offset)
        assert await receiving == CONTENT[offset:]
        assert any_file.tell() == len(CONTENT)
        async with transport_and_peer(loop) as (transport, _, peer):
            any_file.seek(77)
            receiving = loop.run_in_executor(None, drain, peer, len(CONTENT) - offset)
            await loop.sendfile(transport, any_file, offset)
            assert await receiving == CONTENT[offset:]
            assert any_file.tell() == len(CONTENT)

    run(loop, main())


def test_count_beyond_the_end_of_the_file(loop, pair, any_file):
    async def main():
        receiving = loop.run_in_executor(None, drain, pair[1], 10)
        assert await loop.sock_sendfile(pair[0], any_file, len(CONTENT) - 10, 1000) == 10
        assert await receiving == CONTENT[-10:]
        assert any_file.tell() == len(CONTENT)

    run(loop, main())


def test_empty_file(loop, pair, tmp_path):
    async def main():
        async with transport_and_peer(loop) as (transport, _, _peer):
            with (tmp_path / "empty").open("w+b") as file:
                assert await loop.sock_sendfile(pair[0], file) == 0
                assert await loop.sendfile(transport, file) == 0

    run(loop, main())


@native_only
@pytest.mark.parametrize("over", ["socket", "transport"])
def test_regular_file_goes_through_os_sendfile(loop, file, over, monkeypatch):
    calls = []
    real = os.sendfile
    for place in SENDFILE:
        monkeypatch.setattr(*place, lambda *args: calls.append(args) or real(*args))

    async def main():
        async with transport_and_peer(loop) as (transport, _, _peer):
            with narrow_pair() as (client, _):
                if over == "socket":
                    await loop.sock_sendfile(client, file, 0, 100, fallback=False)
                else:
                    await loop.sendfile(transport, file, 0, 100, fallback=False)

    run(loop, main())
    assert calls


def test_fallback_can_be_refused(loop, pair):
    async def main():
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sock_sendfile(pair[0], io.BytesIO(b"x"), fallback=False)
        async with transport_and_peer(loop) as (transport, _, peer):
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sendfile(transport, io.BytesIO(b"x"), fallback=False)
            # The transport is as before.
            transport.write(b"y")
            assert drain(peer, 1) == b"y"

    run(loop, main())


@native_only
def test_fallback_where_the_system_has_no_sendfile(loop, pair, file, monkeypatch):
    monkeypatch.delattr(os, "sendfile")
    monkeypatch.setattr(veloop.loop.sendfile, "_sendfile", None)

    async def main():
        receiving = loop.run_in_executor(None, drain, pair[1], len(CONTENT))
        await loop.sock_sendfile(pair[0], file)
        assert await receiving == CONTENT
        file.seek(0)
        async with transport_and_peer(loop) as (transport, _, peer):
            receiving = loop.run_in_executor(None, drain, peer, len(CONTENT))
            await loop.sendfile(transport, file)
            assert await receiving == CONTENT

    run(loop, main())


# ------------------------------------------------------------ what happens meanwhile


@native_only
def test_transport_must_not_write_during_a_sendfile(loop, file):
    async def main():
        async with transport_and_peer(loop) as (transport, _, peer):
            task = loop.create_task(loop.sendfile(transport, file))
            await turns(5)
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.write(b"x")
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.writelines([b"x"])
            received = await loop.run_in_executor(None, drain, peer, len(CONTENT))
            assert received == CONTENT
            assert await task == len(CONTENT)
            transport.write(b"x")
            assert drain(peer, 1) == b"x"

    run(loop, main())


@pytest.mark.veloop_only("asyncio raises a KeyError and forgets the transport")
def test_one_sendfile_at_a_time(loop, file):
    async def main():
        async with transport_and_peer(loop) as (transport, _, peer):
            task = loop.create_task(loop.sendfile(transport, file))
            await turns(5)
            with pytest.raises(RuntimeError, match="in progress"):
                await loop.sendfile(transport, file)
            assert await loop.run_in_executor(None, drain, peer, len(CONTENT)) == CONTENT
            assert await task == len(CONTENT)
            assert transport.is_reading()

    run(loop, main())


@pytest.mark.veloop_only("asyncio forgets the transport")
def test_sendfile_that_could_not_begin_leaves_the_transport_as_it_was(loop, file):
    async def main():
        async with transport_and_peer(loop) as (transport, _, peer):

            def refuse():
                raise RuntimeError("not now")

            transport.is_reading = refuse
            with pytest.raises(RuntimeError, match="not now"):
                await loop.sendfile(transport, file)
            del transport.is_reading
            transport.write(b"as before")
            assert await loop.run_in_executor(None, drain, peer, 9) == b"as before"
            assert await loop.sendfile(transport, file, 0, 10) == 10

    run(loop, main())


def test_reading_waits_for_the_end_of_a_sendfile(loop, file):
    async def main():
        async with transport_and_peer(loop) as (transport, protocol, peer):
            task = loop.create_task(loop.sendfile(transport, file))
            await turns(5)
            assert not transport.is_reading()
            peer.sendall(b"hello")
            await turns(5)
            assert protocol.data == b""
            await loop.run_in_executor(None, drain, peer, len(CONTENT))
            await task
            assert transport.is_reading()
            await until(lambda: protocol.data == b"hello")

    run(loop, main())


def test_paused_transport_stays_paused(loop, file):
    async def main():
        async with transport_and_peer(loop) as (transport, _, peer):
            transport.pause_reading()
            receiving = loop.run_in_executor(None, drain, peer, len(CONTENT))
            await loop.sendfile(transport, file)
            await receiving
            assert not transport.is_reading()

    run(loop, main())


def test_protocol_that_is_paused_is_told_when_the_fallback_is_over(loop):
    async def main():
        async with transport_and_peer(loop) as (transport, protocol, peer):
            transport.write(b"x" * len(CONTENT))
            assert protocol.events == ["pause"]
            task = loop.create_task(loop.sendfile(transport, io.BytesIO(CONTENT)))
            await turns(5)
            received = await loop.run_in_executor(None, drain, peer, 2 * len(CONTENT))
            assert received == b"x" * len(CONTENT) + CONTENT
            await task
            assert protocol.events == ["pause", "resume"]
            assert transport.get_protocol() is protocol

    run(loop, main())


@native_only
@pytest.mark.parametrize("over", ["socket", "transport"])
@pytest.mark.veloop_only("asyncio does not set the position of the file when it is cancelled")
def test_cancelled_sendfile(loop, file, over):
    async def main():
        async with transport_and_peer(loop) as (transport, _, peer):
            with narrow_pair() as (client, _):
                sending = (
                    loop.sock_sendfile(client, file)
                    if over == "socket"
                    else loop.sendfile(transport, file)
                )
                task = loop.create_task(sending)
                await turns(50)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert loop.remove_writer(client) is False
            if over == "transport":
                position = file.tell()
                transport.write(b"x")
                received = await loop.run_in_executor(None, drain, peer, position + 1)
                assert received == CONTENT[:position] + b"x"
                assert 0 < position < len(CONTENT)

    run(loop, main())


@native_only
@pytest.mark.veloop_only("asyncio leaves the transport paused and refusing to write")
def test_cancelled_while_the_write_queue_drains(loop, file):
    async def main():
        async with transport_and_peer(loop) as (transport, _, peer):
            transport.write(b"x" * len(CONTENT))
            task = loop.create_task(loop.sendfile(transport, file))
            await turns(5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert transport.is_reading()
            transport.write(b"end")
            received = await loop.run_in_executor(None, drain, peer, len(CONTENT) + 3)
            assert received == b"x" * len(CONTENT) + b"end"

    run(loop, main())


@pytest.mark.parametrize("over", ["socket", "transport"])
def test_peer_that_goes_in_the_middle(loop, any_file, over):
    async def main():
        with narrow_pair() as (client, peer):
            if over == "socket":
                task = loop.create_task(loop.sock_sendfile(client, any_file))
            else:
                transport, protocol = await loop.create_connection(Protocol, sock=client)
                task = loop.create_task(loop.sendfile(transport, any_file))
            await loop.run_in_executor(None, drain, peer, 100_000)
            peer.close()
            with pytest.raises(ConnectionError):
                await task
            assert 100_000 <= any_file.tell() < len(CONTENT)
            if over == "transport":
                transport.abort()
                await protocol.lost

    run(loop, main())


@pytest.mark.veloop_only("asyncio waits for ever")
@pytest.mark.parametrize("method", ["abort", "close"])
@pytest.mark.parametrize("queued", [0, len(CONTENT)])
def test_transport_that_ends_in_the_middle(loop, file, method, queued):
    async def main():
        async with transport_and_peer(loop) as (transport, _, peer):
            transport.write(bytes(queued))
            task = loop.create_task(loop.sendfile(transport, file))
            await turns(10)
            getattr(transport, method)()
            if method == "close" and queued:
                await loop.run_in_executor(None, drain, peer, queued)
            with pytest.raises(ConnectionError):
                await task

    run(loop, main())


def test_half_closed_transport(loop, file):
    async def main():
        async with transport_and_peer(loop) as (transport, _, _peer):
            transport.write_eof()
            with pytest.raises((ConnectionError, RuntimeError)):
                await loop.sendfile(transport, file)

    run(loop, main())


@pytest.mark.skipif(PYPY, reason="PyPy runs no `finally` of a coroutine that is collected")
@pytest.mark.veloop_only("how asyncio ends then depends on what is collected first")
def test_loop_closed_in_the_middle(new_loop, file):
    loop = new_loop()

    async def main():
        client, peer = socket.socketpair()
        client.setblocking(False)
        fill(client)
        transport, _ = await loop.create_connection(Protocol, sock=client)
        loop._unfinished = loop.create_task(loop.sendfile(transport, file))
        await turns(10)
        return transport, peer

    transport, peer = run(loop, main())
    task = loop._unfinished
    task._log_destroy_pending = False
    loop.close()
    with peer, pytest.warns(ResourceWarning):
        del loop._unfinished, task, transport
        collect()


# ------------------------------------------------------------ what is refused


def test_closing_transport(loop, file):
    async def main():
        async with transport_and_peer(loop) as (transport, _, _peer):
            transport.close()
            with pytest.raises(RuntimeError, match="closing"):
                await loop.sendfile(transport, file)

    run(loop, main())


def test_transport_that_knows_no_sendfile(loop, file):
    class Other(asyncio.Transport):
        def is_closing(self):
            return False

    async def main():
        with pytest.raises(RuntimeError, match="not supported"):
            await loop.sendfile(Other(), file)

    run(loop, main())


BAD = [
    ({"offset": "1"}, TypeError),
    ({"offset": -1}, ValueError),
    ({"count": "1"}, TypeError),
    ({"count": 0}, ValueError),
    ({"count": -1}, ValueError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD)
def test_bad_arguments(loop, pair, file, arguments, error):
    async def main():
        (name,) = arguments
        with pytest.raises(error, match=name):
            await loop.sock_sendfile(pair[0], file, **arguments)
        async with transport_and_peer(loop) as (transport, _, _peer):
            with pytest.raises(error, match=name):
                await loop.sendfile(transport, file, **arguments)
            transport.write(b"not stuck")

    run(loop, main())


def test_text_file(loop, pair, tmp_path):
    async def main():
        with (tmp_path / "text").open("w+") as file:
            with pytest.raises(ValueError, match="binary"):
                await loop.sock_sendfile(pair[0], file)
            async with transport_and_peer(loop) as (transport, _, _peer):
                with pytest.raises(ValueError, match="binary"):
                    await loop.sendfile(transport, file)

    run(loop, main())


def test_datagram_socket(loop, file):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            with pytest.raises(ValueError, match="SOCK_STREAM"):
                await loop.sock_sendfile(sock, file)

    run(loop, main())


def test_closed_socket(loop, file):
    async def main():
        sock = socket.socket()
        sock.close()
        with pytest.raises(OSError):
            await loop.sock_sendfile(sock, file)

    run(loop, main())


def test_socket_that_blocks_is_refused_in_debug_mode(loop, file):
    async def main():
        loop.set_debug(True)
        try:
            with socket.socket() as sock, pytest.raises(ValueError, match="non-blocking"):
                await loop.sock_sendfile(sock, file)
        finally:
            loop.set_debug(False)

    run(loop, main())


@native_only
def test_socket_whose_buffer_is_full_at_first(loop, pair, file):
    async def main():
        filled = fill(pair[0])
        task = loop.create_task(loop.sock_sendfile(pair[0], file, fallback=False))
        await turns(5)
        received = await loop.run_in_executor(None, drain, pair[1], filled + len(CONTENT))
        assert received[filled:] == CONTENT
        assert await task == len(CONTENT)

    run(loop, main())
