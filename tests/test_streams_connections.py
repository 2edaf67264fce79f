"""streams.py: connections and servers, from open_connection to wait_closed."""

import asyncio
import contextlib
import gc
import os
import socket
import tempfile

import pytest

from certificates import client_context, server_context
from helpers import WINDOWS, Pipe, drain, drop_unreferenced, refusing_address, run, tcp_pair
from stream_helpers import closed, served
from tcp_helpers import address, in_executor, pattern, reset, turns, until

UNIX = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def say_and_hear(reader, writer, data):
    """Send while reading, so that neither side waits for the other."""
    task = asyncio.create_task(reader.readexactly(len(data)))
    writer.write(data)
    await writer.drain()
    return await task


# ------------------------------------------------------------ there and back


@pytest.mark.parametrize("size", [1, 1000, 3_000_000])
def test_echo(aio, loop, size):
    async def main():
        async with served(aio, echo) as where:
            reader, writer = await aio.open_connection(*where)
            assert await say_and_hear(reader, writer, pattern(size)) == pattern(size)
            await closed(writer)

    run(loop, main())


def test_many_connections_at_once(aio, loop):
    async def one(where, number):
        reader, writer = await aio.open_connection(*where)
        for turn in range(10):
            line = b"%d %d\n" % (number, turn)
            writer.write(line)
            assert await reader.readline() == line
        await closed(writer)

    async def main():
        async with served(aio, echo) as where:
            await asyncio.gather(*(one(where, number) for number in range(20)))

    run(loop, main())


def test_echo_over_tls(aio, loop):
    async def main():
        async with served(aio, echo, ssl=server_context()) as where:
            reader, writer = await aio.open_connection(
                *where, ssl=client_context(), server_hostname="localhost"
            )
            assert writer.get_extra_info("sslcontext") is not None
            assert not writer.can_write_eof()
            data = pattern(300_000)
            assert await say_and_hear(reader, writer, data) == data
            await closed(writer)

    run(loop, main())


