"""TLS connections from end to end: what is said, what is told, and every argument."""

import ssl

import pytest

from certificates import server_context
from helpers import RecordingBufferedProtocol, RecordingProtocol
from tcp_helpers import MUCH, pattern, run
from tls_helpers import tls_linked

# ------------------------------------------------------------ data


@pytest.mark.parametrize("size", [1, 1000, 16384, 16385, 70_000, 1 << 20])
def test_what_is_written_arrives_in_both_directions(loop, size):
    async def main():
        data = pattern(size)
        async with tls_linked(loop) as (client, server):
            client.transport.write(data)
            assert await server.received(size) == data
            server.transport.write(data)
            assert await client.received(size) == data

    run(loop, main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("buffered", [False, True])
def test_versions_and_kinds_of_protocol(loop, version, buffered):
    kind = RecordingBufferedProtocol if buffered else RecordingProtocol

    async def main():
        context = server_context()
        context.minimum_version = context.maximum_version = version
        both = lambda: kind(loop)  # noqa: E731
        async with tls_linked(loop, both, both, server=context) as (client, server):
            assert client.transport.get_extra_info("ssl_object").version() == version.name.replace(
                "_", "."
            )
            client.transport.write(pattern(300_000))
            assert await server.received(300_000) == pattern(300_000)
            client.transport.close()
            assert await client.lost is None
            assert await server.lost is None
            assert server.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


def test_writelines_and_all_kinds_of_bytes(loop):
    async def main():
        async with tls_linked(loop) as (client, server):
            client.transport.writelines([b"12", bytearray(b"34"), memoryview(b"56")])
            client.transport.write(memoryview(b"xyz"))
            client.transport.write(b"")
            client.transport.writelines([])
            assert await server.received(9) == b"123456xyz"

    run(loop, main())


@pytest.mark.veloop_only("asyncio gives these to OpenSSL, which breaks the connection")
def test_strided_views_and_empty_pieces(loop):
    async def main():
        async with tls_linked(loop) as (client, server):
            view = memoryview(bytearray(b"abcdef"))[::2]
            client.transport.write(view)
            client.transport.writelines([b"", view, b"", memoryview(b"")])
            client.transport.write(b"!")
            assert await server.received(7) == b"aceace!"

    run(loop, main())


def test_only_bytes_can_be_written(loop):
    async def main():
        async with tls_linked(loop) as (client, _):
            with pytest.raises(TypeError, match="str"):
                client.transport.write("text")
            with pytest.raises(TypeError):
                client.transport.writelines([b"fine", 1])

    run(loop, main())


def test_there_is_no_half_close(loop):
    async def main():
        async with tls_linked(loop) as (client, _):
            assert client.transport.can_write_eof() is False
            with pytest.raises(NotImplementedError):
                client.transport.write_eof()

    run(loop, main())


def test_much_both_ways_at_once(loop):
    async def main():
        data = pattern(MUCH)
        async with tls_linked(loop) as (client, server):
            client.transport.write(data)
            server.transport.write(data)
            assert await server.received(MUCH) == data
            assert await client.received(MUCH) == data

    run(loop, main())
