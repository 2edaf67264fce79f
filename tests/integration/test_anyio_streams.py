"""anyio's TLS streams, Unix sockets and UDP, on veloop and on asyncio."""

import asyncio
import contextlib
import os
import socket
import ssl

import pytest
from payload import MEGABYTE, Checksum, chunks, payload
from running import on_anyio

from certificates import client_context, server_context
from helpers import LINUX, WINDOWS

anyio = pytest.importorskip("anyio", reason="anyio is not installed (pip install '.[test]')")
from anyio.streams.tls import TLSAttribute, TLSListener, TLSStream  # noqa: E402

LARGE = 10 * MEGABYTE
HOST = "127.0.0.1"


async def echo(stream):
    async with stream:
        async for data in stream:
            await stream.send(data)


async def summing(stream):
    """Read up to the end of the stream, then tell what it was."""
    checksum = Checksum()
    async with stream:
        async for data in stream:
            checksum.feed(data)
            await anyio.lowlevel.checkpoint()
        await stream.send(str(checksum).encode())


async def received(stream, size):
    parts = []
    while size:
        parts.append(await stream.receive(size))
        size -= len(parts[-1])
    return b"".join(parts)


@contextlib.asynccontextmanager
async def serving(listener, handler):
    """Serve for as long as the block takes, and until the handlers are done with their clients.

    Not to be cancelled is the point: anyio's Unix streams log an error when a cancellation and the
    end of the stream come in the same turn of the loop.
    """
    async with listener, anyio.create_task_group() as accepting:
        async with anyio.create_task_group() as handlers:
            accepting.start_soon(listener.serve, handler, handlers)
            yield
        accepting.cancel_scope.cancel()


def port_of(listener):
    listener = getattr(listener, "listener", listener)
    return listener.extra(anyio.abc.SocketAttribute.local_port)


async def listen_tcp():
    return await anyio.create_tcp_listener(local_host=HOST)


# ------------------------------------------------------------ TLS


async def listen_tls(context=None, **options):
    return TLSListener(await listen_tcp(), context or server_context(), **options)


async def connect_tls(listener, context=None, **options):
    options = {"tls": True, "ssl_context": context or client_context(), **options}
    return await anyio.connect_tcp(HOST, port_of(listener), **options)


@on_anyio
async def test_tls_echo():
    """Many clients at once; each side knows the other's certificate, cipher and protocol."""

    async def client(number):
        async with await connect_tls(listener, tls_hostname="localhost") as stream:
            data = b"%d," % number * 1000
            await stream.send(data)
            assert await received(stream, len(data)) == data
            assert stream.extra(TLSAttribute.tls_version) == "TLSv1.3"
            subject = dict(*stream.extra(TLSAttribute.peer_certificate)["subject"])
            assert subject == {"commonName": "localhost"}
            served.append(number)

    served = []
    listener = await listen_tls()
    async with serving(listener, echo):
        async with anyio.create_task_group() as clients:
            for number in range(20):
                clients.start_soon(client, number)
    assert sorted(served) == list(range(20))


@on_anyio
async def test_tls_large_streams():
    """10 MB through TLS and back, while both sides send and receive."""

    async def send():
        for chunk in chunks(LARGE):
            await stream.send(chunk)

    listener = await listen_tls()
    async with serving(listener, echo):
        async with await connect_tls(listener) as stream, anyio.create_task_group() as both:
            both.start_soon(send)
            assert await received(stream, LARGE) == payload(LARGE)


@on_anyio
async def test_tls_end_of_stream():
    """With the closing handshake an EndOfStream; without it a BrokenResourceError."""

    async def ends(stream):
        await stream.aclose()

    async def breaks(stream):
        await stream.transport_stream.aclose()

    for handler, expected, close in (
        (ends, anyio.EndOfStream, TLSStream.aclose),
        (breaks, anyio.BrokenResourceError, anyio.aclose_forcefully),
    ):
        listener = await listen_tls()
        async with serving(listener, handler):
            stream = await connect_tls(listener)
            with pytest.raises(expected):
                await stream.receive()
            await close(stream)


@pytest.mark.parametrize("certificate", ["unknown", "othername", "expired"])
@on_anyio
async def test_tls_with_a_certificate_that_is_not_good_enough(certificate):
    """The client's handshake fails, and the listener goes on."""
    listener = await listen_tls(server_context(certificate))
    async with serving(listener, echo):
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect_tls(listener, tls_hostname="localhost")
        careless = client_context()
        careless.check_hostname = False
        careless.verify_mode = ssl.CERT_NONE
        async with await connect_tls(listener, careless) as stream:
            await stream.send(b"next")
            assert await received(stream, 4) == b"next"


