"""SSLTransport: the transport that encrypts, over any transport that there is.

What the transport underneath has for a protocol is a `Below` (tls.py), which only passes on what
it is told, to the methods `_on_...`. What encrypts is a `Session`.

States go one way:

    HANDSHAKE -> OPEN -> FLUSHING -> SHUTDOWN -> ENDED -> LOST

close() leads to FLUSHING, until all that was written is with the transport underneath; then
close_notify is said, and in SHUTDOWN the peer's is awaited. Both together last as long as the
shutdown timeout allows. From ENDED on the transport underneath is being closed, and LOST is its
connection_lost. abort() and errors lead from anywhere to ENDED.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from asyncio import constants
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .buffers import buffer_of, let_go
from .debug import logger
from .tls_flow import ENDED, FLUSHING, HANDSHAKE, LOST, OPEN, SHUTDOWN, FlowControl
from .transport import refuse_others, warn_unclosed

try:
    from ssl import CertificateError, SSLError

    from .tls_state import CHUNK, INFO, Session, as_bytes
except ImportError:  # a Python without OpenSSL, where nobody makes an SSLTransport
    pass

if TYPE_CHECKING:
    from .loop import EventLoop
    from .server import Server
    from .tls import Settings


class SSLTransport(FlowControl):
    """A transport that encrypts what another one transports: an asyncio.Transport."""

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    __slots__ = (
        "_announced",
        "_buffered",
        "_calling",
        "_corked",
        "_eof",
        "_eof_told",
        "_error",
        "_settings",
        "_started_at",
        "_timer",
        "_waiter",
    )

    _extra: dict[str, Any]

    def __init__(
        self,
        loop: EventLoop,
        protocol: asyncio.BaseProtocol,
        context: contextvars.Context,
        settings: Settings,
        *,
        waiter: asyncio.Future[None] | None = None,
        announced: bool = False,
    ) -> None:
        self._closing = True  # until there is something to close
        self._session = Session(settings.context, settings.server_side, settings.server_hostname)
        self._settings = settings
        self._extra = {"sslcontext": settings.context}
        self._waiter = waiter
        self._announced = announced  # the protocol knows that there is a connection
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = 0.0
        self._error: BaseException | None = None  # the reason why the connection is being ended
        self._calling = False  # we are in a callback: what it writes first goes out at once,
        self._corked = False  # and what it writes then, less than a CHUNK, goes out together
        self._eof = False
        self._eof_told = False
        super().__init__(loop, protocol, context)

    def _put_on(self, below: Any, server: Server | None = None) -> None:
        """`below` is the transport to encrypt for; its protocol is a Below of ours.

        The server then has this for its client.
        """
        self._below = below
        self._closing = False
        self._server = server
        if server is not None:
            server._attach(self)

    def __repr__(self) -> str:
        state = ("handshake", "open", "closing", "closing", "closing", "closed")[self._state]
        return f"<{self.__class__.__name__} {state} over {self._below!r}>"

    def __del__(self) -> None:
        if not getattr(self, "_closing", True):
            warn_unclosed(self)

    # ------------------------------------------------------------------------- handshake

    def _on_connected(self) -> None:
        if self._state != HANDSHAKE:
            return  # closed before it began
        loop = self._loop
        if loop.get_debug():
            logger.debug("%r starts SSL handshake", self)
            self._started_at = loop.time()
        self._start_timer(self._settings.handshake_timeout, self._on_handshake_timeout)
        self._handshake()

    def _handshake(self) -> None:
        session = self._session
        try:
            done = session.handshake()
        except Exception as exc:
            self._handshake_failed(exc)
            return
        if not done:
            self._pump()
            return
        self._stop_timer()
        self._state = OPEN
        self._extra["ssl_object"] = session.sslobj
        if self._loop.get_debug():
            took = (self._loop.time() - self._started_at) * 1e3
            logger.debug("%r: SSL handshake took %.1f ms", self, took)
        if not self._announced:
            self._announced = True
            self._calling = True
            try:
                self._protocol.connection_made(self)
            except (SystemExit, KeyboardInterrupt):
                self._wake_waiter(None)
                self._interrupted()
                raise
            except BaseException as exc:
                self._fatal_error(exc, "Fatal error: protocol.connection_made() call failed.")
                return
            finally:
                self._calling = self._corked = False
        self._wake_waiter(None)
        self._go_on()

    def _handshake_failed(self, exc: Exception) -> None:
        message = "SSL handshake failed"
        if isinstance(exc, CertificateError):
            message += " on verifying the certificate"
        self._fatal_error(exc, message)
        self._tell_failure(exc)

    def _tell_failure(self, exc: BaseException) -> None:
        """Tell who waits for the handshake; a server's handshake has nobody but the log."""
        self._wake_waiter(exc)
        if self._server is not None and self._loop.get_debug():
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )

    def _on_handshake_timeout(self) -> None:
        self._timer = None
        self._handshake_failed(
            ConnectionAbortedError(
                "SSL handshake is taking longer than "
                f"{self._settings.handshake_timeout} seconds: aborting the connection"
            )
        )

    def _wake_waiter(self, exc: BaseException | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if exc is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(exc)

    def _start_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timer = self._loop.call_later(seconds, callback, context=self._context)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # ------------------------------------------------------------------------- receiving

    def _on_data(self, data: bytes | memoryview) -> None:
        """The transport below received something. It may be its own memory: do not keep it."""
        state = self._state
        if state >= ENDED:
            return
        self._session.incoming.write(data)
        if state == OPEN:
            if not self._paused:
                self._read()
            if not (self._paused or self._stuck or self._held_back):
                return
        elif state == HANDSHAKE:
            self._handshake()
        elif state == FLUSHING:
            self._flush()
        else:
            self._say_goodbye()
        self._limit_reading()

    def _read(self) -> None:
        """Decrypt, and give to the protocol, all that there is or as much as it wants."""
        session = self._session
        self._calling = True
        try:
            if self._buffered:
                self._fill()
            else:
                data = session.read()
                if data:
                    self._protocol.data_received(data)
            failure = session.failure
            if failure is not None:
                session.failure = None
                raise failure
        except (SystemExit, KeyboardInterrupt):
            self._interrupted()
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error on SSL protocol")
            return
        finally:
            self._calling = self._corked = False
            failure = None  # its traceback holds this frame
        if session.queued or session.outgoing.pending:
            self._pump()
        if session.ended and self._state == OPEN:
            self._end_of_stream()

    def _fill(self) -> None:
        """As _read, for a BufferedProtocol; it may become another protocol after each piece."""
        session = self._session
        while self._buffered and not self._paused and self._state == OPEN:
            hint = session.incoming.pending or -1
            size = _read_into(session, buffer_of(self._protocol, hint))
            if size:
                self._protocol.buffer_updated(size)
                if self._corked:
                    self._corked = False
                    self._pump()
            if not size or session.failure is not None or not session.more():
                return
        if not self._paused and self._state == OPEN:
            data = session.read()
            if data:
                self._protocol.data_received(data)

    def _on_eof(self) -> bool:
        """The transport below has reached the end. -> True: we close it ourselves.

        One that encrypts, too, closes in any case, and warns of a protocol that says True.
        """
        self._eof = True
        if self._loop.get_debug():
            logger.debug("%r received EOF", self)
        if self._state == HANDSHAKE:
            self._handshake_failed(
                ConnectionResetError("the connection ended during the SSL handshake")
            )
        else:
            self._go_on()
        return not isinstance(self._below, SSLTransport)

    def _go_on(self) -> None:
        """Send what waits, deliver what waits, end what has ended."""
        if self._state == OPEN:
            self._pump()
            if not self._paused:
                self._read()
            if self._eof and self._state == OPEN and not self._paused:
                self._end_of_stream()
        elif self._state == FLUSHING:
            self._flush()
        elif self._state == SHUTDOWN:
            self._say_goodbye()
        if self._held_back:
            self._limit_reading()

    def _go_on_soon(self) -> None:
        self._loop.call_soon(self._go_on, context=self._context)

    def _interrupted(self) -> None:
        """Go on in the next run. There may be none, so what was written goes out now."""
        if self._corked:
            self._pump()
        self._go_on_soon()

    def _end_of_stream(self) -> None:
        self._tell_eof()
        if self._state == OPEN:
            self._closing = True
            self._shut_down()

    def _tell_eof(self) -> None:
        if self._eof_told:
            return
        self._eof_told = True
        self._calling = True
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            self._interrupted()
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Error calling eof_received()")
            return
        finally:
            self._calling = self._corked = False
        if keep_open:
            logger.warning("returning true from eof_received() has no effect when using ssl")

    # ------------------------------------------------------------- flow control of reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if self._paused and not self.is_closing():
            self._paused = False
            # Not from within this call: the protocol may be in the middle of something.
            self._go_on_soon()

    # --------------------------------------------------------------------------- sending

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if type(data) is not bytes:
            data = as_bytes(data)
        if data and self._may_write():
            self._session.write(data)
            self._after_write()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        pieces = [piece for piece in map(as_bytes, list_of_data) if piece]
        if pieces and self._may_write():
            for piece in pieces:
                self._session.write(piece)
            self._after_write()

    def _may_write(self) -> bool:
        if self._state > OPEN:
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("SSL connection is closed")
            self._conn_lost += 1
            return False
        refuse_others(self._loop)  # before anything is changed; what is below would do so after
        return True

    def _after_write(self) -> None:
        corked = self._corked and self._session.queued < CHUNK
        if not corked and self._state == OPEN and not self._stuck:
            self._pump()
            self._corked = self._calling
        if not self._protocol_paused and self._session.queued > self._high_water:
            self._maybe_pause_protocol()

    def _pump(self) -> None:
        """Send, until there is no more or the transport below says that it is enough."""
        session = self._session
        try:
            while not self._stuck:
                data = session.send()
                if not data:
                    break
                self._below.write(data)
        except Exception as exc:
            self._fatal_error(exc, "Fatal error on SSL protocol")
            return
        if self._protocol_paused and self._state != HANDSHAKE:
            self._maybe_resume_protocol()

    def _on_stuck(self) -> None:
        self._stuck = True

    def _on_unstuck(self) -> None:
        self._stuck = False
        if self._state in (FLUSHING, SHUTDOWN):
            self._go_on()
        else:
            self._pump()
            if self._held_back:
                self._limit_reading()

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError("TLS cannot end only one direction")

    # --------------------------------------------------------------------------- the end

    def is_closing(self) -> bool:
        return self._closing or self._below.is_closing()

    def close(self) -> None:
        if self._closing or self._passed_on(self.close):
            return
        if self._state == HANDSHAKE:
            self._force_close(None)
            return
        self._closing = True
        if not self._below.is_closing():  # else somebody else closes it, and we get to know
            self._shut_down()

    def abort(self) -> None:
        self._force_close(None)

    def _shut_down(self) -> None:
        """Begin the orderly end. The timer runs until the transport below has ended, too."""
        self._state = FLUSHING
        self._start_timer(self._settings.shutdown_timeout, self._on_shutdown_timeout)
        self._flush()

    def _on_shutdown_timeout(self) -> None:
        self._timer = None
        self._force_close(TimeoutError("SSL shutdown timed out"))

    def _flush(self) -> None:
        self._pump()
        if self._state != FLUSHING:
            return
        # What OpenSSL wants to read first does not come any more after the end of the stream.
        if not self._session.unsent() or (self._eof and not self._stuck):
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """close_notify in both directions, or the end of the transport below; then close that."""
        session = self._session
        done = self._eof
        try:
            if self._state == FLUSHING:
                self._state = SHUTDOWN
                session.discard()  # it came before we said goodbye, and is no error
            if not done:
                done = session.shutdown()
        except SSLError as exc:
            # The peer goes on sending. What it is to get from us it still gets.
            self._error = exc
            self._close_below()
            return
        self._pump()
        if self._held_back:
            self._limit_reading()
        if done and not self._stuck:
            self._tell_eof()
            self._close_below()

    def _close_below(self) -> None:
        if self._state < ENDED:
            self._state = ENDED
            self._below.close()

    def _fatal_error(self, exc: BaseException, message: str) -> None:
        self._uncork()
        if isinstance(exc, SSLError) and self._state <= OPEN:
            self._send_last(self._session.outgoing.read)  # the alert
        super()._fatal_error(exc, message)

    def _uncork(self) -> None:
        """The connection ends in the middle of a callback: what that wrote goes out first."""
        corked, self._corked = self._corked, False
        if corked and self._state == OPEN:
            self._send_last(self._session.send)

    def _send_last(self, take: Callable[[], bytes]) -> None:
        """Send what can be sent. That it fails changes nothing: the connection is at its end."""
        if not self._stuck:
            with contextlib.suppress(Exception):
                data = take()
                if data:
                    self._below.write(data)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._below is None or self._passed_on(self._force_close, exc):
            return
        self._uncork()
        self._closing = True
        self._state = ENDED
        if self._error is None:
            self._error = exc
        self._session.drop()
        self._below.abort()

    def _on_lost(self, exc: BaseException | None) -> None:
        """The transport below is gone."""
        if self._error is not None:
            exc, self._error = self._error, None
        during_handshake = self._state == HANDSHAKE
        self._closing = True
        self._state = LOST
        self._below = None
        self._stop_timer()
        self._session.drop()
        aborted = ConnectionAbortedError("the connection was closed during the SSL handshake")
        if during_handshake:
            self._tell_failure(exc or aborted)
        else:
            self._wake_waiter(exc or aborted)
        if self._announced:
            self._schedule_connection_lost(exc)
        else:
            self._protocol = None
            self._call_connection_lost(exc)

    def _release(self) -> None:
        pass  # the transport below has released what there was

    # ----------------------------------------------------------------------- extra info

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        extra = self._extra
        if name in extra:
            return extra[name]
        if name in INFO and "ssl_object" in extra:
            extra[name] = self._session.info(name)
            return extra[name]
        if self._below is not None:
            return self._below.get_extra_info(name, default)
        return default


def _read_into(session: Session, buffer: memoryview) -> int:
    try:
        return session.read_into(buffer)
    finally:
        let_go(buffer)
