"""What the datagram tests share: a protocol that records, endpoints that are closed again."""

import asyncio
import contextlib
import socket

from helpers import LINUX
from tcp_helpers import HOST, turns

ANY = (HOST, 0)


class Recorder(asyncio.DatagramProtocol):
    """A protocol that writes down all that happens to it.

    `datagrams` holds (data, address), `errors` exceptions, `events` the names of all calls.
    """

    def __init__(self, loop):
        self.transport = None
        self.events = []
        self.datagrams = []
        self.errors = []
        self.lost = loop.create_future()
        self._loop = loop
        self._waiters = []

    @property
    def data(self):
        return [data for data, _ in self.datagrams]

    def connection_made(self, transport):
        self.transport = transport
        self._note("connection_made")

    def datagram_received(self, data, addr):
        self.datagrams.append((data, addr))
        self._note("datagram_received")

    def error_received(self, exc):
        self.errors.append(exc)
        self._note("error_received")

    def pause_writing(self):
        self._note("pause_writing")

    def resume_writing(self):
        self._note("resume_writing")

    def connection_lost(self, exc):
        self._note("connection_lost")
        self.lost.set_result(exc)

    def _note(self, event):
        self.events.append(event)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def until(self, condition):
        """Wait until the condition holds, which is looked at after each call of this protocol."""
        while not condition():
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    async def got(self, count):
        """The first `count` datagrams' bytes, as soon as there are so many."""
        await self.until(lambda: len(self.datagrams) >= count)
        return self.data[:count]

    async def failed(self, count=1):
        """The first errors, as soon as there are so many."""
        await self.until(lambda: len(self.errors) >= count)
        return self.errors[:count]


class Echo(Recorder):
    """Sends everything back."""

    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        self.transport.sendto(data, addr)


@contextlib.asynccontextmanager
async def endpoint(loop, factory=None, **kwargs):
    """The protocol of an endpoint: a Recorder, or what the factory makes given the loop."""
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: (factory or Recorder)(loop), **kwargs
    )
    try:
        yield protocol
    finally:
        # asyncio's transports know neither loop nor socket once they are closed.
        if not protocol.lost.done():
            transport.abort()
            await protocol.lost
        await turns()


@contextlib.asynccontextmanager
async def pair(loop, server=None, client=None, host=HOST, family=socket.AF_INET):
    """(server, client): an endpoint on a port, and one that is connected to it."""
    async with endpoint(loop, server, local_addr=(host, 0), family=family) as one:
        where = name(one)[:2]
        async with endpoint(loop, client, remote_addr=where, family=family) as other:
            yield one, other


def name(protocol):
    """Where an endpoint is bound."""
    return protocol.transport.get_extra_info("sockname")


def udp_socket(family=socket.AF_INET, bind=True):
    """A non-blocking socket of the application's."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if bind:
        sock.bind(("::1" if family == socket.AF_INET6 else HOST, 0))
    return sock


def has_abstract_names():
    return LINUX