@on_anyio
async def test_tls_handshake_timeout():
    """A peer that says nothing is given up by the listener; others are served meanwhile."""
    listener = await listen_tls(handshake_timeout=0.05)
    async with serving(listener, echo):
        async with await anyio.connect_tcp(HOST, port_of(listener)) as silent:
            async with await connect_tls(listener) as stream:
                await stream.send(b"served")
                assert await received(stream, 6) == b"served"
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await silent.receive()


@on_anyio
async def test_tls_upgrade_and_back():
    """A stream that began in the clear is wrapped in the middle, and unwrapped again."""

    async def serve(stream):
        await stream.send(b"ready")
        tls = await TLSStream.wrap(stream, ssl_context=server_context(), server_side=True)
        assert await tls.receive() == b"secret"
        plain, rest = await tls.unwrap()
        await plain.send(b"clear" + rest)
        await plain.aclose()

    listener = await listen_tcp()
    async with serving(listener, serve):
        stream = await anyio.connect_tcp(HOST, port_of(listener))
        assert await received(stream, 5) == b"ready"
        tls = await TLSStream.wrap(stream, ssl_context=client_context(), hostname="localhost")
        await tls.send(b"secret")
        plain, rest = await tls.unwrap()
        assert rest + await received(plain, 5 - len(rest)) == b"clear"
        await plain.aclose()


# ------------------------------------------------------------ Unix sockets


unix = pytest.mark.skipif(WINDOWS, reason="Unix sockets")


