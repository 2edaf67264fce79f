"""Session: one TLS connection without I/O. Bytes of the wire go in and come out, plaintext too.

It knows nothing of loops, transports and protocols; `tls_transport.py` moves its bytes. Two rules
of its:

- Nothing that read() was able to decrypt is lost: an error behind it waits in `failure`.
- What is to be sent stays plaintext, in `backlog`, until send() is asked for it. So a peer that
  does not read costs what the application wrote and not a byte more, and dropping it is cheap.
"""

from __future__ import annotations

from collections import deque
from ssl import MemoryBIO, SSLContext, SSLError, SSLObject, SSLWantReadError
from typing import Any

from .._uv import IS_PYPY

RECORD = 16 * 1024  # the most plaintext in one record, which is what one read() gives

# Encrypted at once. OpenSSL's memory buffers never shrink, so a connection keeps this much. Each
# call of OpenSSL costs more on PyPy.
CHUNK = (64 if IS_PYPY else 32) * 1024

# Not on PyPy: before version 8 it reads into a copy if the view was both cast and cut, and later
# the part that is cut off keeps its owner from being resized until it is collected.
READS_INTO_VIEWS = not IS_PYPY

INFO = ("peercert", "cipher", "compression")  # asyncio's names for what OpenSSL knows


class Session:
    __slots__ = ("backlog", "ended", "failure", "incoming", "outgoing", "queued", "sslobj")

    def __init__(self, context: SSLContext, server_side: bool, server_hostname: str | None) -> None:
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()
        self.sslobj: SSLObject = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self.backlog: deque[bytes | memoryview] = deque()  # plaintext that is to be sent
        self.queued = 0  # its size
        self.ended = False  # the peer said close_notify
        self.failure: SSLError | None = None  # met behind what the last read() gave

    def handshake(self) -> bool:
        """Go on with the handshake. -> is it complete?"""
        try:
            self.sslobj.do_handshake()
        except SSLWantReadError:
            return False
        return True

    def info(self, name: str) -> Any:
        """One of INFO, once the handshake is complete."""
        sslobj = self.sslobj
        return sslobj.getpeercert() if name == "peercert" else getattr(sslobj, name)()

    # ------------------------------------------------------------------------- receiving

    def read(self) -> bytes:
        """All that can be decrypted by now; b"" if that is nothing."""
        read = self.sslobj.read
        first = b""
        pieces = None
        try:
            while True:
                piece = read(RECORD)
                if not piece:
                    self.ended = True
                    break
                if not first:
                    first = piece
                elif pieces is None:
                    pieces = [first, piece]
                else:
                    pieces.append(piece)
                if not self.more():  # else OpenSSL would raise SSLWantReadError, which is slow
                    break
        except SSLWantReadError:
            pass
        except SSLError as exc:
            if not first:
                raise
            self.failure = exc
        return first if pieces is None else b"".join(pieces)

    def read_into(self, buffer: memoryview) -> int:
        """Fill the beginning of the buffer. -> how much of it"""
        size = len(buffer)
        done = 0
        try:
            while done < size:
                if READS_INTO_VIEWS:
                    count: Any = self.sslobj.read(size - done, buffer[done:])
                else:
                    piece = self.sslobj.read(min(size - done, RECORD))
                    count = len(piece)
                    buffer[done : done + count] = piece
                if not count:
                    self.ended = True
                    break
                done += count
                if not self.more():
                    break
        except SSLWantReadError:
            pass
        except SSLError as exc:
            if not done:
                raise
            self.failure = exc
        return done

    def more(self) -> bool:
        """May there be something to read?"""
        return self.incoming.pending > 0 or self.sslobj.pending() > 0

    # --------------------------------------------------------------------------- sending

    def write(self, data: bytes) -> None:
        self.backlog.append(data)
        self.queued += len(data)

    def send(self) -> bytes:
        """The next bytes for the wire: b"" if there are none, or OpenSSL first wants to read."""
        if self.queued and self.failure is None:  # after one OpenSSL has only its alert to send
            chunk = self._take()
            try:
                self.sslobj.write(chunk)
            except SSLWantReadError:  # in the middle of a renegotiation
                self.backlog.appendleft(chunk)
                self.queued += len(chunk)
        return self.outgoing.read() if self.outgoing.pending else b""

    def unsent(self) -> int:
        """Bytes that send() has not given out yet."""
        return self.queued + self.outgoing.pending

    def _take(self) -> bytes | memoryview:
        """The beginning of the backlog: a part of what is big, or what is small together."""
        backlog = self.backlog
        chunk = backlog.popleft()
        size = len(chunk)
        if size > CHUNK:
            rest = memoryview(chunk)
            backlog.appendleft(rest[CHUNK:])
            chunk = rest[:CHUNK]
            size = CHUNK
        elif backlog and size + len(backlog[0]) <= CHUNK:
            pieces = [chunk]
            while backlog and size + len(backlog[0]) <= CHUNK:
                pieces.append(backlog.popleft())
                size += len(pieces[-1])
            chunk = b"".join(pieces)
        self.queued -= size
        return chunk

    # --------------------------------------------------------------------------- the end

    def shutdown(self) -> bool:
        """Say close_notify. -> did the peer too? SSLError if it sends something else."""
        try:
            self.sslobj.unwrap()
        except SSLWantReadError:
            return False
        return True

    def discard(self) -> None:
        """Forget what has come in and nobody is going to read."""
        while self.read():
            pass

    def drop(self) -> None:
        """Forget everything: nothing will be sent or received any more."""
        self.backlog.clear()
        self.queued = 0
        self.failure = None
        self.incoming.read()
        self.outgoing.read()


def as_bytes(data: Any) -> bytes:
    """What write() was given, as it is now: the application may change a bytearray later."""
    if type(data) is bytes:
        return data
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(
            "data argument must be a bytes, bytearray, or memoryview object, "
            f"not {type(data).__name__!r}"
        )
    return bytes(data)