@UNIX
def test_echo_over_a_unix_socket(aio, loop):
    async def handler(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()

    async def main():
        with tempfile.TemporaryDirectory(prefix="v") as folder:
            path = f"{folder}/s"
            server = await aio.start_unix_server(handler, path, limit=7)
            reader, writer = await aio.open_unix_connection(path, limit=5)
            assert reader._limit == 5
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
            assert await reader.read() == b""
            await closed(writer)
            server.close()
            await server.wait_closed()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    run(loop, main())


@pytest.mark.skipif(WINDOWS, reason="asyncio has no transports over os.pipe() there")
def test_reader_on_a_pipe(aio, loop):
    async def main():
        with Pipe() as pipe:
            reader = aio.StreamReader()
            transport, _ = await loop.connect_read_pipe(
                lambda: aio.StreamReaderProtocol(reader), os.fdopen(os.dup(pipe.reading), "rb", 0)
            )
            os.write(pipe.writing, b"one\ntwo")
            assert await reader.readline() == b"one\n"
            pipe.close(pipe.writing)
            assert await reader.read() == b"two"
            transport.close()
            await turns()

    run(loop, main())


def test_limit_goes_to_the_readers(aio, loop):
    limits = []

    async def handler(reader, writer):
        limits.append(reader._limit)

    async def main():
        async with served(aio, handler, limit=11) as where:
            reader, writer = await aio.open_connection(*where, limit=12)
            limits.append(reader._limit)
            assert await reader.read() == b""
            await closed(writer)

    run(loop, main())
    assert sorted(limits) == [11, 12]


def test_refused_connection(aio, loop):
    async def main():
        with refusing_address() as where:
            with pytest.raises(ConnectionRefusedError):
                await aio.open_connection(*where)

    run(loop, main())


def test_slow_reader_stops_the_sender_and_gets_everything(aio, loop):
    data = pattern(4_000_000)

    async def main():
        with tcp_pair() as (client, server):
            reader, writer = await aio.open_connection(sock=server.dup(), limit=1000)
            sending = asyncio.create_task(in_executor(client.sendall, data))
            await until(lambda: reader._paused)
            assert len(reader._buffer) > 2000
            assert await reader.readexactly(len(data)) == data
            await sending
            await closed(writer)

    run(loop, main())


# ------------------------------------------------------------ the handler of a server


def test_handler_may_be_a_plain_function(aio, loop):
    async def main():
        streams = loop.create_future()
        server = await aio.start_server(lambda *pair: streams.set_result(pair), "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*address(server))
        _, far = await streams
        far.write(b"hello")
        await closed(far)
        assert await reader.read() == b"hello"
        await closed(writer)
        server.close()
        await server.wait_closed()

    run(loop, main())


def failing(aio, loop, handler):
    async def main():
        server = await aio.start_server(handler, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*address(server))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        await closed(writer)
        server.close()
        await server.wait_closed()
        await turns()

    run(loop, main())


def check_report(context):
    assert context["message"] == "Unhandled exception in client_connected_cb"
    assert str(context["exception"]) == "mine"
    assert context["transport"].is_closing()


def test_exception_of_the_handler_is_reported_and_closes(aio, loop, loop_errors):
    async def handler(reader, writer):
        raise LookupError("mine")

    failing(aio, loop, handler)
    check_report(loop_errors.take_one())


@pytest.mark.module_since("3.14", "a callback that is no coroutine")
def test_exception_of_a_plain_function_is_reported_and_closes(aio, loop, loop_errors):
    def handler(reader, writer):
        raise LookupError("mine")

    failing(aio, loop, handler)
    check_report(loop_errors.take_one())


@pytest.mark.module_since("3.13", "a cancelled handler")
def test_cancelled_handler_closes_and_is_not_reported(aio, loop):
    async def handler(reader, writer):
        asyncio.current_task().cancel()
        await reader.read()

    failing(aio, loop, handler)


def test_handlers_task_is_held_by_the_connection(aio, loop):
    async def main():
        started = loop.create_future()

        async def handler(reader, writer):
            started.set_result(None)
            writer.write(await reader.readline())
            writer.close()

        server = await aio.start_server(handler, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*address(server))
        await started
        gc.collect()
        writer.write(b"still there\n")
        assert await reader.read() == b"still there\n"
        await closed(writer)
        server.close()
        await server.wait_closed()

    run(loop, main())


# ------------------------------------------------------------ ends of connections


def test_end_in_one_direction(aio, loop):
    async def handler(reader, writer):
        assert await reader.read() == b"question"
        writer.write(b"answer")

    async def main():
        async with served(aio, handler) as where:
            reader, writer = await aio.open_connection(*where)
            assert writer.can_write_eof()
            writer.write(b"question")
            writer.write_eof()
            assert await reader.read() == b"answer"
            await closed(writer)

    run(loop, main())


def test_reset_connection_fails_reads_and_drain(aio, loop):
    async def main():
        with tcp_pair() as (client, server):
            reader, writer = await aio.open_connection(sock=server.dup())
            task = asyncio.create_task(reader.read())
            await turns()
            reset(client)
            server.close()
            with pytest.raises(ConnectionResetError):
                await task
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            with pytest.raises(ConnectionResetError):
                await writer.wait_closed()

    run(loop, main())


def test_lost_connection_that_nobody_waits_for_is_not_reported(aio, loop):
    async def main():
        with tcp_pair() as (client, server):
            reader, writer = await aio.open_connection(sock=server.dup())
            reset(client)
            await until(writer.is_closing)
            await turns()

    run(loop, main())
    gc.collect()


def test_wait_closed_returns_when_the_connection_is_closed(aio, loop):
    async def main():
        with tcp_pair() as (client, server):
            reader, writer = await aio.open_connection(sock=server.dup())
            server.close()
            assert not writer.is_closing()
            waiting = [asyncio.create_task(writer.wait_closed()) for _ in range(2)]
            await turns()
            writer.write(b"last words")
            writer.close()
            assert writer.is_closing()
            await asyncio.gather(*waiting)
            await writer.wait_closed()
            assert await in_executor(drain, client, 10) == b"last words"
            assert await in_executor(client.recv, 1) == b""

    run(loop, main())


@pytest.mark.own_module_only("asyncio's cancels what all others wait for")
def test_cancelled_wait_closed_cancels_nobody_else(aio, loop):
    async def main():
        with tcp_pair() as (client, server):
            reader, writer = await aio.open_connection(sock=server.dup())
            first, second = (asyncio.create_task(writer.wait_closed()) for _ in range(2))
            await turns()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            writer.close()
            await second
            await writer.wait_closed()

    run(loop, main())


def test_drain_after_close_raises_in_the_end(aio, loop):
    async def main():
        with tcp_pair() as (client, server):
            reader, writer = await aio.open_connection(sock=server.dup())
            writer.close()
            with pytest.raises(ConnectionResetError):
                for _ in range(10):
                    await writer.drain()

    run(loop, main())


@pytest.mark.module_since("3.13", "a writer that was not closed")
def test_writer_that_is_not_closed_warns_and_closes(aio, loop):
    async def main():
        with tcp_pair() as (client, server):
            reader, writer = await aio.open_connection(sock=server.dup())
            server.close()
            with pytest.warns(ResourceWarning, match="unclosed <StreamWriter transport=<.*closing"):
                del writer
                gc.collect()
            assert await in_executor(client.recv, 1) == b""
            await turns()

    run(loop, main())


@pytest.mark.own_module_only("asyncio's calls the transport from whatever thread it is in")
def test_writer_that_is_garbage_in_another_thread_is_closed_in_the_loops(aio, loop):
    async def main():
        with tcp_pair() as (client, server):
            reader, writer = await aio.open_connection(sock=server.dup())
            server.close()
            box = [writer]
            del writer
            with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
                await in_executor(lambda: (box.clear(), drop_unreferenced()))
            assert await in_executor(client.recv, 1) == b""
            await turns()

    run(loop, main())


# ------------------------------------------------------------ start_tls


async def upgrade(writer, **kwargs):
    await writer.start_tls(client_context(), server_hostname="localhost", **kwargs)


@pytest.mark.module_since("3.12", "ssl_shutdown_timeout")
def test_start_tls_on_both_sides(aio, loop):
    async def handler(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(server_context())
        assert writer.get_extra_info("sslcontext") is not None
        await echo(reader, writer)

    async def main():
        async with served(aio, handler) as where:
            reader, writer = await aio.open_connection(*where)
            plain = writer.transport
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go\n"
            await upgrade(writer, ssl_handshake_timeout=20, ssl_shutdown_timeout=20)
            assert writer.transport is not plain
            assert await say_and_hear(reader, writer, pattern(200_000)) == pattern(200_000)
            await closed(writer)

    run(loop, main())


@pytest.mark.module_since("3.14", "the reader's transport is replaced, too")
@pytest.mark.stock_since("3.15", "what the reader has is a part of the handshake")
def test_start_tls_with_the_clients_hello_in_the_reader(aio, loop):
    async def handler(reader, writer):
        await reader._wait_for_data("handler")
        assert reader._buffer
        await writer.start_tls(server_context())
        await echo(reader, writer)

    async def main():
        async with served(aio, handler) as where:
            reader, writer = await aio.open_connection(*where)
            await upgrade(writer)
            assert reader._transport is writer.transport
            assert await say_and_hear(reader, writer, b"data") == b"data"
            await closed(writer)

    run(loop, main())


def test_libraries_way_to_start_tls(aio, loop):
    # Before there was StreamWriter.start_tls(), everybody did it like this.
    async def handler(reader, writer):
        await reader.readline()
        writer.write(b"go\n")
        transport = await loop.start_tls(
            writer.transport, writer.transport.get_protocol(), server_context(), server_side=True
        )
        writer._transport = reader._transport = transport
        await echo(reader, writer)

    async def main():
        async with served(aio, handler) as where:
            reader, writer = await aio.open_connection(*where)
            writer.write(b"STARTTLS\n")
            await reader.readline()
            writer._transport = await loop.start_tls(
                writer.transport,
                writer.transport.get_protocol(),
                client_context(),
                server_hostname="localhost",
            )
            assert await say_and_hear(reader, writer, b"data") == b"data"
            await closed(writer)

    run(loop, main())
