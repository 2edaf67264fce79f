"""The two kinds of transport that create_datagram_endpoint makes.

`UdpTransport` has a socket of AF_INET or AF_INET6, by uv_udp_t: datagrams come in batches, many
records in one turn. `WatchedTransport` has a socket of any other family (Unix, CAN, netlink ...):
the shim says when it is ready, and the socket module does the rest, since it alone knows the
family's addresses (see shim/datagram.c). `DatagramTransport` is what both share, and asyncio's
rules.

An exception from the protocol ends nothing: it goes to the loop's exception handler, or to the
caller of sendto() in the midst of which it was raised. That is asyncio's way with datagrams.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from .._uv import ffi, lib, sockaddr
from .._uv.errors import check, error
from .debug import format_callback
from .stream import StreamTransport
from .transport import Transport, warn_unclosed

if TYPE_CHECKING:
    from .loop import EventLoop

VL_DATAGRAM = lib.VL_DATAGRAM
VL_EFOREIGN = lib.VL_EFOREIGN
VL_READABLE = lib.VL_READABLE
VL_WRITABLE = lib.VL_WRITABLE

vl_udp_send = lib.vl_udp_send

_ADDRESS_ROOM = 32  # in the slab, ahead of each datagram
# family -> size of its sockaddr, for the families that uv_udp_t has
INTERNET = {socket.AF_INET: 16, socket.AF_INET6: 28}
_NO_ADDRESS = ffi.NULL
_HEADER = 8  # what asyncio adds to the size of a datagram that waits
_MAX_SIZE = 256 * 1024  # of a datagram, asyncio's
_BATCH = 32  # datagrams of a watched socket received in one turn

# A peer sends and gets more than one datagram.
unpacked = functools.lru_cache(maxsize=1024)(sockaddr.unpack)


@functools.lru_cache(maxsize=1024, typed=True)
def packed(family: int, *address: Any) -> bytes:
    """The sockaddr of a plain numeric address. What is none, raises something."""
    most = 2 if family == socket.AF_INET else 4
    if not 2 <= len(address) <= most or "%" in address[0]:
        raise ValueError
    if "\0" in address[0]:  # where PyPy's inet_pton() takes the host to end
        raise ValueError
    if len(address) > 2 and not 0 <= address[2] <= 0xFFFFF:  # the flow information has 20 bits
        raise ValueError
    return sockaddr.pack(family, address)


def _looked_up(family: int, address: Any) -> bytes:
    """The sockaddr of any address that the socket module's sendto() takes, after a look-up."""
    most = 2 if family == socket.AF_INET else 4
    if not isinstance(address, tuple) or not 2 <= len(address) <= most:
        raise TypeError(f"addr must be a tuple (host, port), not {address!r}")
    host, port, *rest = address
    if not isinstance(port, int):
        raise TypeError(f"the port must be an integer, got {port!r} in {address!r}")
    if host == "<broadcast>" and family == socket.AF_INET:
        host = "255.255.255.255"
    flags = 0 if host else socket.AI_PASSIVE
    # A port, for without one there must be a host.
    infos = socket.getaddrinfo(host or None, 0, family, socket.SOCK_DGRAM, 0, flags)
    found = infos[0][4]
    return sockaddr.pack(family, (found[0], port, *(rest or found[2:])))


