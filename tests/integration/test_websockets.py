"""The `websockets` library, server and client on one loop, on veloop and on asyncio."""

import asyncio
import contextlib
import ssl

import pytest
from payload import MEGABYTE, payload
from running import on_loop

from certificates import client_context, server_context

websockets = pytest.importorskip(
    "websockets", reason="websockets is not installed (pip install '.[test]')"
)
from websockets.asyncio.client import connect, unix_connect  # noqa: E402
from websockets.asyncio.server import broadcast, serve, unix_serve  # noqa: E402
from websockets.exceptions import (  # noqa: E402
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
)

# No message is refused for its size.
UNBOUNDED = {"max_size": None}


async def echo(connection):
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def served(handler, *, secure=False, **options):
    """The server, with its URI as an attribute."""
    context = server_context() if secure else None
    async with serve(handler, "127.0.0.1", 0, ssl=context, **UNBOUNDED, **options) as server:
        port = server.sockets[0].getsockname()[1]
        server.uri = f"ws{'s' if secure else ''}://127.0.0.1:{port}/"
        yield server


def client(server, **options):
    secure = server.uri.startswith("wss")
    return connect(server.uri, ssl=client_context() if secure else None, **UNBOUNDED, **options)


SECURE = pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])


@SECURE
@on_loop
async def test_echo(loop, secure):
    """Texts and bytes of the sizes at which the frame's head changes, and 1 MB."""
    async with served(echo, secure=secure) as server, client(server) as ws:
        await ws.send("grüße")
        assert await ws.recv() == "grüße"
        for size in (0, 1, 125, 126, 65_535, 65_536, MEGABYTE):
            await ws.send(payload(size))
            assert await ws.recv() == payload(size)
        assert await ws.ping() is not None
        await ws.close()
        assert (ws.close_code, ws.close_reason) == (1000, "")


@SECURE
@on_loop
async def test_large_messages_in_both_directions_at_once(loop, secure):
    """Each side sends 20 MB while the other does: neither waits for the other for ever."""
    message = payload(MEGABYTE)

    async def send(connection):
        for _ in range(20):
            await connection.send(message)

    async def receive(connection):
        for _ in range(20):
            assert await connection.recv() == message

    async def both(connection):
        await asyncio.gather(send(connection), receive(connection))

    plain = {"compression": None}
    async with served(both, secure=secure, **plain) as server, client(server, **plain) as ws:
        await both(ws)


@on_loop
async def test_compression(loop):
    """permessage-deflate is agreed on, and what arrives is what was sent."""
    text = "the same again, " * 10_000
    async with served(echo) as server, client(server) as ws:
        assert ws.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        for _ in range(10):
            await ws.send(text)
            assert await ws.recv() == text


@on_loop
async def test_fragmented_message(loop):
    """From an async generator on one side, to an async iterator on the other."""

    async def parts():
        for number in range(50):
            yield f"{number},"
            await asyncio.sleep(0)

    async def joined(connection):
        await connection.send("".join([part async for part in connection.recv_streaming()]))

    async with served(joined) as server, client(server) as ws:
        await ws.send(parts())
        assert await ws.recv() == "".join(f"{number}," for number in range(50))


@pytest.mark.slow
@SECURE
@on_loop
async def test_many_clients(loop, secure):
    """100 at once: each gets its own messages, in order; then all get what is broadcast."""

    async def talk(number):
        async with client(server) as ws:
            for part in range(10):
                await ws.send(f"{number} {part}")
                assert await ws.recv() == f"{number} {part}"
            await everybody.wait()
            assert await ws.recv() == "to all"

    async def speak():
        await everybody.wait()
        broadcast(server.connections, "to all")

    everybody = asyncio.Barrier(101)
    async with served(echo, secure=secure) as server:
        await asyncio.gather(speak(), *map(talk, range(100)))


@SECURE
@on_loop
async def test_the_server_closes_while_clients_are_connected(loop, secure):
    """Each sees 1001, those who send as well as those who wait; then nobody listens any more."""

    async def ends(ws, sends):
        try:
            async with ws:
                while True:
                    if sends:
                        await ws.send("x" * 1000)
                    await ws.recv()
        except ConnectionClosed as exc:
            return exc.rcvd.code

    async with served(echo, secure=secure) as server:
        clients = [await client(server) for _ in range(10)]
        tasks = [asyncio.create_task(ends(ws, i % 2)) for i, ws in enumerate(clients)]
        while len(server.connections) < 10:
            await asyncio.sleep(0)
        server.close()
        assert await asyncio.gather(*tasks) == [1001] * 10
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await client(server)


