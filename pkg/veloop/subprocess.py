"""Child processes whose pipes are streams: create_subprocess_exec(), create_subprocess_shell().

A Process is started and watched by the loop's subprocess_exec() or subprocess_shell(), of whichever
loop runs; here are the streams and the waiting. communicate() takes what the child writes before
it gets to the streams, so that neither their limit nor a wake-up per chunk slows it down, and
hands it back to them if it is cancelled: no byte is lost.
"""

from __future__ import annotations

import asyncio
import subprocess
from asyncio.log import logger
from collections.abc import Callable, Iterable
from typing import Any

from .events import get_running_loop
from .futures import Future
from .streams import FlowControlMixin, StreamReader, StreamWriter

__all__ = (
    "DEVNULL",
    "PIPE",
    "Process",
    "STDOUT",
    "SubprocessStreamProtocol",
    "create_subprocess_exec",
    "create_subprocess_shell",
)

PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL

# Bytes that a stream holds; at twice as many the child's pipe is no longer read.
_LIMIT = 2**16
# Bytes of input that communicate() writes at a time.
_SLICE = 2**18


class SubprocessStreamProtocol(FlowControlMixin, asyncio.SubprocessProtocol):
    """Makes streams of the pipes of one child: stdin, stdout, stderr, each None without a pipe."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.stdin: StreamWriter | None = None
        self.stdout: StreamReader | None = None
        self.stderr: StreamReader | None = None
        self._limit = limit
        self._transport: Any = None
        # The streams of the pipes that the child has not closed yet, and who gets their data.
        self._open: dict[int, StreamReader] = {}
        self._sinks: dict[int, Callable[[bytes], object]] = {}
        self._capture: _Capture | None = None
        self._exited = False
        self._exit_waiters: set[Future[None]] = set()
        self._stdin_closed: Future[None] = loop.create_future()

    def __repr__(self) -> str:
        info = [type(self).__name__]
        for name in ("stdin", "stdout", "stderr"):
            stream = getattr(self, name)
            if stream is not None:
                info.append(f"{name}={stream!r}")
        return f"<{' '.join(info)}>"

    # ------------------------------------------------------------------- what the loop calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.stdout = self._reader(1)
        self.stderr = self._reader(2)
        stdin = transport.get_pipe_transport(0)
        if stdin is not None:
            self.stdin = StreamWriter(stdin, protocol=self, reader=None, loop=self._loop)

    def _reader(self, fd: int) -> StreamReader | None:
        pipe = self._transport.get_pipe_transport(fd)
        if pipe is None:
            return None
        reader = StreamReader(limit=self._limit, loop=self._loop)
        reader.set_transport(pipe)
        self._open[fd] = reader
        self._sinks[fd] = reader.feed_data
        return reader

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._sinks[fd](data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self._end_stdin(exc)
            return
        reader = self._open.pop(fd, None)
        if reader is None:
            return
        if self._capture is not None:
            self._capture.ends[fd] = exc
        else:
            _end(reader, exc)
        self._check_end()

    def process_exited(self) -> None:
        self._exited = True
        _wake(self._exit_waiters)
        self._check_end()

    def _check_end(self) -> None:
        """Once the child is dead and nobody else holds its pipes, there is nothing to come."""
        if self._exited and not self._open:
            if self._transport is not None:
                self._transport.close()
                self._transport = None
            if self._capture is not None:
                _wake((self._capture.complete,))

    # --------------------------------------------------------------------------------- stdin

    def _end_stdin(self, exc: Exception | None) -> None:
        if self.stdin is not None:
            self.stdin.close()
        self.connection_lost(exc)
        _wake((self._stdin_closed,), exc)
        if exc is not None and not self._stdin_closed.cancelled():
            self._stdin_closed.exception()  # nobody has to call wait_closed()

    def _get_close_waiter(self, stream: StreamWriter) -> Future[None]:
        return self._stdin_closed

    # --------------------------------------------------------------------------- for Process

    async def _wait_exit(self) -> None:
        if not self._exited:
            await _wait_among(self._exit_waiters, self._loop)

    def _start_capture(self) -> _Capture:
        if self._capture is not None:
            raise RuntimeError(
                "communicate() called while another coroutine is already waiting for incoming data"
            )
        for reader in self._open.values():
            if reader._waiter is not None:  # what we take is somebody else's
                raise RuntimeError(
                    "read() called while another coroutine is already waiting for incoming data"
                )
        self._capture = capture = _Capture(self._loop)
        for fd, reader in self._open.items():
            chunks = capture.chunks[fd] = []
            self._sinks[fd] = chunks.append
            # Its stream may have paused it, and would go on only when somebody reads.
            reader._paused = False
            self._transport.get_pipe_transport(fd).resume_reading()
        self._check_end()
        return capture

    def _end_capture(self, capture: _Capture) -> None:
        """Let the streams have again what comes, and what has come and was not taken."""
        self._capture = None
        for fd, chunks in capture.chunks.items():
            reader: Any = self.stdout if fd == 1 else self.stderr
            self._sinks[fd] = reader.feed_data
            for chunk in chunks:
                reader.feed_data(chunk)
            if fd in capture.ends:
                _end(reader, capture.ends[fd])


class _Capture:
    """What the child writes during one communicate()."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.chunks: dict[int, list[bytes]] = {}
        self.ends: dict[int, Exception | None] = {}
        # Done when the child is dead and its pipes are closed.
        self.complete: Future[None] = loop.create_future()

    def take(self, fd: int) -> list[bytes]:
        """The chunks of one pipe, which are thereby delivered."""
        chunks = self.chunks.get(fd, [])
        if chunks:
            self.chunks[fd] = []
        return chunks


