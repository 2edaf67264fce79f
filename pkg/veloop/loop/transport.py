"""What all transports share: the protocol, extra info, write flow control, the way to the end.

The end is the same for all: `_force_close` or a graceful close leads, one turn later, to
`_call_connection_lost`, which tells the protocol and only then closes the handle.
"""

from __future__ import annotations

import asyncio
import contextvars
import warnings
from asyncio import transports
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from .._uv.errors import foreign_thread
from .debug import logger

if TYPE_CHECKING:
    from .loop import EventLoop
    from .server import Server

_HIGH_WATER = 64 * 1024  # bytes, asyncio's defaults
_LOW_WATER = _HIGH_WATER // 4  # one number for all transports
_LOG_THRESHOLD = 5  # writes after the end before asyncio starts to complain


def owner_elsewhere(loop: EventLoop) -> int | None:
    """The thread that runs the loop now, if this is another one."""
    owner = loop._thread_id
    return None if owner == get_ident() else owner


def refuse_others(loop: EventLoop) -> None:
    """RuntimeError in another thread than the one that runs the loop now."""
    owner = owner_elsewhere(loop)
    if owner is not None:
        raise foreign_thread(owner)


# asyncio's sendfile and start_tls look for this base, which is a Transport.
class Transport(transports._FlowControlMixin):
    """The base of our transports: an asyncio.Transport.

    Slots, because asyncio's bases have some: a class below them has no inline attribute values,
    and CPython does not specialise the access to others. `__dict__` is for applications that
    hang something of theirs on a transport, as asyncio lets them.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_closing",
        "_conn_lost",
        "_context",
        "_protocol",
        "_server",
    )

    _lost_write = "socket.send() raised exception."  # asyncio's words

    _high_water: int
    _low_water: int
    _loop: EventLoop
    _protocol: Any
    _protocol_paused: bool
    _server: Server | None

    def __init__(
        self,
        loop: EventLoop,
        protocol: asyncio.BaseProtocol,
        context: contextvars.Context,
        server: Server | None,
    ) -> None:
        self._loop = loop
        self._context = context
        self._server = server
        self._closing = False
        self._conn_lost = 0
        self._protocol_paused = False
        self._high_water = _HIGH_WATER
        self._low_water = _LOW_WATER
        self.set_protocol(protocol)
        if server is not None:
            server._attach(self)

    # ---------------------------------------------------------------------- the protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    # ------------------------------------------------------------------ write flow control

    def get_write_buffer_size(self) -> int:
        raise NotImplementedError

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low_water, self._high_water

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._low_water, self._high_water = limits(high, low, _HIGH_WATER)
        self._maybe_pause_protocol()

    def _maybe_pause_protocol(self) -> None:
        if not self._protocol_paused and self.get_write_buffer_size() > self._high_water:
            self._protocol_paused = True
            self._tell_protocol("pause_writing")

    def _maybe_resume_protocol(self) -> None:
        if self._protocol_paused and self.get_write_buffer_size() <= self._low_water:
            self._protocol_paused = False
            self._tell_protocol("resume_writing")

    def _tell_protocol(self, method: str) -> None:
        try:
            getattr(self._protocol, method)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._loop.call_exception_handler(
                {
                    "message": f"protocol.{method}() failed",
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )

    # -------------------------------------------------------------------------- the end

    def _passed_on(self, method: Callable[..., object], *args: object) -> bool:
        """Have the loop's thread call that, if it is another one that runs the loop now.

        For the ways to the end: the collector finalizes in any thread what holds a transport.
        -> whether it is another
        """
        if owner_elsewhere(self._loop) is None:
            return False
        self._loop.call_soon_threadsafe(method, *args)
        return True

    def _fatal_error(self, exc: BaseException, message: str) -> None:
        # What the network does to a connection is no error of the program.
        if isinstance(exc, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=True)
        else:
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._force_close(exc)

    def _force_close(self, exc: BaseException | None) -> None:
        raise NotImplementedError

    def _schedule_connection_lost(self, exc: BaseException | None) -> None:
        self._conn_lost += 1
        self._loop.call_soon(self._call_connection_lost, exc, context=self._context)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            if self._protocol is not None:
                self._protocol.connection_lost(exc)
        finally:
            self._release()
            self._protocol = None
            server, self._server = self._server, None
            if server is not None:
                server._detach(self)

    def _release(self) -> None:
        """Close the handle and whatever belongs to it."""
        raise NotImplementedError

    def _warn_lost_write(self) -> None:
        if self._conn_lost >= _LOG_THRESHOLD:
            logger.warning(self._lost_write)
        self._conn_lost += 1


def limits(high: int | None, low: int | None, default: int) -> tuple[int, int]:
    """(low, high) of a flow control, `high` being the default where neither is given."""
    if high is None:
        high = default if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    return low, high


def warn_unclosed(transport: Transport) -> None:
    if transport._loop._inherited:
        return  # in a forked child: it is the parent's to close
    warnings.warn(
        f"unclosed transport {transport!r}", ResourceWarning, stacklevel=3, source=transport
    )
