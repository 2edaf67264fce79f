"""stream.py under asyncio's own streams: open_connection, start_server, StreamReader, StreamWriter.

The streams are the interpreter's; what they need of a transport is what is tried here.
"""

import asyncio
import contextlib
import socket

import pytest

from helpers import PATIENCE, echo, refusing_address, threaded_server
from tcp_helpers import HOST, MUCH, address, pattern, run, turns, until


@contextlib.asynccontextmanager
async def stream_server(handler, **kwargs):
    """The address of a server of asyncio.start_server."""
    failures = []
    running = []

    async def guarded(reader, writer):
        running.append(1)
        try:
            await handler(reader, writer)
        except Exception as exc:
            failures.append(exc)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            running.pop()

    server = await asyncio.start_server(guarded, HOST, 0, **kwargs)
    try:
        yield address(server)
    finally:
        server.close()
        await until(lambda: not running)
        await turns()
        await server.wait_closed()
    assert failures == []


@contextlib.asynccontextmanager
async def stream_client(where, **kwargs):
    reader, writer = await asyncio.open_connection(*where, **kwargs)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def echoing(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


def test_echo(loop):
    async def main():
        async with stream_server(echoing) as where, stream_client(where) as (reader, writer):
            for number in range(100):
                writer.write(b"%d\n" % number)
                await writer.drain()
                assert await reader.readline() == b"%d\n" % number
            writer.write_eof()
            assert await reader.read() == b""

    run(loop, main())


def test_reading_in_every_way(loop):
    data = b"line\n" + b"until;" + b"exactly" + b"some" + b"the rest"

    async def handler(reader, writer):
        writer.write(data)
        await writer.drain()

    async def main():
        async with stream_server(handler) as where, stream_client(where) as (reader, _):
            assert await reader.readline() == b"line\n"
            assert await reader.readuntil(b";") == b"until;"
            assert await reader.readexactly(7) == b"exactly"
            assert await reader.readexactly(4) == b"some"
            assert await reader.read() == b"the rest"
            assert reader.at_eof()
            assert await reader.read(10) == b""

    run(loop, main())


def test_stream_that_ends_too_early(loop):
    async def handler(reader, writer):
        writer.write(b"short")

    async def main():
        async with stream_server(handler) as where, stream_client(where) as (reader, _):
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(10)
            assert caught.value.partial == b"short"
            assert caught.value.expected == 10

    run(loop, main())


def test_line_longer_than_the_limit(loop):
    async def handler(reader, writer):
        writer.write(b"x" * 100_000 + b"\nnext\n")
        await writer.drain()
        await reader.read()

    async def main():
        async with stream_server(handler) as where:
            async with stream_client(where, limit=1000) as (reader, writer):
                with pytest.raises(asyncio.LimitOverrunError):
                    await reader.readuntil(b"\n")
                # What was read is still there.
                assert await reader.readexactly(100_001) == b"x" * 100_000 + b"\n"
                assert await reader.readline() == b"next\n"
                writer.write_eof()

    run(loop, main())


def test_much_data_both_ways(loop):
    async def main():
        async with stream_server(echoing) as where, stream_client(where) as (reader, writer):

            async def send():
                for start in range(0, MUCH, 1 << 18):
                    writer.write(pattern(MUCH)[start : start + (1 << 18)])
                    await writer.drain()
                writer.write_eof()

            sending = loop.create_task(send())
            assert await reader.read() == pattern(MUCH)
            await sending

    run(loop, main())


def test_reader_at_its_limit_pauses_the_transport(loop):
    go = loop.create_future()

    async def handler(reader, writer):
        await go
        received = 0
        while data := await reader.read(1 << 16):
            received += len(data)
        assert received == MUCH * 2

    async def main():
        async with stream_server(handler, limit=1000) as where:
            async with stream_client(where) as (_, writer):
                writer.write(pattern(MUCH))
                writer.write(pattern(MUCH))
                draining = loop.create_task(writer.drain())
                await turns(50)
                # Nobody reads: so nobody writes on.
                assert not draining.done()
                assert writer.transport.get_write_buffer_size() > 0
                go.set_result(None)
                await draining

    run(loop, main())


def test_drain_of_a_lost_connection_is_an_error(loop):
    async def handler(reader, writer):
        writer.transport.abort()

    async def main():
        async with stream_server(handler) as where, stream_client(where) as (reader, writer):
            assert await reader.read() == b""
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(b"x" * 1000)
                    await writer.drain()
                    await asyncio.sleep(0)

    run(loop, main())


def test_writer_closed_and_waited_for(loop):
    async def main():
        with threaded_server(echo) as where:
            reader, writer = await asyncio.open_connection(*where)
            assert writer.get_extra_info("peername") == where
            assert not writer.is_closing()
            writer.writelines([b"one", b"two"])
            assert await reader.readexactly(6) == b"onetwo"
            writer.close()
            assert writer.is_closing()
            await writer.wait_closed()
            assert reader.at_eof()

    run(loop, main())


def test_refused_connection(loop):
    async def main():
        with refusing_address() as where, pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*where)

    run(loop, main())


def test_cancelled_read_loses_nothing(loop):
    async def main():
        async with stream_server(echoing) as where, stream_client(where) as (reader, writer):
            for number in range(20):
                reading = loop.create_task(reader.readexactly(4))
                await turns(number % 3)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                writer.write(b"%04d" % number)
                assert await reader.readexactly(4) == b"%04d" % number

    run(loop, main())


def test_timeout_while_reading(loop):
    async def main():
        async with stream_server(echoing) as where, stream_client(where) as (reader, writer):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await reader.read(1)
            writer.write(b"x")
            assert await reader.read(1) == b"x"

    run(loop, main())


def test_hundred_clients_at_once(loop):
    async def one(where, number):
        async with stream_client(where) as (reader, writer):
            for count in range(10):
                line = b"%d %d\n" % (number, count)
                writer.write(line)
                await writer.drain()
                assert await reader.readline() == line

    async def main():
        async with stream_server(echoing, backlog=200) as where:
            await asyncio.gather(*(one(where, number) for number in range(100)))

    run(loop, main())


def test_streams_over_a_given_socket(loop):
    async def main():
        left, right = socket.socketpair()
        right.settimeout(PATIENCE)
        with right:
            reader, writer = await asyncio.open_connection(sock=left)
            right.sendall(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.write(b"there")
            assert right.recv(5) == b"there"
            writer.close()
            await writer.wait_closed()

    run(loop, main())


def test_handler_that_fails_is_reported_and_the_server_lives(loop, loop_errors):
    async def handler(reader, writer):
        line = await reader.readline()
        try:
            if line == b"bad\n":
                raise ZeroDivisionError("in the handler")
            writer.write(line)
        finally:
            writer.close()

    async def main():
        server = await asyncio.start_server(handler, HOST, 0)
        for line, answer in ((b"bad\n", b""), (b"good\n", b"good\n")):
            async with stream_client(address(server)) as (reader, writer):
                writer.write(line)
                assert await reader.read() == answer
        server.close()
        await server.wait_closed()

    run(loop, main())
    assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)