class Process(asyncio.subprocess.Process):
    """A child process; made by create_subprocess_exec() and create_subprocess_shell().

    `stdin` is a StreamWriter, `stdout` and `stderr` are StreamReaders, or None without a pipe;
    `pid` is the number of the process. asyncio.subprocess.Process.
    """

    stdin: StreamWriter | None
    stdout: StreamReader | None
    stderr: StreamReader | None

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        protocol: SubprocessStreamProtocol,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._loop = loop
        self.stdin = protocol.stdin
        self.stdout = protocol.stdout
        self.stderr = protocol.stderr
        self.pid = transport.get_pid()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pid}>"

    @property
    def returncode(self) -> int | None:
        """The exit status, -N if signal N was the end; None as long as the process runs."""
        return self._transport.get_returncode()

    async def wait(self) -> int:
        """Wait for the end of the process and return the returncode.

        A child that fills a pipe nobody reads never ends: see communicate().
        """
        returncode = self._transport.get_returncode()
        if returncode is None:
            await self._protocol._wait_exit()
            returncode = self._transport.get_returncode()
        return returncode  # type: ignore[return-value]

    def send_signal(self, signal: int) -> None:
        """Send the process a signal. ProcessLookupError once its transport is closed."""
        self._transport.send_signal(signal)

    def terminate(self) -> None:
        """Ask the process to end: SIGTERM. Errors are those of send_signal()."""
        self._transport.terminate()

    def kill(self) -> None:
        """End the process: SIGKILL. Errors are those of send_signal()."""
        self._transport.kill()

    async def communicate(  # type: ignore[override]  # typeshed leaves the None out
        self, input: bytes | bytearray | memoryview | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Write `input` to stdin and close it, read all output, wait for the end.

        Return (stdout, stderr), each None without a pipe; the output is kept in memory. A child
        that does not read its input is no error. Cancelling this, by a timeout say, loses nothing:
        call it again, or read the streams.
        """
        capture = self._protocol._start_capture()
        try:
            if self.stdin is not None:
                await self._feed_stdin(self.stdin, input)
            await capture.complete
            stdout, stderr = capture.take(1), capture.take(2)
        finally:
            self._protocol._end_capture(capture)
        return await _join(self.stdout, stdout), await _join(self.stderr, stderr)

    async def _feed_stdin(
        self, stdin: StreamWriter, input: bytes | bytearray | memoryview | None
    ) -> None:
        debug = self._loop.get_debug()
        try:
            if input is not None and not stdin.is_closing():  # else some loops raise other errors
                if debug:
                    logger.debug("%r communicate: feed stdin (%s bytes)", self, len(input))
                if isinstance(input, bytes) and len(input) > _SLICE:
                    await _write_slices(stdin, memoryview(input))
                else:
                    stdin.write(input)
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as exc:
            if debug:
                logger.debug("%r communicate: stdin got %r", self, exc)
        if debug:
            logger.debug("%r communicate: close stdin", self)
        stdin.close()


async def create_subprocess_shell(
    cmd: str | bytes,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwds: Any,
) -> Process:
    """Start a command of the system's shell and return its Process.

    stdin, stdout and stderr are PIPE, DEVNULL, a file, None for the parent's own, and STDOUT for
    stderr; `limit` is that of the streams, in bytes; further keywords are subprocess.Popen's.
    ValueError for what only text needs. asyncio.create_subprocess_shell().
    """
    loop = get_running_loop()
    transport, protocol = await loop.subprocess_shell(
        lambda: SubprocessStreamProtocol(limit, loop),
        cmd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        **kwds,
    )
    return Process(transport, protocol, loop)


async def create_subprocess_exec(
    program: Any,
    *args: Any,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwds: Any,
) -> Process:
    """Start a program with arguments and return its Process; no shell has a part in it.

    Keywords are those of create_subprocess_shell(). FileNotFoundError and the like if the program
    cannot be started. asyncio.create_subprocess_exec().
    """
    loop = get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: SubprocessStreamProtocol(limit, loop),
        program,
        *args,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        **kwds,
    )
    return Process(transport, protocol, loop)


async def _write_slices(stdin: StreamWriter, rest: memoryview) -> None:
    """Write what the transport would otherwise have to copy while the child is still reading."""
    try:
        while rest:
            piece, rest = rest[:_SLICE], rest[_SLICE:]
            stdin.write(piece)
            await stdin.drain()
    except asyncio.CancelledError:
        stdin.write(rest)
        raise


def _end(reader: StreamReader, exc: Exception | None) -> None:
    if exc is None:
        reader.feed_eof()
    else:
        reader.set_exception(exc)


async def _join(reader: StreamReader | None, chunks: list[bytes]) -> bytes | None:
    """All output of a pipe that is closed: what its stream held already, and the rest."""
    if reader is None:
        return None
    held = await reader.read()
    return b"".join((held, *chunks)) if held else b"".join(chunks)


def _wake(waiters: Iterable[Future[None]], exc: BaseException | None = None) -> None:
    for waiter in waiters:
        if not waiter.done():
            if exc is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(exc)


async def _wait_among(waiters: set[Future[None]], loop: asyncio.AbstractEventLoop) -> None:
    waiter: Future[None] = loop.create_future()
    waiters.add(waiter)
    try:
        await waiter
    finally:
        waiters.discard(waiter)
