"""The servers that are measured: one program for every Python loop.

    python benchmarks/servers.py LOOP KIND [--lifetime SECONDS]   prints "port N", then serves
    python benchmarks/servers.py LOOP --probe                     can this loop be made here?

A kind is an async function that starts a server on loopback and returns it. It may use public
asyncio only, and nothing here may ask which loop it runs on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from typing import cast

from bench.loops import LOOPS, describe, factory

BACKLOG = 1024
STREAM_LIMIT = 256 * 1024  # of StreamReader: 100 KiB lines have to fit


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


async def protocol() -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=BACKLOG)


async def buffered() -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(
        BufferedEcho, "127.0.0.1", 0, backlog=BACKLOG
    )


async def streams() -> asyncio.Server:
    return await asyncio.start_server(
        echo_read, "127.0.0.1", 0, backlog=BACKLOG, limit=STREAM_LIMIT
    )


async def streams_readline() -> asyncio.Server:
    return await asyncio.start_server(
        echo_readline, "127.0.0.1", 0, backlog=BACKLOG, limit=STREAM_LIMIT
    )


KINDS: dict[str, Callable[[], Awaitable[asyncio.Server]]] = {
    "protocol": protocol,
    "buffered": buffered,
    "streams": streams,
    "streams-readline": streams_readline,
}


async def serve(kind: str) -> None:
    server = await KINDS[kind]()
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().create_future()  # for ever, and without a timer in the loop


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("kind", nargs="?", choices=KINDS, default="protocol")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--lifetime", type=int, default=0)
    options = parser.parse_args()
    if options.probe:
        factory(options.loop)().close()
        print(json.dumps({"description": describe(options.loop)}))
        return
    if options.lifetime and hasattr(signal, "alarm"):
        # Never outlives a benchmark that was killed; costs the loop nothing, unlike a timer in it.
        signal.alarm(options.lifetime)
    with asyncio.Runner(loop_factory=factory(options.loop)) as runner:
        runner.run(serve(options.kind))


if __name__ == "__main__":
    main()
