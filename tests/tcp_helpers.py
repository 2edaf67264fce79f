"""What the TCP tests share: transports made in every way there is, servers, awkward addresses.

`run` is bounded, so that what hangs fails its own test and not the session.
"""

import array
import asyncio
import contextlib
import errno
import functools
import os
import socket
import struct
import weakref

from helpers import PATIENCE, RecordingProtocol, listening_socket, tcp_pair

# The ways to get a transport: from a server, by connecting, over a socket of the application's.
WAYS = ("accepted", "connected", "given")

HOST = "127.0.0.1"

# The longest that one run of a loop may take.
BOUND = PATIENCE / 2

# More bytes than the kernel's buffers of a loopback connection take at once.
MUCH = 1 << 24


@functools.lru_cache(maxsize=8)
def pattern(size):
    """Bytes of which each part looks different: what is lost or doubled or moved shows."""
    return array.array("Q", range(size // 8 + 1)).tobytes()[:size]


def run(loop, awaitable):
    """The result of the awaitable on this loop; TimeoutError if it takes far too long."""

    async def bounded():
        async with asyncio.timeout(BOUND):
            return await awaitable

    return loop.run_until_complete(bounded())


def run_forever(loop):
    """loop.run_forever() for a test that expects it to be ended by an exception."""
    handle = loop.call_later(BOUND, loop.stop)
    try:
        loop.run_forever()
    finally:
        handle.cancel()


async def turns(count=3):
    """Let the loop take that many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition):
    """Take turns until the condition holds; `run` bounds it."""
    while not condition():
        await asyncio.sleep(0)


async def in_executor(function, *args):
    """Call what blocks in a thread while the loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def read_all(sock):
    """What a blocking socket gets until the end of the stream."""
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def address(server):
    """Where the first socket of a server listens, without IPv6's extras."""
    return server.sockets[0].getsockname()[:2]


def end(transport):
    """Abort a transport that may have ended already, which asyncio before gh-156512 can't take."""
    if getattr(transport, "_loop", transport) is not None:
        transport.abort()


# ------------------------------------------------------------ servers and transports


@contextlib.asynccontextmanager
async def serving(loop, factory=None, host=HOST, port=0, **kwargs):
    """(server, protocols it made so far). At the end both are gone, whatever happened.

    Where the application brings sock=, host and port are None.
    """
    protocols = []

    def make():
        protocol = (factory or (lambda: RecordingProtocol(loop)))()
        protocols.append(protocol)
        return protocol

    if "sock" in kwargs:
        host = port = None
    server = await loop.create_server(make, host, port, **kwargs)
    try:
        yield server, protocols
    finally:
        server.close()
        await turns()  # asyncio tells of a connection in a turn after the one it was accepted in
        for protocol in protocols:
            transport = getattr(protocol, "transport", None)
            if transport is not None:
                end(transport)
        await turns()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def with_client(loop, factory=None, **kwargs):
    """(server, its one connection's protocol, the raw socket at the other end)."""
    async with serving(loop, factory, **kwargs) as (server, protocols):
        with socket.create_connection(address(server), PATIENCE) as peer:
            await until(lambda: protocols)
            await protocols[0].connected
            yield server, protocols[0], peer


@contextlib.asynccontextmanager
async def wired(loop, factory=None, way="accepted"):
    """(transport, protocol, peer): a transport and the raw, blocking socket at its other end.

    The factory makes RecordingProtocols, or what has their `connected`.
    """
    factory = factory or (lambda: RecordingProtocol(loop))
    async with contextlib.AsyncExitStack() as stack:
        if way == "accepted":
            server, protocols = await stack.enter_async_context(serving(loop, factory))
            peer = stack.enter_context(socket.create_connection(address(server), PATIENCE))
            await until(lambda: protocols)
            protocol = protocols[0]
            transport = await protocol.connected
        elif way == "connected":
            with listening_socket() as listener:
                transport, protocol = await loop.create_connection(factory, *listener.getsockname())
                peer = stack.enter_context(listener.accept()[0])
        else:
            with tcp_pair() as (client, server_side):
                peer = stack.enter_context(client.dup())
                mine = server_side.dup()
            transport, protocol = await loop.connect_accepted_socket(factory, mine)
        peer.settimeout(PATIENCE)
        try:
            yield transport, protocol, peer
        finally:
            end(transport)
            await turns()


@contextlib.asynccontextmanager
async def linked(loop, client_factory=None, server_factory=None):
    """(client protocol, server protocol): both ends of a connection on the loop."""
    async with serving(loop, server_factory) as (server, protocols):
        transport, protocol = await loop.create_connection(
            client_factory or (lambda: RecordingProtocol(loop)), *address(server)
        )
        try:
            await until(lambda: protocols)
            await protocols[0].connected
            yield protocol, protocols[0]
        finally:
            end(transport)
            await turns()


class Sink(asyncio.Protocol):
    """Keeps nothing."""


async def left_alone(loop, way, peers):
    """A weak reference to a transport that nobody but the loop has; its peer goes into `peers`."""
    if way == "accepted":
        transports = []

        class Telling(Sink):
            def connection_made(self, transport):
                transports.append(transport)

        server = await loop.create_server(Telling, HOST, 0)
        peers.append(socket.create_connection(address(server), PATIENCE))
        await until(lambda: transports)
        server.close()
        transport = transports.pop()
    elif way == "connected":
        with listening_socket() as listener:
            transport, _ = await loop.create_connection(Sink, *listener.getsockname())
            peers.append(listener.accept()[0])
    else:
        with tcp_pair() as (client, server_side):
            peers.append(client.dup())
            transport, _ = await loop.connect_accepted_socket(Sink, server_side.dup())
    peers[-1].settimeout(PATIENCE)
    await turns()
    return weakref.ref(transport)


# ------------------------------------------------------------ awkward peers and addresses


def reset(sock):
    """Close a TCP socket so that the other end gets ECONNRESET."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextlib.contextmanager
def hanging_address():
    """An address that neither accepts nor refuses: its queue of connections is full (Linux)."""
    with listening_socket(backlog=0) as listener:
        where = listener.getsockname()
        with socket.create_connection(where, PATIENCE):
            yield where


@contextlib.contextmanager
def unused_addresses(family, count):
    """That many addresses, all different, that refuse connections as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for _ in range(count):
            holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            holder.bind(("::1" if family == socket.AF_INET6 else HOST, 0))
            addresses.append(holder.getsockname())
        yield addresses


def addrinfo(where):
    """What getaddrinfo has for a socket address."""
    family = socket.AF_INET6 if len(where) == 4 else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where


def resolve_to(loop, names):
    """Give the loop a resolver: {host: socket addresses}. Applications do that too."""

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        return [addrinfo(where) for where in names[host]]

    loop.getaddrinfo = getaddrinfo


class Refilled:
    """A transport with a queue that the next look at the socket empties.

    What is written just then must not be taken for sent: the news that the queue is empty may be
    older than that. How many turns it takes until the loop looks is not fixed, so tests try some.
    """

    def __init__(self, transport, peer):
        self.expected = b""
        self.received = []
        self.ended = False
        self._transport = transport
        self._peer = peer
        peer.setblocking(False)

    def write(self, data):
        self.expected += data  # first, for the write may lead to another one
        self._transport.write(data)

    def fill(self):
        while not self._transport.get_write_buffer_size():
            self.write(pattern(100_000))
        self.read()

    def read(self):
        """Whatever is there. True once the stream has ended."""
        try:
            while part := self._peer.recv(1 << 20):
                self.received.append(part)
        except BlockingIOError:
            return False
        self.ended = True
        return True

    def check(self):
        received = b"".join(self.received)
        assert len(received) == len(self.expected)
        assert received == self.expected


# ------------------------------------------------------------ descriptors


class Canaries:
    """Descriptors that take the numbers that were just freed.

    Whoever closes such a number once more, or still writes to it, is caught by `check`.
    """

    def __init__(self, count=8):
        self._pairs = [socket.socketpair() for _ in range(count)]
        self._identities = {}
        for sock in self._sockets():
            sock.setblocking(False)
            self._identities[sock.fileno()] = os.fstat(sock.fileno()).st_ino

    def _sockets(self):
        return [sock for pair in self._pairs for sock in pair]

    @property
    def numbers(self):
        return set(self._identities)

    def check(self):
        for number, inode in self._identities.items():
            try:
                assert os.fstat(number).st_ino == inode, f"{number} is another file now"
            except OSError as exc:
                assert exc.errno == errno.EBADF
                raise AssertionError(f"{number} was closed by somebody else") from None
        for sock in self._sockets():
            try:
                data = sock.recv(1 << 16)
            except BlockingIOError:
                continue
            raise AssertionError(f"somebody wrote {data!r} to {sock}, or shut it down")

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for sock in self._sockets():
            with contextlib.suppress(OSError):
                sock.close()
