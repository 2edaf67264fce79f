"""What the soak test does over and over: one coroutine function for each action.

An action takes the world (the servers that run meanwhile) and a random generator of its own. It
returns when it is done, checks what it received, and cleans up after itself however it ends:
it may be cancelled at any await, and in a build with faults any call may raise OSError.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from certificates import client_context, server_context


class World:
    """The servers, and what actions share."""

    def __init__(self, loop, folder):
        self.loop = loop
        self.folder = Path(folder)
        self.client_tls = client_context()
        self.server_tls = server_context()
        self.servers = []
        self.endpoints = []

    async def start(self):
        start, where = asyncio.start_server, ("127.0.0.1", 0)
        self.tcp = await self._serve(lambda: start(echo, *where))
        self.tls = await self._serve(lambda: start(echo, *where, ssl=self.server_tls))
        self.starttls = await self._serve(lambda: start(self._echo_after_starttls, *where))
        self.sink = await self._serve(lambda: start(swallow, *where))
        self.unix = str(self.folder / "echo")
        await self._serve(lambda: asyncio.start_unix_server(echo, self.unix))
        endpoint = self.loop.create_datagram_endpoint
        self.udp, _ = await persistently(lambda: endpoint(DatagramEcho, local_addr=where))
        self.datagrams = str(self.folder / "datagrams")
        unix_udp, _ = await persistently(
            lambda: endpoint(DatagramEcho, local_addr=self.datagrams, family=socket.AF_UNIX)
        )
        self.endpoints = [self.udp, unix_udp]
        self.file = self.folder / "file"
        self.file.write_bytes(os.urandom(1 << 20))

    async def _serve(self, start):
        server = await persistently(start)
        self.servers.append(server)
        return server.sockets[0].getsockname()

    async def _echo_after_starttls(self, reader, writer):
        with closing(writer), contextlib.suppress(OSError, EOFError):
            await reader.readline()
            writer.write(b"go\n")
            await writer.drain()
            await writer.start_tls(self.server_tls)
            await copy(reader, writer)

    async def stop(self):
        for server in self.servers:
            server.close()
            await server.wait_closed()
        for endpoint in self.endpoints:
            endpoint.close()


async def persistently(function):
    """What function() gives, where a fault may need a second try."""
    for _ in range(10):
        with contextlib.suppress(OSError):
            return await function()
    return await function()


@contextlib.contextmanager
def closing(writer):
    """The connection is closed in the end, and at once if something went wrong."""
    try:
        yield
    except BaseException:
        writer.transport.abort()
        raise
    finally:
        writer.close()


async def copy(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def echo(reader, writer):
    with closing(writer), contextlib.suppress(OSError, EOFError):
        await copy(reader, writer)


async def swallow(reader, writer):
    """Tells at the end how much it got."""
    with closing(writer), contextlib.suppress(OSError, EOFError):
        size = 0
        while data := await reader.read(1 << 16):
            size += len(data)
        writer.write(b"%d" % size)


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if address:
            self.transport.sendto(data, address)


class DatagramClient(asyncio.DatagramProtocol):
    def __init__(self, loop):
        self.answers = asyncio.Queue()
        self.lost = loop.create_future()

    def datagram_received(self, data, address):
        self.answers.put_nowait(data)

    def error_received(self, exc):
        self.answers.put_nowait(exc)

    def connection_lost(self, exc):
        self.lost.set_result(None)


# ------------------------------------------------------------------------------- streams


async def exchange(reader, writer, rng, rounds=3, largest=200_000):
    """Echo random bytes, some in one piece and some in several, while reading."""
    with closing(writer):
        for _ in range(rng.randint(1, rounds)):
            data = rng.randbytes(rng.choice((1, 100, 5000, largest)))
            sending = asyncio.create_task(send(writer, data, rng.randint(1, 4)))
            try:
                assert await reader.readexactly(len(data)) == data
            finally:
                sending.cancel()
                await asyncio.wait([sending])
                if not sending.cancelled():
                    sending.exception()  # the reader has told
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def whole(received, expected):
    """A fault may cut the end off, and nothing else."""
    if received != expected and expected.startswith(received):
        raise EOFError(f"{len(received)} of {len(expected)} bytes")
    assert received == expected


async def send(writer, data, pieces):
    step = len(data) // pieces + 1
    for start in range(0, len(data), step):
        writer.write(bytearray(data[start : start + step]))
        await writer.drain()


async def tcp(world, rng):
    await exchange(*await asyncio.open_connection(*world.tcp), rng)


async def unix(world, rng):
    await exchange(*await asyncio.open_unix_connection(world.unix), rng)


async def tls(world, rng):
    reader, writer = await asyncio.open_connection(
        *world.tls, ssl=world.client_tls, server_hostname="localhost"
    )
    await exchange(reader, writer, rng)


async def starttls(world, rng):
    reader, writer = await asyncio.open_connection(*world.starttls)
    with closing(writer):
        writer.write(b"please\n")
        await reader.readline()
        await writer.start_tls(world.client_tls, server_hostname="localhost")
        await exchange(reader, writer, rng)


async def hang_up(world, rng):
    """Connect, send, and be gone."""
    kind = rng.randrange(3)
    where = (world.tcp, world.tls, world.sink)[kind]
    extra = {"ssl": world.client_tls, "server_hostname": "localhost"} if kind == 1 else {}
    _, writer = await asyncio.open_connection(*where, **extra)
    try:
        writer.write(rng.randbytes(rng.choice((10, 1_000_000))))
        if rng.random() < 0.5:
            await asyncio.sleep(0)
    finally:
        writer.transport.abort()


async def sendfile(world, rng):
    reader, writer = await asyncio.open_connection(*world.sink)
    with closing(writer), world.file.open("rb") as file:
        offset, count = rng.randrange(1000), rng.randint(1, 900_000)
        sent = await world.loop.sendfile(writer.transport, file, offset, count)
        writer.write_eof()
        assert sent == count
        whole(await reader.read(), b"%d" % count)


# ---------------------------------------------------------------------------- datagrams


async def ask(world, rng, **where):
    transport, protocol = await world.loop.create_datagram_endpoint(
        lambda: DatagramClient(world.loop), **where
    )
    try:
        for _ in range(rng.randint(1, 5)):
            data = rng.randbytes(rng.choice((0, 1, 1000, 9000)))
            for _ in range(20):  # datagrams may be lost
                transport.sendto(data)
                with contextlib.suppress(TimeoutError):
                    answer = await asyncio.wait_for(protocol.answers.get(), 0.2)
                    if answer == data:
                        break
    finally:
        transport.close()
        await asyncio.shield(protocol.lost)


async def udp(world, rng):
    await ask(world, rng, remote_addr=world.udp.get_extra_info("sockname"))


async def unix_datagrams(world, rng):
    own = tempfile.mktemp(dir=world.folder)
    try:
        await ask(world, rng, local_addr=own, remote_addr=world.datagrams, family=socket.AF_UNIX)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(own)


# ------------------------------------------------------------------------ pipes, children


async def pipes(world, rng):
    read_fd, write_fd = os.pipe()
    # What becomes a transport's is closed with it.
    ends = [os.fdopen(read_fd, "rb", 0), os.fdopen(write_fd, "wb", 0)]
    reader = asyncio.StreamReader()
    try:
        source, _ = await world.loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), ends[0]
        )
        ends[0] = source
        ends[1], _ = await world.loop.connect_write_pipe(asyncio.BaseProtocol, ends[1])
        data = rng.randbytes(rng.choice((1, 100_000)))
        ends[1].write(data)
        ends[1].close()
        whole(await reader.read(), data)
    finally:
        for end in ends:
            end.close()


async def child(world, rng):
    """A child that gives back what it is sent, or is killed while it waits."""
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    program = ("cat",) if rng.random() < 0.8 else (sys.executable, "-S", "-c", code)
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        if rng.random() < 0.3:
            process.send_signal(rng.choice((signal.SIGTERM, signal.SIGKILL)))
            await process.communicate()
            assert process.returncode < 0
            return
        data = rng.randbytes(rng.choice((0, 10, 100_000)))
        output, _ = await process.communicate(data)
        whole(output, data)
        assert process.returncode == 0
    finally:
        process._transport.close()
        await asyncio.shield(process.wait())


async def shell(world, rng):
    status = rng.randrange(200)
    process = await asyncio.create_subprocess_shell(f"exit {status}")
    try:
        assert await process.wait() == status
    finally:
        await asyncio.shield(process.wait())


# -------------------------------------------------------------------------- the rest of it


async def raw_sockets(world, rng):
    with socket.socket() as sock:
        sock.setblocking(False)
        await world.loop.sock_connect(sock, world.tcp)
        data = rng.randbytes(rng.choice((1, 50_000)))
        sending = asyncio.create_task(world.loop.sock_sendall(sock, data))
        try:
            received = b""
            while len(received) < len(data):
                piece = await world.loop.sock_recv(sock, 1 << 16)
                if not piece:
                    raise ConnectionResetError
                received += piece
            assert received == data
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()


async def threads(world, rng):
    number = rng.random()
    assert await asyncio.to_thread(lambda: number) == number


async def names(world, rng):
    infos = await world.loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert {info[4][1] for info in infos} == {80}


async def timers(world, rng):
    start = world.loop.time()
    delay = rng.random() * 0.01
    await asyncio.sleep(delay)
    assert world.loop.time() - start >= delay


# How often each comes, in relation to the others.
WEIGHTS = {
    tcp: 6,
    unix: 4,
    tls: 6,
    starttls: 3,
    hang_up: 4,
    sendfile: 2,
    udp: 4,
    unix_datagrams: 2,
    pipes: 3,
    child: 3,
    shell: 1,
    raw_sockets: 3,
    threads: 2,
    names: 1,
    timers: 2,
}
