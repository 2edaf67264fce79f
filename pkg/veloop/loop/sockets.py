"""The sock_ methods: the system call first, and a wait only where it would block.

The functions are the methods of EventLoop themselves (`loop.py` names them): where nothing blocks,
each frame counts. A wait only learns that the socket is ready; the call is then made by the task.
So cancelling it loses nothing that was received, and leaves no watch behind.

As with asyncio there is one waiter for each direction of a socket: a later one takes the place
of an earlier one, and of a callback of add_reader or add_writer.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Any

from . import poll
from .arguments import check_no_tls_socket
from .dns import resolve

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from .loop import EventLoop

_Socket = socket.socket
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_UNIX = getattr(socket, "AF_UNIX", None)

# What a call gives that has to be made again when the socket is ready.
_Blocked = (BlockingIOError, InterruptedError)

# Seconds between two attempts to connect to a Unix socket whose backlog is full.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


async def sock_recv(self: EventLoop, sock: socket.socket, n: int) -> bytes:
    """Receive at most n bytes; none at the end of the stream."""
    if type(sock) is not _Socket or self._debug or self._closed:
        check_socket(self, sock)
    while True:
        try:
            return sock.recv(n)
        except _Blocked:
            pass
        await _readable(self, sock)


async def sock_recv_into(self: EventLoop, sock: socket.socket, buf: WriteableBuffer) -> int:
    """Receive into the buffer; return how many bytes."""
    if type(sock) is not _Socket or self._debug or self._closed:
        check_socket(self, sock)
    while True:
        try:
            return sock.recv_into(buf)
        except _Blocked:
            pass
        await _readable(self, sock)


async def sock_recvfrom(self: EventLoop, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
    """Receive a datagram of at most bufsize bytes; return (data, address)."""
    if type(sock) is not _Socket or self._debug or self._closed:
        check_socket(self, sock)
    while True:
        try:
            return sock.recvfrom(bufsize)
        except _Blocked:
            pass
        await _readable(self, sock)


async def sock_recvfrom_into(
    self: EventLoop, sock: socket.socket, buf: WriteableBuffer, nbytes: int = 0
) -> tuple[int, Any]:
    """Receive a datagram into the buffer, at most nbytes of it; return (size, address)."""
    if type(sock) is not _Socket or self._debug or self._closed:
        check_socket(self, sock)
    while True:
        try:
            return sock.recvfrom_into(buf, nbytes)
        except _Blocked:
            pass
        await _readable(self, sock)


async def sock_sendall(self: EventLoop, sock: socket.socket, data: ReadableBuffer) -> None:
    """Send all of the data."""
    if type(sock) is not _Socket or self._debug or self._closed:
        check_socket(self, sock)
    try:
        sent = sock.send(data)
    except _Blocked:
        sent = 0
    # What send() counts are bytes, and the items of a buffer may be larger.
    if type(data) is bytes and sent == len(data):
        return
    with memoryview(data) as items, items.cast("B") as view:
        while sent < len(view):
            await _writable(self, sock)
            with view[sent:] as rest:
                try:
                    sent += sock.send(rest)
                except _Blocked:
                    pass


async def sock_sendto(
    self: EventLoop, sock: socket.socket, data: ReadableBuffer, address: Any
) -> int:
    """Send a datagram to the address; return how many bytes were sent."""
    if type(sock) is not _Socket or self._debug or self._closed:
        check_socket(self, sock)
    while True:
        try:
            return sock.sendto(data, address)
        except _Blocked:
            pass
        await _writable(self, sock)


async def sock_accept(self: EventLoop, sock: socket.socket) -> tuple[socket.socket, Any]:
    """Accept a connection; return (connection, address), the connection non-blocking."""
    if type(sock) is not _Socket or self._debug or self._closed:
        check_socket(self, sock)
    while True:
        try:
            conn, address = sock.accept()
        except _Blocked:
            pass
        else:
            conn.setblocking(False)
            return conn, address
        await _readable(self, sock)


async def sock_connect(self: EventLoop, sock: socket.socket, address: Any) -> None:
    """Connect a non-blocking socket."""
    check_socket(self, sock)
    if sock.family in _INTERNET:
        infos = await resolve(self, address, family=sock.family, type=sock.type, proto=sock.proto)
        address = infos[0][4]
    pause = _FIRST_PAUSE
    while True:
        try:
            sock.connect(address)
            return
        except InterruptedError:
            break
        except BlockingIOError as exc:
            if sock.family != _UNIX or exc.errno != errno.EAGAIN:
                break
        # The backlog is full, nothing is under way, and nothing tells when there is room.
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    # Interrupted or not, the connection is under way and must not be asked for again.
    await _writable(self, sock)
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, f"Connect call failed {address}")


def check_socket(loop: EventLoop, sock: socket.socket) -> None:
    loop._check_closed()
    check_no_tls_socket(sock)
    if loop.get_debug() and sock.gettimeout() != 0:
        raise ValueError(f"the socket must be non-blocking: {sock!r}")


async def _readable(loop: EventLoop, sock: socket.socket) -> None:
    ready = loop.create_future()
    # By number: the object may be closed while we wait.
    watch = poll.wait_reader(loop, sock.fileno(), ready)
    try:
        await ready
    finally:
        if watch.reader is ready:
            poll.end_wait(watch, ready)


async def _writable(loop: EventLoop, sock: socket.socket) -> None:
    await wait_writable(loop, sock.fileno(), loop.create_future())


async def wait_writable(loop: EventLoop, fd: int, ready: asyncio.Future[None]) -> None:
    """Wait for the future, which is done when the descriptor can be written, if not before."""
    watch = poll.wait_writer(loop, fd, ready)
    try:
        await ready
    finally:
        if watch.writer is ready:
            poll.end_wait(watch, ready)