class DatagramTransport(Transport, asyncio.DatagramTransport):
    """What create_datagram_endpoint() returns: an asyncio.DatagramTransport."""

    __slots__ = (
        "_address",
        "_connected",
        "_handle",
        "_held",
        "_ident",
        "_live",
        "_orphaned",
        "_paused",
        "_pointer",
        "_registered",
        "_run",
        "_sock",
    )

    def __init__(
        self,
        loop: EventLoop,
        protocol: asyncio.BaseProtocol,
        sock: socket.socket,
        address: Any,
        handle: Any,
    ) -> None:
        self._handle = handle
        # The same, for the accelerator: None as soon as _handle is.
        self._pointer: int | None = int(ffi.cast("intptr_t", handle))
        self._sock = sock
        self._address = address  # the only one that sendto() may be given
        self._orphaned = False  # the loop was closed while this was open
        self._live = False  # what comes may be delivered at once
        self._paused = False
        self._held: deque[tuple[Any, Any]] = deque()  # (data or exception, address)
        self._extra = StreamTransport._names_of(sock)
        self._connected = self._extra["peername"] is not None
        super().__init__(loop, protocol, contextvars.copy_context(), None)
        self._run = self._context.run
        self._ident = ident = lib.vl_handle_id(handle)
        loop._driver.targets[ident] = self._on_event
        self._registered = sock.fileno()  # the application may close its socket before this ends
        loop._given[self._registered] = self

    async def _start(self) -> None:
        """connection_made in a turn of its own, and reading after it, as with asyncio."""
        loop = self._loop
        waiter = loop.create_future()
        loop.call_soon(self._protocol.connection_made, self, context=self._context)
        loop.call_soon(self._begin_reading)
        loop.call_soon(_set_result, waiter)
        try:
            await waiter
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        info = [self.__class__.__name__]
        if self._handle is None:
            info.append("closed")
        else:
            if self._closing:
                info.append("closing")
            info.append(f"fd={self._fileno()}")
            info.append("read=polling" if self._live else "read=idle")
            size = self.get_write_buffer_size()
            info.append(f"write=<{'polling' if size else 'idle'}, bufsize={size}>")
        return f"<{' '.join(info)}>"

    def __del__(self) -> None:
        if not hasattr(self, "_ident"):
            return  # it was never quite made
        if self._handle is not None or self._orphaned:
            try:
                warn_unclosed(self)
            finally:
                self._close_sockets()

    def _fileno(self) -> int:
        return -1 if self._handle is None else self._sock.fileno()

    # ------------------------------------------------------------------------ receiving

    def _on_event(self, kind: int, a: int, b: int) -> None:
        raise NotImplementedError

    def _watch(self) -> None:
        """Have the socket read if, and only if, this transport is live."""
        raise NotImplementedError

    def _begin_reading(self) -> None:
        if not (self._closing or self._paused):
            self._live = True
            self._loop._driver.fresh = True
            self._watch()

    def _received(self, what: Any, address: Any) -> None:
        """`what` is the bytes of a datagram, or the exception that came instead of one."""
        if self._live:
            self._deliver(what, address)
        elif not self._closing:
            self._held.append((what, address))  # received in one go with what came before

    def _deliver(self, what: Any, address: Any) -> None:
        if isinstance(what, bytes):
            self._call(self._protocol.datagram_received, what, address)
        else:
            self._call(self._protocol.error_received, what)

    def _call(self, method: Any, *args: Any) -> None:
        try:
            self._run(method, *args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._callback_failed(method, exc)

    def _callback_failed(self, method: Any, exc: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"Exception in callback {format_callback(method, ())}",
                "exception": exc,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        if not self.is_reading():
            return
        self._paused = True
        self._live = False
        self._watch()

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        self._paused = False
        if self._held:
            # Not from within this call: the protocol may be in the middle of something.
            self._loop.call_soon(self._deliver_held)
        else:
            self._begin_reading()

    def _deliver_held(self) -> None:
        """What was received before the pause comes before anything still in the socket."""
        try:
            while self._held and not self._paused and not self._closing:
                self._deliver(*self._held.popleft())
        except (SystemExit, KeyboardInterrupt):
            self._loop.call_soon(self._deliver_held)
            raise
        if not self._held:
            self._begin_reading()

    # -------------------------------------------------------------------------- sending

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        if type(data) is not bytes:
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(
                    f"data argument must be a bytes-like object, not {type(data).__name__!r}"
                )
            data = bytes(data)
        if self._address:
            if addr is not None and addr != self._address:
                raise ValueError(f"Invalid address: must be None or {self._address}, not {addr!r}")
            addr = self._address
        # Once closed, an endpoint without a fixed peer still sends until the end.
        if self._conn_lost and (self._address or self._handle is None):
            self._warn_lost_write()
            return
        self._send(data, addr)

    def _send(self, data: bytes, addr: Any) -> None:
        raise NotImplementedError

    def _send_failed(self, exc: BaseException) -> None:
        if isinstance(exc, OSError):
            self._protocol.error_received(exc)
        else:
            self._fatal_error(exc, "Fatal write error on datagram transport")

    def _finish_sending(self) -> None:
        """The queue got shorter."""
        try:
            if self._protocol_paused and not self._conn_lost:
                self._run(self._maybe_resume_protocol)  # which may send more
        finally:
            if self._closing and not self._conn_lost and not self._pending():
                self._schedule_connection_lost(None)

    def _pending(self) -> int:
        """How much waits to be sent, as far as this transport has been told."""
        raise NotImplementedError

    # -------------------------------------------------------------------------- the end

    def close(self) -> None:
        if self._closing or self._passed_on(self.close):
            return
        self._end_reading()
        if not self._pending():
            self._schedule_connection_lost(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._conn_lost or self._handle is None or self._passed_on(self._force_close, exc):
            return
        self._end_reading()
        self._drop_queue()
        self._schedule_connection_lost(exc)

    def _end_reading(self) -> None:
        live, self._live = self._live, False
        try:
            self._watch()
        except BaseException:  # the wrong thread
            self._live = live
            raise
        self._closing = True
        self._held.clear()

    def _drop_queue(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        self._close_handle()
        self._close_sockets()

    def _close_handle(self) -> None:
        handle, self._handle, self._pointer = self._handle, None, None
        if handle is None:
            return
        del self._loop._driver.targets[self._ident]
        if self._loop._given.get(self._registered) is self:
            del self._loop._given[self._registered]
        check(lib.vl_handle_close(handle))

    def _close_sockets(self) -> None:
        self._sock.close()

    def _on_loop_close(self) -> None:
        """The loop is being closed under us; the driver closes the handle in a moment."""
        self._handle = self._pointer = None
        self._closing = True
        self._live = False
        self._conn_lost += 1
        self._orphaned = True


class UdpTransport(DatagramTransport):
    """An endpoint of AF_INET or AF_INET6."""

    __slots__ = ("_address_size", "_family", "_queued", "_slab")

    def __init__(
        self,
        loop: EventLoop,
        protocol: asyncio.BaseProtocol,
        sock: socket.socket,
        address: Any,
        *,
        ours: bool,
    ) -> None:
        self._family = int(sock.family)
        self._address_size = INTERNET[sock.family]
        self._queued = 0
        self._slab = loop._driver.slab
        super().__init__(loop, protocol, sock, address, _open(loop, sock, ours))

    def _on_event(self, kind: int, a: int, b: int) -> None:
        if kind != VL_DATAGRAM:
            self._on_sent(a)
        elif a < 0:
            self._received(error(a), None)
        else:
            start = b + _ADDRESS_ROOM
            data = self._slab[start : start + a]
            address = unpacked(self._slab[b : b + self._address_size])
            if not self._live:
                self._received(data, address)
                return
            try:
                self._run(self._protocol.datagram_received, data, address)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._callback_failed(self._protocol.datagram_received, exc)

    def _watch(self) -> None:
        if self._handle is not None:
            set_reading = lib.vl_udp_read_start if self._live else lib.vl_udp_read_stop
            check(set_reading(self._handle))

    def _send(self, data: bytes, addr: Any) -> None:
        raw: Any = None
        if self._connected:
            raw = _NO_ADDRESS
        elif isinstance(addr, tuple):
            try:
                raw = packed(self._family, *addr)
            except Exception:
                pass  # a name, or nothing that could be sent to
        if raw is None:
            self._send_to_name(data, addr)
            return
        if self._handle is None:
            return  # closed meanwhile, by a finalizer say
        queued = vl_udp_send(self._handle, data, len(data), raw)
        if queued:
            self._after_send(queued)

    def _send_to_name(self, data: bytes, addr: Any) -> None:
        """The socket module resolves names, and says what is wrong with everything else."""
        try:
            if not self.get_write_buffer_size() and self._sock.fileno() != -1:
                try:
                    self._sock.sendto(data, addr)
                    return
                except (BlockingIOError, InterruptedError):
                    pass
            raw = _looked_up(self._family, addr)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._send_failed(exc)
            return
        self._after_send(vl_udp_send(self._handle, data, len(data), raw))

    def _after_send(self, queued: int) -> None:
        """`queued` bytes wait; or it is a status."""
        if queued > 0:
            self._queued = queued
            self._maybe_pause_protocol()
        elif queued < 0:
            exc = error(queued)
            if queued == VL_EFOREIGN:
                raise exc
            self._send_failed(exc)

    def _on_sent(self, status: int) -> None:
        if self._conn_lost:
            return
        # Not what the record could say: something may have been sent since.
        self._queued = check(lib.vl_udp_queued(self._handle))
        try:
            if status < 0:
                self._call(self._protocol.error_received, error(status))
        finally:
            self._finish_sending()

    def get_write_buffer_size(self) -> int:
        if not self._queued or self._handle is None:
            return 0
        queued = lib.vl_udp_queued(self._handle)
        # Another thread may ask too, and gets what was known last.
        return self._queued if queued == VL_EFOREIGN else queued

    def _pending(self) -> int:
        return self._queued

    def _drop_queue(self) -> None:
        if self._queued:
            self._queued = 0
            self._close_handle()  # libuv drops it then, and at no other time


class WatchedTransport(DatagramTransport):
    """An endpoint of any other family."""

    __slots__ = ("_own", "_queue", "_size")

    def __init__(
        self,
        loop: EventLoop,
        protocol: asyncio.BaseProtocol,
        sock: socket.socket,
        address: Any,
        *,
        ours: bool,
    ) -> None:
        self._queue: deque[tuple[bytes, Any]] = deque()
        self._size = 0
        # Of the application's socket a copy, for it may close that early.
        self._own = sock if ours else sock.dup()
        try:
            driver = loop._driver
            check(lib.vl_datagram_watch(driver.pointer, self._own.fileno(), driver.out))
        except BaseException:
            if not ours:
                self._own.close()
            raise
        super().__init__(loop, protocol, sock, address, driver.out[0])

    def _watch(self) -> None:
        if self._handle is not None:
            events = (VL_READABLE if self._live else 0) | (VL_WRITABLE if self._queue else 0)
            check(lib.vl_datagram_watch_for(self._handle, events))

    def _on_event(self, kind: int, events: int, unused: int) -> None:
        if events & VL_READABLE:
            self._receive()
        if events & VL_WRITABLE and not self._conn_lost:
            self._flush()

    def _receive(self) -> None:
        for _ in range(_BATCH):
            if not self._live:
                return
            try:
                data, address = self._own.recvfrom(_MAX_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                self._deliver(exc, None)
                return
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._fatal_error(exc, "Fatal read error on datagram transport")
                return
            self._deliver(data, address)

    def _send(self, data: bytes, addr: Any) -> None:
        if not self._queue:
            try:
                self._send_now(data, addr)
                return
            except (BlockingIOError, InterruptedError):
                pass
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._send_failed(exc)
                return
        self._queue.append((data, addr))
        self._size += len(data) + _HEADER
        if len(self._queue) == 1:
            self._watch()
        self._maybe_pause_protocol()

    def _send_now(self, data: bytes, addr: Any) -> None:
        if self._connected:
            self._own.send(data)
        else:
            self._own.sendto(data, addr)

    def _flush(self) -> None:
        """Send what is queued, up to the first that fails: there is a next turn."""
        try:
            while self._queue:
                data, addr = self._queue[0]
                try:
                    self._send_now(data, addr)
                except (BlockingIOError, InterruptedError):
                    break
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as exc:
                    self._unqueue()
                    if isinstance(exc, OSError):
                        self._call(self._protocol.error_received, exc)
                    else:
                        self._fatal_error(exc, "Fatal write error on datagram transport")
                    break
                self._unqueue()
        finally:
            if not self._conn_lost:
                self._watch()
                self._finish_sending()

    def _unqueue(self) -> None:
        data, _ = self._queue.popleft()
        self._size -= len(data) + _HEADER

    def get_write_buffer_size(self) -> int:
        return self._size

    def _pending(self) -> int:
        return self._size

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._size = 0
        self._watch()

    def _close_sockets(self) -> None:
        self._own.close()
        self._sock.close()


def _open(loop: EventLoop, sock: socket.socket, ours: bool) -> Any:
    """A libuv handle over the socket, or over a copy of the application's: it may close it."""
    driver = loop._driver
    if ours:
        check(lib.vl_udp_open(driver.pointer, sock.fileno(), True, driver.out))
        return driver.out[0]
    copy = sock.dup().detach()
    try:
        check(lib.vl_udp_open(driver.pointer, copy, False, driver.out))
    except BaseException:
        socket.close(copy)
        raise
    return driver.out[0]


def _set_result(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
