"""StreamTransport: reading and writing a connected stream socket.

The hot path, in this order: `Core._run_until_stopped` -> `_on_event` -> protocol.data_received ->
`write` -> vl_stream_write. Everything that happens rarely is a call away from it. A protocol of our
streams is asked first, outside of any context, to resume the task that waits for the data.

Reading: the shim reads on its own as long as reading is on, and several records of one stream
may wait in the ring when the protocol pauses, closes or is replaced in the middle of them. So
`_live` says whether a record may be delivered at once; if not, `_on_held` keeps it (paused) or
drops it (closing).

Writing: `_refuse` says that write() must not go the short way: after write_eof, after the end.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import struct
from asyncio import constants, trsock
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._uv import IS_PYPY, ffi, lib, sockaddr
from .._uv.errors import check, error
from .buffers import copied, fill
from .debug import format_callback
from .transport import Transport, warn_unclosed

if TYPE_CHECKING:
    from .loop import EventLoop
    from .server import Server

VL_READ = lib.VL_READ
VL_WRITE = lib.VL_WRITE
UV_EOF = lib.UV_EOF
VL_EFOREIGN = lib.VL_EFOREIGN

vl_stream_write = lib.vl_stream_write

_last_int = struct.Struct("=i").unpack_from

# Fewer bytes than this are joined: copying them is cheaper than describing them to C.
_JOIN_MAX = 32 * 1024
# And up to this many of a view are.
_COPY_MAX = 8 * 1024

_NOTHING = memoryview(b"")


class StreamTransport(Transport):
    """The transport of a TCP or Unix connection: an asyncio.Transport."""

    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    _start_tls_compatible = True

    __slots__ = (
        "_address",
        "_addresses",
        "_has_socket",
        "_buffered",
        "_eof",
        "_eof_read",
        "_handle",
        "_held",
        "_ident",
        "_live",
        "_orphaned",
        "_paused",
        "_queued",
        "_refuse",
        "_registered",
        "_resume",
        "_sendfile",
        "_slab",
        "_sock",
    )

    _kind = "socket"  # in error messages

    def __init__(
        self,
        loop: EventLoop,
        protocol: asyncio.BaseProtocol,
        context: contextvars.Context,
        handle: Any,
        *,
        server: Server | None = None,
        sock: socket.socket | None = None,
        addresses: bytes = b"",
    ) -> None:
        self._handle = handle
        # The same, for the accelerator: None as soon as _handle is.
        self._address: int | None = int(ffi.cast("intptr_t", handle))
        self._orphaned = False  # the loop was closed while this was open
        self._live = False
        self._paused = False
        # (status, data) read while paused. What few connections need is made when they do.
        self._held: list[tuple[int, Any]] | tuple[()] = ()
        self._eof = False
        self._eof_read = False
        self._refuse = False
        self._sendfile: asyncio.Future[None] | None = None  # under way; what it waits for
        self._queued = 0
        # With a socket object, from the application or made by us to connect, that object is
        # what get_extra_info gives, and is closed together with the handle. For an accepted
        # connection libuv alone has the descriptor; then _sock is made when somebody asks.
        self._sock = sock
        self._has_socket = sock is not None
        self._addresses = addresses
        self._extra = None if sock is None else self._names_of(sock)
        super().__init__(loop, protocol, context, server)
        self._ident = ident = lib.vl_handle_id(handle)
        loop._driver.targets[ident] = self._on_event
        # Its number in loop._given: the application may close its socket before this ends.
        self._registered = fd = -1
        if addresses:
            fd = _last_int(addresses, -4)[0]
        elif sock is not None:
            fd = sock.fileno()
        if fd != -1:
            self._registered = fd
            loop._given[fd] = self

    def _start(self) -> None:
        """Tell the protocol, and begin to read unless it paused or closed at once."""
        try:
            self._context.run(self._protocol.connection_made, self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            what = format_callback(self._protocol.connection_made, (self,))
            self._loop.call_exception_handler(
                {
                    "message": f"Exception in callback {what}",
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        finally:
            self._begin_reading()

    def _begin_reading(self) -> None:
        if not (self._closing or self._paused or self._eof_read):
            self._live = True
            # Not for a server's connections: what comes of them is as a rule still under way.
            if not self._addresses:
                self._loop._driver.fresh = True
            try:
                check(lib.vl_stream_read_start(self._handle))
            except OSError as exc:  # not connected, on Windows; or a pipe not open for reading
                self._fatal_error(exc, f"Fatal read error on {self._kind} transport")

    def __repr__(self) -> str:
        info = [self.__class__.__name__]
        if self._handle is None:
            info.append("closed")
        else:
            if self._closing:
                info.append("closing")
            info.append(f"fd={self._fileno()}")
            info.append("read=polling" if self._live else "read=idle")
            state = "polling" if self._queued else "idle"
            info.append(f"write=<{state}, bufsize={self.get_write_buffer_size()}>")
        return f"<{' '.join(info)}>"

    def __del__(self) -> None:
        if not hasattr(self, "_ident"):
            return  # it was never quite made
        if self._handle is not None or self._orphaned:
            try:
                warn_unclosed(self)
            finally:
                if self._has_socket and self._sock is not None:
                    self._sock.close()

    # --------------------------------------------------------------------------- events

    def _on_event(self, kind: int, a: int, b: int) -> None:
        if kind == VL_READ:
            if a > 0 and self._live:
                if self._buffered:
                    driver = self._loop._driver
                    if not IS_PYPY:
                        self._feed(driver.view[b : b + a])
                    else:
                        self._feed(ffi.buffer(driver.start + b, a))
                    return
                try:
                    data = self._slab[b : b + a]
                    resume = self._resume
                    if resume is None or not resume(data):
                        self._context.run(self._protocol.data_received, data)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as exc:
                    self._protocol_failed(exc, "data_received")
            elif a:  # else only an announcement, to the accelerator: it comes in the next turn
                self._on_held(a, bytes(self._slab[b : b + a]) if a > 0 else b"")
        elif kind == VL_WRITE:
            self._on_written(a)

    def _on_held(self, status: int, data: bytes) -> None:
        """Something was read that is not plain data for a protocol that listens."""
        if self._closing:
            return
        if self._paused or self._held:  # what is held comes first
            self._held = [*self._held, (status, data)]
        elif status > 0:
            self._deliver(data)
        elif status == UV_EOF:
            self._on_eof()
        elif status < 0:
            self._fatal_error(error(status), f"Fatal read error on {self._kind} transport")

    def _feed(self, rest: Any) -> None:
        """Give data to a BufferedProtocol, in as many pieces as its buffers make of it.

        It may pause, close or hand over to another protocol after any piece.
        """
        method = "get_buffer"
        try:
            while rest and self._live and self._buffered:
                method = "get_buffer"
                size = self._context.run(fill, self._protocol, rest)
                rest = _NOTHING if size == len(rest) else rest[size:]
                if self._loop._nesting and rest:
                    rest = memoryview(copied(rest))  # a nested run would fill the slab anew
                method = "buffer_updated"
                self._context.run(self._protocol.buffer_updated, size)
        except (SystemExit, KeyboardInterrupt):
            if rest:
                self._hold(bytes(rest))
            raise
        except BaseException as exc:
            self._protocol_failed(exc, method)
            return
        if not rest or self._closing:
            return
        if self._paused or self._held:
            self._held = [(len(rest), bytes(rest)), *self._held]
        else:
            self._deliver(bytes(rest))  # to a protocol that is no BufferedProtocol

    def _hold(self, data: bytes) -> None:
        """An interrupt came in the middle of this: what is left of it, in the next run."""
        self._held = [(len(data), data), *self._held]
        if not self._paused and not self._closing:
            self._live = False
            check(lib.vl_stream_read_stop(self._handle))
            self._loop.call_soon(self._deliver_held)

    def _deliver(self, data: bytes) -> None:
        if self._buffered:
            self._feed(memoryview(data))
            return
        try:
            self._context.run(self._protocol.data_received, data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._protocol_failed(exc, "data_received")

    def _on_eof(self) -> None:
        if self._eof_read:
            return  # told again, since reading was stopped and started meanwhile
        self._live = False
        self._eof_read = True
        try:
            keep_open = self._context.run(self._protocol.eof_received)
        except (SystemExit, KeyboardInterrupt):
            self.close()
            raise
        except BaseException as exc:
            self._protocol_failed(exc, "eof_received")
            return
        if not keep_open:
            self.close()

    def _protocol_failed(self, exc: BaseException, method: str) -> None:
        self._fatal_error(exc, f"Fatal error: protocol.{method}() call failed.")

    def _on_written(self, status: int) -> None:
        if self._conn_lost:
            return
        if status < 0:
            self._fatal_error(error(status), f"Fatal write error on {self._kind} transport")
            return
        # Not what the record could say: something may have been written since.
        self._queued = lib.vl_stream_queued(self._handle)
        if self._protocol_paused:
            self._context.run(self._maybe_resume_protocol)
        if not self._queued:
            if self._sendfile is not None and not self._sendfile.done():
                self._sendfile.set_result(None)
            if self._closing and not self._conn_lost:
                self._schedule_end(None)

    # -------------------------------------------------------------------------- reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        driver = self._loop._driver
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)
        # TLS copies at once what it is given, so it is not given a copy; but on PyPy, which takes a
        # view byte by byte. The class is asked: a mock, or a proxy with a __getattr__, says yes to
        # whatever the instance is asked.
        views = not IS_PYPY and getattr(type(protocol), "takes_views", False) is True
        self._slab = driver.view if views else driver.slab
        dispatcher = getattr(type(protocol), "_dispatcher", None)
        self._resume = None if dispatcher is None else dispatcher(protocol)
        self._protocol = protocol

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        if self._closing or self._paused:
            return
        check(lib.vl_stream_read_stop(self._handle))
        self._paused = True
        self._live = False

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        if self._held:
            check(lib.vl_stream_read_stop(self._handle))  # it is stopped; but only the owner may
            self._paused = False
            # Not from within this call: the protocol may be in the middle of something.
            self._loop.call_soon(self._deliver_held)
        elif self._eof_read:
            self._paused = False
        else:
            check(lib.vl_stream_read_start(self._handle))
            self._paused = False
            self._live = True

    def _deliver_held(self) -> None:
        """What was read while paused comes before anything that is still in the socket."""
        try:
            while self._held and not self._paused and not self._closing:
                (status, data), *self._held = self._held
                if status > 0:
                    self._live = True
                    self._deliver(data)
                else:
                    self._on_held(status, data)
        except (SystemExit, KeyboardInterrupt):
            self._live = False
            self._loop.call_soon(self._deliver_held)
            raise
        if not self._held:
            self._begin_reading()

    # -------------------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if type(data) is not bytes or self._refuse:
            data = self._write_checks(data)
        if data:
            queued = vl_stream_write(self._handle, data, len(data))
            if queued:
                self._after_write(queued)

    def _write_checks(self, data: Any) -> Any:
        """-> what write() may hand to C: nothing after the end."""
        kind = type(data)
        if kind is not memoryview and not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(
                "data argument must be a bytes, bytearray, or memoryview object, "
                f"not {type(data).__name__!r}"
            )
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._sendfile is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if not data:
            return b""
        if self._conn_lost:
            self._warn_lost_write()
            return b""
        if kind is not bytes:
            # C takes any contiguous buffer; len() must count its bytes.
            if isinstance(data, memoryview) and not data.c_contiguous:
                return data.tobytes()
            if IS_PYPY or (kind is memoryview and len(data) <= _COPY_MAX):
                return copied(data)
            return ffi.from_buffer(data)
        return data

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        if self._eof:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if self._sendfile is not None:
            raise RuntimeError("unable to writelines; sendfile is in progress")
        pieces = []
        total = 0
        for data in list_of_data:
            data = self._write_checks(data)
            if data:
                pieces.append(data)
                total += len(data)
        if len(pieces) < 2:
            for data in pieces:
                self._after_write(vl_stream_write(self._handle, data, len(data)))
        elif total <= _JOIN_MAX:
            joined = b"".join(p if type(p) is bytes else ffi.buffer(p) for p in pieces)
            self._after_write(vl_stream_write(self._handle, joined, total))
        else:
            buffers = [ffi.from_buffer(p) if type(p) is bytes else p for p in pieces]
            data_array = ffi.new("char *[]", buffers)
            sizes = ffi.new("size_t[]", [len(b) for b in buffers])
            queued = lib.vl_stream_writev(self._handle, data_array, sizes, len(buffers))
            self._after_write(queued)

    def _after_write(self, queued: int) -> None:
        """`queued` bytes did not go out yet; or it is a status."""
        if queued > 0:
            self._queued = queued
            if not self._protocol_paused and queued > self._high_water:
                self._maybe_pause_protocol()
        elif queued < 0:
            exc = error(queued)
            if queued == VL_EFOREIGN:
                raise exc
            self._fatal_error(exc, f"Fatal write error on {self._kind} transport")

    def get_write_buffer_size(self) -> int:
        if not self._queued or self._handle is None:
            return 0
        queued = lib.vl_stream_queued(self._handle)
        # Another thread may ask too, and gets what was known last.
        return self._queued if queued == VL_EFOREIGN else queued

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        status = lib.vl_stream_shutdown(self._handle)
        if status == VL_EFOREIGN:
            raise error(status)
        self._eof = self._refuse = True
        if status < 0:
            self._fatal_error(error(status), f"Fatal write error on {self._kind} transport")

    # ------------------------------------------------- sendfile, which sendfile.py carries out

    def _begin_sendfile(self) -> None:
        if self._sendfile is not None:
            raise RuntimeError(f"a sendfile is in progress already: {self!r}")
        check(lib.vl_stream_queued(self._handle))  # refuses other threads than the loop's
        self._sendfile = self._loop.create_future()
        self._refuse = True

    def _sendfile_waits(self, *, for_queue: bool = False) -> asyncio.Future[None]:
        """What the sendfile is to wait for next; the end of the transport ends it too."""
        self._sendfile = waiter = self._loop.create_future()
        if self._conn_lost:
            self._sendfile_lost(None)
        elif for_queue and not self._queued:
            waiter.set_result(None)
        return waiter

    def _sendfile_lost(self, exc: BaseException | None) -> None:
        waiter = self._sendfile
        if waiter is not None and not waiter.done():
            waiter.set_exception(exc or ConnectionError("Connection is closed by peer"))

    def _end_sendfile(self) -> None:
        self._sendfile = None
        self._refuse = self._eof or self._conn_lost > 0

    # -------------------------------------------------------------------------- the end

    def close(self) -> None:
        if self._closing or self._passed_on(self.close):
            return
        check(lib.vl_stream_read_stop(self._handle))
        self._closing = True
        self._live = False
        self._held = ()
        if not self._queued:
            self._schedule_end(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._conn_lost or self._handle is None or self._passed_on(self._force_close, exc):
            return
        check(lib.vl_stream_read_stop(self._handle))
        self._closing = True
        self._live = False
        self._held = ()
        self._queued = 0
        self._schedule_end(exc)

    def _schedule_end(self, exc: BaseException | None) -> None:
        self._refuse = True
        self._schedule_connection_lost(exc)
        self._sendfile_lost(exc)

    def _release(self) -> None:
        self._resume = None
        handle, self._handle, self._address = self._handle, None, None
        if handle is None:
            return
        del self._loop._driver.targets[self._ident]
        sock = self._sock
        if self._loop._given.get(self._registered) is self:
            del self._loop._given[self._registered]
        if sock is not None and not self._has_socket:
            sock.detach()
        check(lib.vl_handle_close(handle))
        if sock is not None and self._has_socket:
            sock.close()

    def _on_loop_close(self) -> None:
        """The loop is being closed under us; the driver closes the handle in a moment."""
        self._handle = self._address = None
        self._refuse = self._closing = True
        self._live = False
        self._conn_lost += 1
        self._sendfile = None  # its waiter is of a closed loop: nobody will run
        self._orphaned = True
        if not self._has_socket and self._sock is not None:
            self._sock.detach()

    # ----------------------------------------------------------------------- extra info

    def _fileno(self) -> int:
        if self._handle is None:
            return -1
        if self._sock is not None:
            return self._sock.fileno()
        return self._registered

    @staticmethod
    def _names_of(sock: socket.socket) -> dict[str, Any]:
        extra: dict[str, Any] = {"socket": trsock.TransportSocket(sock)}
        try:
            extra["sockname"] = sock.getsockname()
        except OSError:
            extra["sockname"] = None
        try:
            extra["peername"] = sock.getpeername()
        except OSError:
            extra["peername"] = None
        return extra

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        extra = self._extra
        if extra is None:
            extra = self._extra = {}
        if name in extra:
            return extra[name]
        if name in ("peername", "sockname"):
            extra["peername"], extra["sockname"] = split_addresses(self._addresses)
        elif name == "socket":
            extra["socket"] = trsock.TransportSocket(self._socket())
        else:
            return default
        return extra[name]

    def _socket(self) -> socket.socket:
        """A socket object over libuv's descriptor: it is let go before libuv closes that."""
        family = sockaddr.family(self._addresses[2 + self._addresses[0] :])
        if self._handle is None:  # asked only after the end: a closed one, as asyncio has then
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.close()
        else:
            sock = socket.socket(family, socket.SOCK_STREAM, fileno=self._fileno())
            sock.setblocking(False)
            self._sock = sock
        return sock


def check_protocol(protocol: Any) -> None:
    """Did the protocol factory return something that can be told of a connection?"""
    if not hasattr(protocol, "connection_made"):
        raise TypeError(
            f"protocol_factory must return a protocol, not {type(protocol).__name__} {protocol!r}"
        )


def split_addresses(raw: bytes) -> tuple[Any, Any]:
    """(peer, own) of what the listener left in the slab: sizes, sockaddrs, descriptor."""
    if not raw:
        return None, None
    end = 2 + raw[0]
    return sockaddr.unpack(raw[2:end]), sockaddr.unpack(raw[end:-4])
