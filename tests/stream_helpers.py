"""What the tests of streams share: a transport without a connection, readers on it, real pairs."""

import asyncio
import contextlib

from tcp_helpers import address, turns


class Wire(asyncio.Transport):
    """A transport that writes down what it is told; nothing is connected to it."""

    def __init__(self, extra=None):
        super().__init__(extra)
        self.calls = []
        self.written = b""
        self.closing = False

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.calls.append("pause")

    def resume_reading(self):
        self.calls.append("resume")

    def write(self, data):
        self.calls.append("write")
        self.written += data

    def writelines(self, data):
        self.calls.append("writelines")
        self.written += b"".join(data)

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.calls.append("write_eof")

    def close(self):
        self.calls.append("close")
        self.closing = True


class Line:
    """(reader, protocol, wire) put together by hand, as a connection would be."""

    def __init__(self, aio, loop, limit=2**16, **kwargs):
        self.loop = loop
        self.reader = aio.StreamReader(limit=limit, loop=loop)
        self.protocol = aio.StreamReaderProtocol(self.reader, loop=loop, **kwargs)
        if aio is asyncio:
            # Its protocol does that when it is collected, in whatever order with the future.
            self.protocol._closed.add_done_callback(
                lambda closed: closed.cancelled() or closed.exception()
            )
        self.wire = Wire()
        self.protocol.connection_made(self.wire)

    def deliver(self, data):
        """Data from the transport, in a callback of the loop: (when it returned, as a future)."""
        return self._dispatch(self.protocol.data_received, data)

    def end(self):
        """The end of the stream, in a callback of the loop."""
        return self._dispatch(self.protocol.eof_received)

    def _dispatch(self, function, *args):
        done = self.loop.create_future()

        def callback():
            try:
                done.set_result(function(*args))
            except Exception as exc:  # what ends programs leaves the loop
                done.set_exception(exc)

        self.loop.call_soon(callback)
        return done


def left(reader):
    """What is unread."""
    return bytes(reader._buffer)


async def pending(loop, coro, count=2):
    """A task of the coroutine that has come to where it waits."""
    task = loop.create_task(coro)
    await turns(count)
    assert not task.done()
    return task


@contextlib.asynccontextmanager
async def served(aio, handler, **kwargs):
    """The address of a server of streams on loopback; every connection is over at the end."""
    tasks = []

    async def handle(reader, writer):
        tasks.append(asyncio.current_task())
        try:
            await handler(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await aio.start_server(handle, "127.0.0.1", 0, **kwargs)
    try:
        yield address(server)
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks)
        await turns()
        await server.wait_closed()


async def closed(writer):
    """Close and wait; how the connection ended does not matter."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
