"""Servers that send back what they get, on loopback, through the layers of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from programs import Aio, Kind, Served

BACKLOG = 1024
STREAM_LIMIT = 256 * 1024  # of StreamReader: 100 KiB lines have to fit
EXACTLY = 1024  # bytes per message where the server has to know it


class Echo(asyncio.Protocol):
    # A cast and no isinstance(): the transports of some loops are not asyncio's.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.WriteTransport, transport).write

    def data_received(self, data: bytes) -> None:
        self.write(data)


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


async def protocol(aio: Aio) -> Served:
    loop = aio.get_running_loop()
    return tcp(await loop.create_server(Echo, "127.0.0.1", 0, backlog=BACKLOG))


async def buffered(aio: Aio) -> Served:
    loop = aio.get_running_loop()
    return tcp(await loop.create_server(BufferedEcho, "127.0.0.1", 0, backlog=BACKLOG))


def streams(handler: Callable[..., Awaitable[None]]) -> Kind:
    async def kind(aio: Aio) -> Served:
        return tcp(
            await aio.start_server(handler, "127.0.0.1", 0, backlog=BACKLOG, limit=STREAM_LIMIT)
        )

    return kind


KINDS: dict[str, Kind] = {
    "protocol": protocol,
    "buffered": buffered,
    "streams": streams(echo_read),
    "streams-readline": streams(echo_readline),
    "streams-readexactly": streams(echo_readexactly),
}