@unix
@on_anyio
async def test_unix_echo(tmp_path):
    """Many clients of one path; a large stream with its end of stream."""

    async def client(number):
        async with await anyio.connect_unix(path) as stream:
            data = b"%d," % number * 1000
            await stream.send(data)
            assert await received(stream, len(data)) == data

    path = tmp_path / "socket"
    listener = await anyio.create_unix_listener(path)
    async with serving(listener, echo):
        async with anyio.create_task_group() as clients:
            for number in range(20):
                clients.start_soon(client, number)
    path.unlink()
    listener = await anyio.create_unix_listener(path, mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    async with serving(listener, summing):
        async with await anyio.connect_unix(path) as stream:
            for chunk in chunks(LARGE):
                await stream.send(chunk)
            await stream.send_eof()
            assert await stream.receive() == str(Checksum(payload(LARGE))).encode()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()


@unix
@on_anyio
async def test_unix_descriptors(tmp_path):
    """Open files go from one end to the other."""

    async def serve(stream):
        async with stream:
            message, fds = await stream.receive_fds(100, 2)
            for fd in fds:
                with open(fd) as file:
                    message += file.read().encode()
            await stream.send(message)

    names = [tmp_path / "one", tmp_path / "two"]
    for name in names:
        name.write_text(f" {name.name}")
    path = tmp_path / "socket"
    listener = await anyio.create_unix_listener(path)
    async with serving(listener, serve):
        with open(names[0]) as one, open(names[1]) as two:
            async with await anyio.connect_unix(path) as stream:
                await stream.send_fds(b"files:", [one, two])
                assert await stream.receive() == b"files: one two"


@unix
@on_anyio
async def test_unix_cancelled_receive(tmp_path):
    """It loses nothing, and leaves no watcher that would disturb the next one."""
    path = tmp_path / "socket"
    listener = await anyio.create_unix_listener(path)
    async with serving(listener, echo):
        async with await anyio.connect_unix(path) as stream:
            for _ in range(3):
                with anyio.move_on_after(0.01) as scope:
                    await stream.receive()
                assert scope.cancelled_caught
                await stream.send(b"after")
                assert await stream.receive() == b"after"


@unix
@on_anyio
async def test_unix_datagrams(tmp_path):
    """From a named socket to another and back, unconnected and connected."""
    here, there = tmp_path / "here", tmp_path / "there"
    async with (
        await anyio.create_unix_datagram_socket(local_path=there) as server,
        await anyio.create_connected_unix_datagram_socket(there, local_path=here) as client,
    ):
        for number in range(50):
            await client.send(b"%d" % number)
            data, sender = await server.receive()
            assert (data, sender) == (b"%d" % number, str(here))
            await server.sendto(data[::-1], sender)
            assert await client.receive() == data[::-1]


# ------------------------------------------------------------ UDP


@on_anyio
async def test_udp():
    """Between two sockets; sender addresses; small and large datagrams."""
    async with (
        await anyio.create_udp_socket(local_host=HOST) as server,
        await anyio.create_udp_socket(family=socket.AF_INET, local_host=HOST) as client,
    ):
        port = port_of(client)
        for data in (b"x", payload(1400), payload(60_000)):
            await client.sendto(data, HOST, port_of(server))
            got, sender = await server.receive()
            assert (got, sender) == (data, (HOST, port))
            await server.sendto(got, *sender)
            assert await client.receive() == (data, (HOST, port_of(server)))


@pytest.mark.stock_since("3.13", "an empty datagram is sent")
@on_anyio
async def test_empty_datagrams():
    """Without a word it tells that somebody is there."""
    async with (
        await anyio.create_udp_socket(local_host=HOST) as server,
        await anyio.create_udp_socket(local_host=HOST) as client,
    ):
        await client.sendto(b"", HOST, port_of(server))
        assert await server.receive() == (b"", (HOST, port_of(client)))


@on_anyio
async def test_connected_udp():
    """`send` and `receive` without addresses; datagrams of others do not come through."""
    async with (
        await anyio.create_udp_socket(local_host=HOST) as server,
        await anyio.create_connected_udp_socket(HOST, port_of(server)) as client,
        await anyio.create_udp_socket(local_host=HOST) as stranger,
    ):
        assert client.extra(anyio.abc.SocketAttribute.remote_port) == port_of(server)
        for number in range(50):
            await client.send(b"%d" % number)
            data, sender = await server.receive()
            assert (data, sender) == (b"%d" % number, (HOST, port_of(client)))
            await stranger.sendto(b"not for you", HOST, port_of(client))
            await server.sendto(b"answer", *sender)
            assert await client.receive() == b"answer"


@on_anyio
async def test_udp_closed_resources():
    """A pending receive ends when its socket is closed under it; later calls say the same."""

    async def receives():
        with pytest.raises(anyio.ClosedResourceError):
            await udp.receive()

    udp = await anyio.create_udp_socket(local_host=HOST)
    async with anyio.create_task_group() as group:
        group.start_soon(receives)
        await anyio.wait_all_tasks_blocked()
        await udp.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await udp.sendto(b"late", HOST, 9)


@pytest.mark.skipif(not LINUX, reason="other systems have their own way with refused datagrams")
@on_anyio
async def test_udp_port_unreachable():
    """The refusal of one datagram does not break an unconnected socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind((HOST, 0))
        port = nobody.getsockname()[1]
    async with (
        await anyio.create_udp_socket(local_host=HOST) as server,
        await anyio.create_udp_socket(local_host=HOST) as client,
    ):
        await client.sendto(b"lost", HOST, port)
        await client.sendto(b"hello", HOST, port_of(server))
        assert (await server.receive())[0] == b"hello"


@on_anyio
async def test_udp_iteration():
    """`async for` over what several senders sent."""

    async def sends(number):
        async with await anyio.create_connected_udp_socket(HOST, port_of(server)) as client:
            for part in range(10):
                await client.send(b"%d" % (number * 10 + part))
                # Loopback drops what the receiver has no room for; 10 are never too many.
                await anyio.lowlevel.checkpoint()

    got = []
    async with await anyio.create_udp_socket(local_host=HOST) as server:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(sends, number)
            async for data, _ in server:
                got.append(int(data))
                if len(got) == 50:
                    break
    assert sorted(got) == list(range(50))


# ------------------------------------------------------------ raw descriptors


@unix
@on_anyio
async def test_wait_readable_and_writable_on_numbers():
    """The descriptors of a pipe and of a socket, as numbers; a cancelled wait leaves no watcher."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with anyio.move_on_after(0.01) as scope:
            await anyio.wait_readable(reading)
        assert scope.cancelled_caught
        assert not asyncio.get_running_loop().remove_reader(reading)
        await anyio.wait_writable(writing)
        os.write(writing, b"x")
        await anyio.wait_readable(reading)
        assert os.read(reading, 1) == b"x"
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writing, bytes(65536))
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.wait_writable, writing)
            await anyio.wait_all_tasks_blocked()
            os.read(reading, 65536)
    finally:
        os.close(reading)
        os.close(writing)


@on_anyio
async def test_two_waiters_on_one_socket():
    """The second one is told that the resource is busy; a close wakes the first."""

    async def waits():
        with pytest.raises(anyio.ClosedResourceError):
            await anyio.wait_readable(left)
        ended.set()

    ended = anyio.Event()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        async with anyio.create_task_group() as group:
            group.start_soon(waits)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await anyio.wait_readable(left)
            anyio.notify_closing(left)
            await ended.wait()
