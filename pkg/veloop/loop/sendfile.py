"""loop.sendfile() and loop.sock_sendfile(): os.sendfile where it can be had, else read and write.

os.sendfile needs a file with a descriptor and a socket that nothing encrypts. What it can not do
shows in its first call: then, and only then, SendfileNotAvailableError leads to the fallback.
Whatever happens, the file's position is afterwards behind what was sent.

A transport that sends a file so may not write meanwhile. libuv watches its descriptor by number,
so we wait on a copy of it; the copy also keeps the number ours if the transport ends.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from asyncio import constants, transports
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .sockets import check_socket, wait_writable
from .stream import StreamTransport

if TYPE_CHECKING:
    from .loop import EventLoop

# asyncio's mode of a transport, in its attribute _sendfile_compatible.
_Mode = constants._SendfileMode

_READ_SIZE = 16 * 1024  # bytes read at once for a transport, as asyncio does
_BLOCK_MAX = sys.maxsize // 2 + 1  # on 32 bits 1 GiB: more does not fit into the call

# Taken early: what looks for blocking calls in coroutines (blockbuster) replaces it, and lets the
# functions of asyncio's files alone call it. This one does not block.
_sendfile = getattr(os, "sendfile", None)


async def sock_sendfile(
    loop: EventLoop,
    sock: socket.socket,
    file: Any,
    offset: int,
    count: int | None,
    fallback: bool,
) -> int:
    check_socket(loop, sock)
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"only SOCK_STREAM type sockets are supported, got {sock!r}")
    _check(file, offset, count)

    async def writable() -> None:
        await wait_writable(loop, sock.fileno(), loop.create_future())

    try:
        return await _native(sock.fileno, writable, file, offset, count)
    except asyncio.SendfileNotAvailableError:
        if not fallback:
            raise
    read_size = constants.SENDFILE_FALLBACK_READBUFFER_SIZE

    async def write(data: memoryview) -> None:
        await loop.sock_sendall(sock, data)

    return await _read_and_write(loop, write, file, offset, count, read_size)


async def sendfile(
    loop: EventLoop, transport: Any, file: Any, offset: int, count: int | None, fallback: bool
) -> int:
    if transport.is_closing():
        raise RuntimeError("Transport is closing")
    mode = getattr(transport, "_sendfile_compatible", _Mode.UNSUPPORTED)
    if mode is _Mode.UNSUPPORTED:
        raise RuntimeError(f"sendfile is not supported for transport {transport!r}")
    _check(file, offset, count)
    if mode is _Mode.TRY_NATIVE:
        try:
            return await _transport_native(loop, transport, file, offset, count)
        except asyncio.SendfileNotAvailableError:
            if not fallback:
                raise
    if not fallback:
        raise RuntimeError(
            f"fallback is disabled and native sendfile is not supported for transport {transport!r}"
        )
    protocol = _FallbackProtocol(loop, transport)
    try:
        return await _read_and_write(loop, protocol.write, file, offset, count, _READ_SIZE)
    finally:
        protocol.restore()


def _check(file: Any, offset: object, count: object) -> None:
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError(f"file should be opened in binary mode, got {file!r}")
    if count is not None:
        if not isinstance(count, int):
            raise TypeError(f"count must be a positive integer (got {count!r})")
        if count <= 0:
            raise ValueError(f"count must be a positive integer (got {count!r})")
    if not isinstance(offset, int):
        raise TypeError(f"offset must be a non-negative integer (got {offset!r})")
    if offset < 0:
        raise ValueError(f"offset must be a non-negative integer (got {offset!r})")


# ------------------------------------------------------------------------------- os.sendfile


async def _native(
    fileno: Callable[[], int],
    writable: Callable[[], Awaitable[None]],
    file: Any,
    offset: int,
    count: int | None,
) -> int:
    """Send with os.sendfile to the socket of that descriptor."""
    if _sendfile is None:
        raise asyncio.SendfileNotAvailableError("os.sendfile() is not available")
    try:
        source = file.fileno()
        size = os.fstat(source).st_size
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        raise asyncio.SendfileNotAvailableError(f"not a regular file: {file!r}") from None
    if not (count or size):
        return 0
    total = 0
    waited = False
    try:
        while count is None or total < count:
            block = size if count is None else count - total
            try:
                sent = _sendfile(fileno(), source, offset + total, min(block, _BLOCK_MAX))
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as exc:
                raise _send_error(exc, total, waited) from exc
            else:
                if not sent:
                    break  # the end of the file
                total += sent
            # Also after a success: others have their turn, and cancelling its chance.
            await writable()
            waited = True
        return total
    finally:
        _seek(source, offset + total)


def _send_error(exc: OSError, total: int, waited: bool) -> Exception:
    if not total:
        # Most likely this kind of file cannot be sent so. If it is the socket that is broken,
        # the fallback will find out.
        return asyncio.SendfileNotAvailableError("os.sendfile call failed")
    if waited and exc.errno == errno.ENOTCONN:
        # Some systems say this of a peer that went away in the middle.
        return ConnectionError("socket is not connected", errno.ENOTCONN)
    return exc


def _seek(source: int, position: int) -> None:
    try:
        os.lseek(source, position, os.SEEK_SET)
    except OSError as exc:
        if exc.errno not in (errno.ESPIPE, errno.EBADF):  # a pipe; closed meanwhile
            raise


async def _transport_native(
    loop: EventLoop, transport: StreamTransport, file: Any, offset: int, count: int | None
) -> int:
    if _sendfile is None:
        raise asyncio.SendfileNotAvailableError("os.sendfile() is not available")

    async def writable() -> None:
        await wait_writable(loop, copy, transport._sendfile_waits())

    transport._begin_sendfile()
    resume_reading = False
    try:
        resume_reading = transport.is_reading()
        transport.pause_reading()
        await transport._sendfile_waits(for_queue=True)
        copy = os.dup(transport._fileno())
        try:
            return await _native(lambda: copy, writable, file, offset, count)
        finally:
            os.close(copy)
    finally:
        transport._end_sendfile()
        if resume_reading:
            transport.resume_reading()


# ----------------------------------------------------------------------------- read and write


async def _read_and_write(
    loop: EventLoop,
    write: Callable[[memoryview], Awaitable[None]],
    file: Any,
    offset: int,
    count: int | None,
    read_size: int,
) -> int:
    if hasattr(file, "seek"):
        file.seek(offset)
    size = read_size if count is None else min(count, read_size)
    buffer = memoryview(bytearray(size))
    total = 0
    try:
        while count is None or total < count:
            if count is not None:
                size = min(size, count - total)
            read = await loop.run_in_executor(None, file.readinto, buffer[:size])
            if not read:
                break
            await write(buffer[:read])
            total += read
        return total
    finally:
        if total and hasattr(file, "seek"):
            file.seek(offset + total)


class _FallbackProtocol(asyncio.Protocol):
    """Stands in for a transport's protocol while a file is written to it."""

    def __init__(self, loop: EventLoop, transport: object) -> None:
        if not isinstance(transport, transports._FlowControlMixin):
            raise TypeError(f"transport should be _FlowControlMixin instance, not {transport!r}")
        self._loop = loop
        self._transport: Any = transport
        self._protocol = self._transport.get_protocol()
        if isinstance(self._protocol, _FallbackProtocol):
            raise RuntimeError(f"a sendfile is in progress already: {transport!r}")
        self._resume_reading = self._transport.is_reading()
        self._was_paused: bool = transport._protocol_paused  # type: ignore[attr-defined]
        self._room: asyncio.Future[None] | None = None
        if self._was_paused:
            self._room = loop.create_future()
        self._transport.pause_reading()
        self._transport.set_protocol(self)

    async def write(self, data: memoryview) -> None:
        """Write, and wait until there is room for more."""
        self._transport.write(data)
        if self._transport.is_closing():
            raise ConnectionError("Connection closed by peer")
        if self._room is not None:
            await self._room

    def restore(self) -> None:
        if self._loop.is_closed():
            return  # with all that is in it
        self._transport.set_protocol(self._protocol)
        if self._resume_reading:
            self._transport.resume_reading()
        if self._room is not None:
            self._room.cancel()
        # It was told to pause, and would have been told to resume meanwhile.
        if self._was_paused:
            self._protocol.resume_writing()

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_exception(exc or ConnectionError("Connection is closed by peer"))
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        raise RuntimeError("Invalid state: reading should be paused")

    def eof_received(self) -> None:
        raise RuntimeError("Invalid state: reading should be paused")
