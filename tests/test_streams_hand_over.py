"""stream_reader.py: what must not go wrong where a waiting task is handed its data directly."""

import asyncio
import contextvars
import gc
import sys
import unittest.mock

import pytest

from helpers import collect, run
from stream_helpers import Line, pending
from tcp_helpers import address, turns, until


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_connection_of_a_cancelled_reader_that_nobody_has_is_closed(aio, loop):
    gone = asyncio.Event()

    async def main():
        got = asyncio.Event()

        async def serve(reader, writer):
            writer.write(b"hello")
            await reader.read()
            gone.set()
            writer.close()

        async def client(server):
            reader, writer = await aio.open_connection(*address(server))
            while await reader.read(100):
                got.set()

        server = await aio.start_server(serve, "127.0.0.1", 0)
        task = asyncio.ensure_future(client(server))
        await got.wait()
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return server

    async def end(server):
        await asyncio.wait_for(gone.wait(), 10)
        server.close()
        await server.wait_closed()

    server = run(loop, main())
    # Not inside of the run: what PyPy has compiled of that may hold what it once had in hand.
    collect()
    run(loop, end(server))


def test_waiter_that_a_subclass_made_is_done(aio, loop):
    class Reader(aio.StreamReader):
        async def _wait_for_data(self, func_name):
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def main():
        line = Line(aio, loop)
        line.reader = Reader(loop=loop)
        line.protocol = aio.StreamReaderProtocol(line.reader, loop=loop)
        line.protocol.connection_made(line.wire)
        for data in (b"one", b"two"):
            task = await pending(loop, line.reader.read(10))
            await line.deliver(data)
            assert await task == data
        await line.end()

    run(loop, main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_nobody_goes_on_after_what_ends_the_program(aio, loop, loop_errors, kind):
    seen = []

    async def main():
        stop = asyncio.Event()

        async def serve(reader, writer):
            try:
                await reader.read(1)
                stop.set()
                raise kind("the end")
            finally:
                writer.close()

        server = await aio.start_server(serve, "127.0.0.1", 0)
        _, writer = await aio.open_connection(*address(server))
        try:
            writer.write(b"x")
            await stop.wait()
            seen.append("went on")
        finally:
            writer.close()
            server.close()

    task = loop.create_task(main())
    with pytest.raises(kind, match="the end"):
        loop.run_until_complete(task)
    assert seen == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    run(loop, turns())
    assert "client_connected_cb" in loop_errors.take_one()["message"]


def test_task_cancelled_before_its_context_is_free_is_cancelled(aio, loop):
    context = contextvars.copy_context()
    seen = []

    async def main():
        line = Line(aio, loop)

        async def work():
            seen.append(await line.reader.read(10))
            await asyncio.sleep(0)
            seen.append("went on")

        task = loop.create_task(work(), context=context)
        await turns()

        def deliver():
            line.protocol.data_received(b"x")
            assert task.cancel()

        loop.call_soon(deliver, context=context)
        await asyncio.wait([task])
        assert task.cancelled()
        await line.end()

    run(loop, main())
    assert "went on" not in seen


@pytest.mark.parametrize("where", ["instance", "class"])
def test_who_replaces_data_received_sees_everything(aio, loop, where):
    seen = []

    async def main():
        async def serve(reader, writer):
            writer.write(await reader.readline())
            writer.write(await reader.readline())
            writer.close()

        server = await aio.start_server(serve, "127.0.0.1", 0)
        reader = aio.StreamReader(loop=loop)
        protocol = aio.StreamReaderProtocol(reader, loop=loop)
        original = aio.StreamReaderProtocol.data_received

        def spy(*args):
            seen.append(args[-1])
            original(protocol, args[-1])

        if where == "instance":
            protocol.data_received = spy
        transport, _ = await loop.create_connection(lambda: protocol, *address(server))
        for line in (b"one\n", b"two\n"):
            transport.write(line)
            assert await reader.readline() == line
        transport.close()
        server.close()
        await server.wait_closed()

    def patched():
        def hook(self, data):
            seen.append(data)
            saved(self, data)

        saved = aio.StreamReaderProtocol.data_received
        return unittest.mock.patch.object(aio.StreamReaderProtocol, "data_received", hook)

    if where == "class":
        with patched():
            run(loop, main())
        assert b"".join(seen).count(b"one\n") == 2  # the server's and the client's
    else:
        run(loop, main())
        assert b"".join(seen) == b"one\ntwo\n"


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="who counts references sees it at once")
def test_ended_connection_keeps_no_task(aio, loop):
    async def main():
        line = Line(aio, loop)
        task = await pending(loop, line.reader.read(10))
        await line.deliver(b"a")
        await until(task.done)
        assert line.reader._waiter is None
        assert task not in gc.get_referrers(line.reader.__dict__)
        await line.end()

    run(loop, main())
