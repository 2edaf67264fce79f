"""Servers over TLS, with the certificates of the tests."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import cast

from programs import Aio, Kind, Served
from programs.echo import BACKLOG, STREAM_LIMIT, Echo, EchoOnce, echo_read, tcp

CERTS = Path(__file__).resolve().parent.parent.parent / "tests" / "certs"
CHUNK = bytes(range(256)) * 256  # client.py has the same
CHUNKS = 1600  # of one download: 100 MiB


class Download(asyncio.Protocol):
    """Sends everything after the first word of the client, as fast as the transport wants it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self.left = CHUNKS
        self.paused = False
        self.asked = False

    def data_received(self, data: bytes) -> None:
        if not self.asked:
            self.asked = True
            self.send()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.send()

    def send(self) -> None:
        while self.left and not self.paused:
            self.left -= 1
            self.transport.write(CHUNK)
            if not self.left:
                self.transport.close()


def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(CERTS / "server.pem")
    return made


def protocol(factory: type[asyncio.Protocol]) -> Kind:
    async def kind(aio: Aio) -> Served:
        loop = aio.get_running_loop()
        return tcp(
            await loop.create_server(factory, "127.0.0.1", 0, backlog=BACKLOG, ssl=context())
        )

    return kind


async def streams(aio: Aio) -> Served:
    return tcp(
        await aio.start_server(
            echo_read, "127.0.0.1", 0, backlog=BACKLOG, limit=STREAM_LIMIT, ssl=context()
        )
    )


KINDS: dict[str, Kind] = {
    "tls": protocol(Echo),
    "tls-streams": streams,
    "tls-once": protocol(EchoOnce),
    "tls-download": protocol(Download),
}
