"""Servers that send back what they get, on loopback, through the layers of asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import cast

from programs import Aio, Kind, Served

BACKLOG = 1024
STREAM_LIMIT = 256 * 1024  # of StreamReader: 100 KiB lines have to fit
EXACTLY = 1024  # bytes per message where the server has to know it
SOCKET_READ = 64 * 1024
BURNING, BURN = 10, 20e-6  # callbacks that are always ready, seconds that each of them takes


class Echo(asyncio.Protocol):
    # A cast and no isinstance(): the transports of some loops are not asyncio's.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.WriteTransport, transport).write

    def data_received(self, data: bytes) -> None:
        self.write(data)


class EchoOnce(Echo):
    """One message per connection, which the server closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.close = transport.close

    def data_received(self, data: bytes) -> None:
        self.write(data)
        if data.endswith(b"\n"):
            self.close()


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.sendto = cast(asyncio.DatagramTransport, transport).sendto

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.sendto(data, addr)


class BufferedEcho(asyncio.BufferedProtocol):
    """One buffer per connection, echoed as a slice without copying.

    uvloop queues such a slice as it is, so this is only right for messages that fit into the
    buffer: the client sends the next one after the whole echo.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.WriteTransport, transport).write
        self.buffer = memoryview(bytearray(64 * 1024))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.write(self.buffer[:nbytes])


async def echo_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(STREAM_LIMIT):
        writer.write(data)
        await writer.drain()
    writer.close()


async def echo_readline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.readline():
        writer.write(data)
        await writer.drain()
    writer.close()


async def echo_readexactly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            writer.write(await reader.readexactly(EXACTLY))
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


def tcp(server: asyncio.Server) -> Served:
    return "port", server.sockets[0].getsockname()[1], server


def protocol(factory: Callable[[], asyncio.BaseProtocol]) -> Kind:
    async def kind(aio: Aio) -> Served:
        loop = aio.get_running_loop()
        return tcp(await loop.create_server(factory, "127.0.0.1", 0, backlog=BACKLOG))

    return kind


def streams(handler: Callable[..., Awaitable[None]]) -> Kind:
    async def kind(aio: Aio) -> Served:
        return tcp(
            await aio.start_server(handler, "127.0.0.1", 0, backlog=BACKLOG, limit=STREAM_LIMIT)
        )

    return kind


async def sockets(aio: Aio) -> Served:
    """Coroutines of the loop on plain sockets."""
    loop = aio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)
    tasks = set()

    async def serve(connection: socket.socket) -> None:
        with connection:
            while data := await loop.sock_recv(connection, SOCKET_READ):
                await loop.sock_sendall(connection, data)

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tasks.add(aio.create_task(serve(connection)))

    return "port", listener.getsockname()[1], aio.create_task(accept())


async def datagrams(aio: Aio) -> Served:
    loop = aio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(DatagramEcho, ("127.0.0.1", 0))
    return "port", transport.get_extra_info("sockname")[1], transport


async def unix(aio: Aio) -> Served:
    path = os.path.join(tempfile.mkdtemp(), "echo")  # the harness empties $TMPDIR
    loop = aio.get_running_loop()
    return "path", path, await loop.create_unix_server(Echo, path, backlog=BACKLOG)


async def busy(aio: Aio) -> Served:
    """A Protocol beside callbacks that always keep the ready queue full."""
    loop = aio.get_running_loop()

    def burn() -> None:
        end = time.perf_counter() + BURN
        while time.perf_counter() < end:
            pass
        loop.call_soon(burn)

    for _ in range(BURNING):
        loop.call_soon(burn)
    return await protocol(Echo)(aio)


KINDS: dict[str, Kind] = {
    "protocol": protocol(Echo),
    "buffered": protocol(BufferedEcho),
    "streams": streams(echo_read),
    "streams-readline": streams(echo_readline),
    "streams-readexactly": streams(echo_readexactly),
    "once": protocol(EchoOnce),
    "sockets": sockets,
    "datagrams": datagrams,
    "unix": unix,
    "busy": busy,
}
