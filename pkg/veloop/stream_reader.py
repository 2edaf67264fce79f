"""StreamReader: what arrived on a connection, read by size, by line, or to its end.

The buffer is `_head`; what lies behind `_pos` in it is unread. It is the very bytes object that the
transport delivered, as long as no read needs more than that: nothing is copied then but what a read
cuts out of it. What arrives behind unread data is joined to it. Where that would copy too often,
`_head` becomes a bytearray that grows, and `_pos` is 0; so it is when `_head` is empty.

A read that has to wait does so on a future of the reader's own, `_future`, which is `_waiter` as
long as it waits. Its task may be resumed without that future being done: `_hand_over` does so,
and then the future serves the next wait, too. In all other cases it gets its result, or its
exception, as futures do, and is forgotten.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from types import coroutine
from typing import Any

from . import events
from .exceptions import IncompleteReadError, LimitOverrunError

__all__ = ("StreamReader",)

DEFAULT_LIMIT = 64 * 1024

# Since Python 3.14 a future knows who awaits it, and is told when that ends.
_forget_awaiter = getattr(asyncio, "future_discard_from_awaited_by", None)


class _NoLoop:
    """Enough of a loop for a future that never has a callback."""

    def get_debug(self) -> bool:
        return False


# The future that a task which is resumed directly is told to be done.
RESUMED: asyncio.Future[None] = asyncio.Future(loop=_NoLoop())  # type: ignore[arg-type]
RESUMED.set_result(None)

# Up to this size two copies of bytes cost less than views of them.
_SMALL = 4096

# From this size on, chunks of one large read are kept apart until it is complete.
_BLOCK = 4096


class StreamReader(asyncio.StreamReader):
    """The reading half of a stream, as asyncio.StreamReader; `async for` gives its lines.

    `limit`, in bytes, is the longest line, and the amount of unread data that is wanted: at twice
    as much the transport is told to stop reading. ValueError if it is not positive.
    """

    # The accelerator finds these by their place.
    __slots__ = (
        "_context",
        "_eof",
        "_exception",
        "_future",
        "_head",
        "_limit",
        "_loop",
        "_paused",
        "_pos",
        "_searcher",
        "_transport",
        "_waiter",
        "_wakeup",
    )

    _source_traceback: Any = None
    _transport: Any
    _waiter: asyncio.Future[None] | None

    def __init__(
        self, limit: int = DEFAULT_LIMIT, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        if limit <= 0:
            raise ValueError("Limit cannot be <= 0")
        self._limit = limit
        self._loop = loop = events.get_event_loop() if loop is None else loop
        self._head: bytes | bytearray = b""
        self._pos = 0
        # Who has looked through what is unread, and knows what was there: nothing has gone since.
        self._searcher: object = None
        self._eof = False
        self._exception: BaseException | None = None
        self._transport = None
        self._paused = False
        self._waiter = None  # what a read waits for now
        self._future: asyncio.Future[None] | None = None  # what the next one may wait for
        # How the task that was resumed last is resumed, as long as it waits again.
        self._wakeup: Any = None
        self._context: Any = None
        if loop.get_debug():
            self._source_traceback = events.extract_stack(sys._getframe(1))

    def __repr__(self) -> str:
        info = ["StreamReader"]
        if self._head:
            info.append(f"{len(self._head) - self._pos} bytes")
        if self._eof:
            info.append("eof")
        if self._limit != DEFAULT_LIMIT:
            info.append(f"limit={self._limit}")
        if self._waiter:
            info.append(f"waiter={self._waiter!r}")
        if self._exception:
            info.append(f"exception={self._exception!r}")
        if self._transport:
            info.append(f"transport={self._transport!r}")
        if self._paused:
            info.append("paused")
        return f"<{' '.join(info)}>"

    # ------------------------------------------------------------------------ the buffer

    @property
    def _buffer(self) -> bytearray:
        """What is unread, to look at and to change, as libraries do with asyncio's attribute."""
        self._searcher = None
        head = self._head
        if isinstance(head, bytes):
            self._head = head = bytearray(memoryview(head)[self._pos :])
            self._pos = 0
        return head

    @_buffer.setter
    def _buffer(self, data: bytes | bytearray) -> None:
        self._searcher = None
        self._head = bytearray(data)
        self._pos = 0

    def _append(self, data: bytes) -> None:
        head = self._head
        if not head:
            self._head = data
        elif len(head) - self._pos <= len(data):
            # Each byte of the new data has paid for at most one of the old.
            self._head = bytes(head[self._pos :]) + data
            self._pos = 0
        else:
            searcher = self._searcher
            self._buffer.extend(data)
            self._searcher = searcher

    def _take(self, size: int) -> bytes:
        """Remove that much, of at least as much, and let the transport read again if it may."""
        self._searcher = None
        head = self._head
        if isinstance(head, bytes):
            pos = self._pos
            end = pos + size
            data = head[pos:end]
            if end == len(head):
                self._head = b""
                self._pos = 0
            else:
                self._pos = end
        else:
            if size <= _SMALL:
                data = bytes(head[:size])
            else:  # released at once: PyPy would keep a view, and it the size of its owner
                with memoryview(head) as view, view[:size] as front:
                    data = bytes(front)
            del head[:size]
        if self._paused:
            self._maybe_resume_transport()
        return data

    # --------------------------------------------------------------- what the protocol calls

    def exception(self) -> BaseException | None:  # type: ignore[override]
        """Return what set_exception() was given, None before."""
        return self._exception

    def set_exception(self, exc: BaseException) -> None:
        """Make the read that waits, and all later ones, raise this."""
        self._exception = exc
        waiter = self._waiter
        if waiter is not None:
            self._waiter = self._future = None
            if not waiter.done():
                waiter.set_exception(exc)

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Name the transport that is paused when too much is unread. Once."""
        assert self._transport is None, "Transport already set"
        self._transport = transport

    def _replace_transport(self, transport: asyncio.BaseTransport) -> None:
        assert self._transport is not None, "Transport not set"
        self._transport = transport

    def feed_eof(self) -> None:
        """Say that nothing more will come: reads get the rest, then b''."""
        self._eof = True
        self._wakeup_waiter()

    def at_eof(self) -> bool:
        """Return True if feed_eof() was called and nothing is unread."""
        return self._eof and not self._head

    def feed_data(self, data: Any) -> None:
        """Add data, any bytes-like object, behind what is unread; a read that waits goes on."""
        assert not self._eof, "feed_data after feed_eof"
        if not data:
            return
        self._append(b"".join((data,)))  # bytes, and that very object if it is one
        self._wakeup_waiter()
        self._maybe_pause_transport()

    def _hand_over(self, data: bytes) -> bool:
        """Let the task that waits for data go on with this, now; return whether there is one.

        For a protocol, in the loop's own thread while no task runs. The task's wake-up is taken off
        the future that it waits for, and called. SystemExit and KeyboardInterrupt of the task come
        out; what else it raises is its own business.
        """
        waiter = self._waiter
        if waiter is not self._future or waiter is None:  # somebody else's can only be done
            return False
        wakeup: Any
        # A task's wake-ups all are equal, so the last one removes this one.
        wakeup = self._wakeup
        if wakeup is None or not waiter.remove_done_callback(wakeup):
            try:
                ((wakeup, context),) = waiter._callbacks
                if wakeup.__self__.__class__ is not asyncio.Task:
                    return False
            except (AttributeError, TypeError, ValueError):  # none, several, or not a task's
                return False
            waiter.remove_done_callback(wakeup)
            self._wakeup, self._context = wakeup, context
        elif waiter._callbacks:  # somebody else waits for the future, too
            waiter.add_done_callback(wakeup, context=self._context)
            return False
        if self._head:
            self._append(data)
        else:
            self._head = data
        self._waiter = None
        if _forget_awaiter is not None:
            _forget_awaiter(waiter, wakeup.__self__)
        try:
            self._context.run(wakeup, RESUMED)
        except RuntimeError as exc:
            if not str(exc).startswith("cannot enter context"):
                raise
            self._resume_later(waiter, wakeup, self._context)
        finally:
            # Else a read waits again, which may need more than the limit.
            if self._waiter is None:
                self._wakeup = self._context = None  # the task may have ended
                if self._head:
                    self._maybe_pause_transport()
        return True

    def _resume_later(self, waiter: asyncio.Future[None], wakeup: Any, context: Any) -> None:
        """Somebody runs this in the task's own context, which is entered once at a time."""
        self._future = None
        waiter.add_done_callback(wakeup, context=context)
        waiter.set_result(None)

    def _wakeup_waiter(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = self._future = None
            if not waiter.done():
                waiter.set_result(None)

    def _maybe_pause_transport(self) -> None:
        if (
            len(self._head) - self._pos > 2 * self._limit
            and not self._paused
            and self._transport is not None
        ):
            try:
                self._transport.pause_reading()
            except NotImplementedError:
                self._transport = None  # there is no use in asking again
            else:
                self._paused = True

    def _maybe_resume_transport(self) -> None:
        if self._paused and len(self._head) - self._pos <= self._limit:
            self._paused = False
            self._transport.resume_reading()

    # --------------------------------------------------------------------------- reading

    @coroutine
    def _wait_for_data(self, func_name: str) -> Generator[Any, None, None]:
        """Wait until something was fed: data, the end, or an exception, which is raised."""
        if self._waiter is not None:
            raise RuntimeError(
                f"{func_name}() called while another coroutine is already waiting for incoming data"
            )
        if self._exception is not None:  # it came right behind data that was not enough
            raise self._exception
        if self._paused:  # a read may need more than the limit
            self._paused = False
            self._transport.resume_reading()
        waiter = self._future
        if waiter is None:
            waiter = self._future = asyncio.Future(loop=self._loop)
        self._waiter = waiter
        try:
            # What `await waiter` does, without its complaint if that is not done at the end.
            waiter._asyncio_future_blocking = True
            yield waiter
        except BaseException:
            if self._future is waiter:
                self._future = None  # cancelled, say
            self._wakeup = self._context = None  # the task may be kept by nothing else
            raise
        finally:
            if self._waiter is waiter:
                self._waiter = None

    async def read(self, n: int = -1) -> bytes:
        """Return up to n bytes, of which at least one is waited for; b'' at the end.

        Everything up to the end if n is negative. What was collected for that stays readable if the
        call is cancelled or fails.
        """
        if self._exception is not None:
            raise self._exception
        if n <= 0:
            return await self._read_to_end() if n else b""
        while not (head := self._head):
            if self._eof:
                return b""
            await self._wait_for_data("read")
        size = len(head) - self._pos
        return self._take(n if n < size else size)

    async def _read_to_end(self) -> bytes:
        blocks: list[bytes] = []
        try:
            while True:
                if self._head:  # nobody else may have it, and the buffer never gets full
                    blocks.append(self._take(len(self._head) - self._pos))
                if self._eof:
                    return b"".join(blocks)
                await self._wait_for_data("read")
        except BaseException:
            if blocks:
                self._buffer[:0] = b"".join(blocks)
            raise

    async def _collect(self, n: int) -> bytes:
        """Return n bytes, or less at the end, out of more than one chunk. All or nothing."""
        blocks: list[bytes] = []
        missing = n
        try:
            while (size := len(self._head) - self._pos) < missing and not self._eof:
                if size >= _BLOCK:  # less is joined in the buffer, to be no burden one by one
                    blocks.append(self._take(size))
                    missing -= size
                await self._wait_for_data("readexactly")
        except BaseException:
            if blocks:
                self._buffer[:0] = b"".join(blocks)
            raise
        blocks.append(self._take(min(size, missing)))
        return b"".join(blocks)

    async def readexactly(self, n: int) -> bytes:
        """Return exactly n bytes, which may be more than the limit.

        ValueError if n is negative; IncompleteReadError, with what there is, if the end is before.
        """
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        if self._exception is not None:
            raise self._exception
        if n == 0:
            return b""
        if not self._head and not self._eof:
            await self._wait_for_data("readexactly")
        if len(self._head) - self._pos >= n:
            return self._take(n)
        data = await self._collect(n)
        if len(data) < n:
            raise IncompleteReadError(data, n)
        return data

    async def readline(self) -> bytes:
        """Return a line with its newline, without it at the end of the stream, b"" after that.

        ValueError if it is longer than the limit: it is discarded then, as far as it is there.
        """
        if self._exception is not None:
            raise self._exception
        if not self._head and not self._eof:
            await self._wait_for_data("readuntil")
        pos = self._pos
        found = self._head.find(b"\n", pos) - pos
        if 0 <= found <= self._limit:
            return self._take(found + 1)
        try:
            return await self._read_until([b"\n"])
        except IncompleteReadError as exc:
            return exc.partial
        except LimitOverrunError as exc:
            head, end = self._head, self._pos + exc.consumed
            found = head.startswith(b"\n", end)
            self._take((end + 1 if found else len(head)) - self._pos)
            raise ValueError(exc.args[0])  # noqa: B904 (in asyncio it is raised like this)

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """Return everything up to a separator, and the separator.

        `separator` is a bytes-like object, or a tuple of such: then the one that ends first counts,
        and of those that end together the shortest. ValueError if there is none or one is empty.

        LimitOverrunError if more than the limit comes before it: everything stays readable.
        IncompleteReadError, with what there is, if the end is before.
        """
        separators = sorted(separator, key=len) if isinstance(separator, tuple) else [separator]
        if not separators:
            raise ValueError("Separator should contain at least one element")
        if not len(separators[0]):
            raise ValueError("Separator should be at least one-byte string")
        if self._exception is not None:
            raise self._exception
        if len(separators) == 1:
            if not self._head and not self._eof:
                await self._wait_for_data("readuntil")
            pos = self._pos
            found = self._head.find(separators[0], pos) - pos
            if 0 <= found <= self._limit:
                return self._take(found + len(separators[0]))
        return await self._read_until(separators)

    async def _read_until(self, separators: list[Any]) -> bytes:
        """readuntil() for separators that were checked, the shortest first."""
        longest = len(separators[-1])
        searched = 0  # no separator begins in that much of what is unread
        while True:
            head, pos = self._head, self._pos
            start = end = -1
            for each in separators:
                found = head.find(each, pos + searched)
                if found >= 0 and (end < 0 or found + len(each) < end):
                    start, end = found, found + len(each)
            if end >= 0:
                break
            searched = max(searched, len(head) - pos + 1 - longest)
            if searched > self._limit:
                raise LimitOverrunError(
                    "Separator is not found, and chunk exceed the limit", searched
                )
            if self._eof:
                raise IncompleteReadError(self._take(len(head) - pos), None)
            self._searcher = separators
            await self._wait_for_data("readuntil")
            if self._searcher is not separators:  # another read has had some of it
                searched = 0
        if start - pos > self._limit:
            raise LimitOverrunError(
                "Separator is found, but chunk is longer than limit", start - pos
            )
        return self._take(end - pos)

    def __aiter__(self) -> StreamReader:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line