@on_loop
async def test_a_handler_that_raises(loop, caplog):
    """Code 1011 for its client, a line in the log, and the next client is served."""

    async def fails(connection):
        if connection.request.path == "/fail":
            raise LookupError("told to fail")
        await echo(connection)

    async with served(fails) as server:
        async with connect(server.uri + "fail") as ws:
            with pytest.raises(ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.rcvd.code == 1011
        async with client(server) as ws:
            await ws.send("next")
            assert await ws.recv() == "next"
    assert "connection handler failed" in caplog.text


@on_loop
async def test_close_codes(loop):
    """Code and reason of either side reach the other."""
    seen = loop.create_future()

    async def notes(connection):
        try:
            await connection.recv()
        except ConnectionClosed as exc:
            seen.set_result((exc.rcvd.code, exc.rcvd.reason))

    async def leaves(connection):
        await connection.close(4000, "bye")

    async with served(notes) as server, client(server) as ws:
        await ws.close(4001, "enough")
    assert await seen == (4001, "enough")
    async with served(leaves) as server, client(server) as ws:
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "bye")


@SECURE
@on_loop
async def test_a_peer_that_vanishes(loop, secure):
    """The transport is torn off without a closing handshake: 1006, at once."""
    gone = loop.create_future()

    async def waits(connection):
        try:
            await connection.recv()
        except ConnectionClosed as exc:
            gone.set_result((type(exc), connection.close_code))

    async with served(waits, secure=secure) as server, client(server) as ws:
        ws.transport.abort()
        assert await gone == (ConnectionClosedError, 1006)


@on_loop
async def test_keepalive(loop):
    """A client that does not answer pings is given up. It is a plain socket: it never answers."""
    ended = loop.create_future()

    async def waits(connection):
        try:
            await connection.recv()
        except ConnectionClosed as exc:
            ended.set_result(exc.sent.code)

    async with served(waits, ping_interval=0.02, ping_timeout=0.02, close_timeout=0.02) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        lines = ["GET / HTTP/1.1", "Host: test", "Upgrade: websocket", "Connection: Upgrade", key]
        writer.write("\r\n".join([*lines, "Sec-WebSocket-Version: 13", "", ""]).encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await ended == 1011
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@on_loop
async def test_a_slow_consumer_holds_up_the_sender(loop):
    """`send` waits once the buffers are full; and all is there when the consumer goes on."""
    message = payload(MEGABYTE)
    sent = 0

    async def sends(connection):
        nonlocal sent
        for _ in range(64):
            await connection.send(message)
            sent += 1

    plain = {"compression": None, "ping_interval": None}
    async with (
        served(echo) as other,
        client(other) as turns,
        served(sends, **plain) as server,
        client(server, **plain) as ws,
    ):
        assert await ws.recv() == message
        before, same = 0, 0
        while same < 50:
            # A round trip through the kernel and this loop, in which the sender could go on.
            await turns.send("turn")
            await turns.recv()
            same = same + 1 if sent == before else 0
            before = sent
        assert 0 < sent < 63
        for _ in range(63):
            assert await ws.recv() == message


@on_loop
async def test_a_cancelled_receive(loop):
    """No message is lost by it."""
    async with served(echo) as server, client(server) as ws:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.01)
        await ws.send("after")
        assert await ws.recv() == "after"


@on_loop
async def test_a_certificate_nobody_trusts(loop):
    async with served(echo, secure=True) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(server.uri)


@on_loop
async def test_unix_socket(loop, tmp_path):
    path = str(tmp_path / "socket")
    async with unix_serve(echo, path, **UNBOUNDED), unix_connect(path, **UNBOUNDED) as ws:
        await ws.send(payload(MEGABYTE - 1))
        assert await ws.recv() == payload(MEGABYTE - 1)
    with pytest.raises(ConnectionClosedOK):
        await ws.recv()
