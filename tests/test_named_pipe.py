"""named_pipe.py: create_pipe_connection and start_serving_pipe."""

import asyncio
import itertools
import os

import pytest

from helpers import WINDOWS, RecordingProtocol
from tcp_helpers import pattern, run, turns

pytestmark = [
    pytest.mark.skipif(not WINDOWS, reason="Windows alone has such names"),
    pytest.mark.proactor,
]

_numbers = itertools.count()


@pytest.fixture
def name():
    return rf"\\.\pipe\veloop-test-{os.getpid()}-{next(_numbers)}"


class Upper(RecordingProtocol):
    def data_received(self, data):
        self.transport.write(data.upper())


def test_nobody_serves(loop, name):
    with pytest.raises(FileNotFoundError):
        run(loop, loop.create_pipe_connection(asyncio.Protocol, name))


def test_clients_are_served(loop, name):
    async def main():
        served, clients = [], []

        def serve():
            served.append(Upper(loop))
            return served[-1]

        [server] = await loop.start_serving_pipe(serve, name)
        await turns()
        assert not server.closed()
        for _ in range(5):
            made = await loop.create_pipe_connection(lambda: RecordingProtocol(loop), name)
            clients.append(made)
        for transport, protocol in clients:
            assert isinstance(transport, asyncio.Transport)
            assert transport.get_extra_info("addr") == name
            assert not transport.can_write_eof()
            transport.write(b"hello")
            assert await protocol.received(5) == b"HELLO"
        server.close()
        assert server.closed()
        for transport, protocol in clients:
            transport.close()
            assert await protocol.lost is None
        # The name is there as long as there is a connection.
        for protocol in served:
            await protocol.lost
        await turns()
        with pytest.raises(FileNotFoundError):
            await loop.create_pipe_connection(asyncio.Protocol, name)

    run(loop, main())


def test_end_of_the_client_is_told_to_the_server(loop, name):
    async def main():
        served = RecordingProtocol(loop)
        [server] = await loop.start_serving_pipe(lambda: served, name)
        transport, _ = await loop.create_pipe_connection(asyncio.Protocol, name)
        transport.write(b"last")
        transport.close()
        await served.lost
        assert served.data == b"last"
        assert served.names[:2] == ["connection_made", "data"]
        server.close()

    run(loop, main())


def test_much_arrives_whole_in_both_directions(loop, name):
    size = 1 << 20

    async def main():
        served, connected = RecordingProtocol(loop), RecordingProtocol(loop)
        [server] = await loop.start_serving_pipe(lambda: served, name)
        transport, _ = await loop.create_pipe_connection(lambda: connected, name)
        await served.connected
        transport.write(pattern(size))
        served.transport.write(pattern(size))
        assert await served.received(size) == pattern(size)
        assert await connected.received(size) == pattern(size)
        server.close()
        transport.close()
        await served.lost

    run(loop, main())


def test_name_in_use_is_refused(loop, name):
    async def main():
        servers = await loop.start_serving_pipe(Upper, name)
        await turns()
        try:
            with pytest.raises(PermissionError):
                servers += await loop.start_serving_pipe(Upper, name)
        finally:
            for server in servers:
                server.close()

    run(loop, main())


@pytest.mark.veloop_only("asyncio's server ends with its factory's exception")
def test_factory_that_fails_is_reported_and_the_server_goes_on(loop, name, loop_errors):
    async def main():
        protocols = iter([None, Upper(loop)])
        [server] = await loop.start_serving_pipe(lambda: next(protocols), name)
        first = RecordingProtocol(loop)
        await loop.create_pipe_connection(lambda: first, name)
        await first.lost
        assert isinstance(loop_errors.take_one()["exception"], TypeError)
        second = RecordingProtocol(loop)
        transport, _ = await loop.create_pipe_connection(lambda: second, name)
        transport.write(b"a")
        assert await second.received(1) == b"A"
        transport.close()
        server.close()
        await second.lost

    run(loop, main())


@pytest.mark.veloop_only("asyncio's leaves the pipe open")
def test_close_of_the_loop_ends_the_server(new_loop, name):
    loop = new_loop()
    [server] = run(loop, loop.start_serving_pipe(Upper, name))
    loop.close()
    assert server.closed()
    server.close()
