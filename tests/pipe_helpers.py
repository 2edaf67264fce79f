"""What the pipe tests share: transports over every kind of file, and the other end of each."""

import contextlib
import os
import socket

from helpers import RecordingProtocol
from tcp_helpers import end, turns

# pipe: os.pipe(), fifo: a file in the file system, pty: the slave side, socket: a Unix socket.
KINDS = ("pipe", "fifo", "socket", "pty")


def both_ends(kind, tmp_path):
    """(reading, writing) descriptors, blocking."""
    if kind == "pipe":
        return os.pipe()
    if kind == "socket":
        return tuple(sock.detach() for sock in socket.socketpair())
    if kind == "fifo":
        os.mkfifo(tmp_path / "fifo")
        reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(tmp_path / "fifo", os.O_WRONLY)
        os.set_blocking(reading, True)
        return reading, writing
    import tty  # not on Windows

    master, slave = os.openpty()
    tty.setraw(slave)
    return master, slave


@contextlib.asynccontextmanager
async def reading(loop, kind, tmp_path, factory=None):
    """(transport, protocol, end): a transport that reads, and a descriptor to write to."""
    mine, other = both_ends(kind, tmp_path)
    peer = open(other, "wb", 0)
    factory = factory or (lambda: RecordingProtocol(loop))
    transport, protocol = await loop.connect_read_pipe(factory, open(mine, "rb", 0))
    try:
        yield transport, protocol, peer
    finally:
        peer.close()
        transport.close()
        await turns()


@contextlib.asynccontextmanager
async def writing(loop, kind, tmp_path, factory=None):
    """(transport, protocol, end): a transport that writes, and a file to read from."""
    other, mine = both_ends(kind, tmp_path)
    peer = open(other, "rb", 0)
    factory = factory or (lambda: RecordingProtocol(loop))
    transport, protocol = await loop.connect_write_pipe(factory, open(mine, "wb", 0))
    try:
        yield transport, protocol, peer
    finally:
        peer.close()
        end(transport)
        await turns()


def read_all(file):
    """Everything until the end; a pty whose other side is gone ends with EIO."""
    parts = []
    with contextlib.suppress(OSError):
        while part := file.read(1 << 16):
            parts.append(part)
    return b"".join(parts)
