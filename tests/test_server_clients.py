"""server.py: how a server accepts its connections, and ends them all at once."""

import contextlib
import socket

import pytest

from children import run_script
from helpers import PATIENCE, WINDOWS, collect, drain
from tcp_helpers import MUCH, address, in_executor, reset, run, serving, turns, until, with_client

has_close_clients = pytest.mark.stock_since("3.13.0", "close_clients and abort_clients came then")

# ------------------------------------------------------------ accepting


def test_connections_come_in_the_order_of_arrival(loop):
    async def main():
        async with serving(loop, backlog=64) as (server, protocols):
            peers = [socket.create_connection(address(server), PATIENCE) for _ in range(50)]
            await until(lambda: len(protocols) == 50)
            for peer, protocol in zip(peers, protocols, strict=True):
                transport = await protocol.connected
                assert transport.get_extra_info("peername") == peer.getsockname()
                peer.close()

    run(loop, main())


def test_connection_that_was_reset_while_it_waited(loop):
    async def main():
        async with serving(loop, start_serving=False) as (server, protocols):
            await server.start_serving()
            reset(socket.create_connection(address(server), PATIENCE))
            with socket.create_connection(address(server), PATIENCE) as peer:
                name = peer.getsockname()
                await until(
                    lambda: any(
                        each.transport and each.transport.get_extra_info("peername") == name
                        for each in protocols
                    )
                )

    run(loop, main())


def test_data_that_was_there_before_accept_is_delivered(loop):
    async def main():
        async with serving(loop) as (server, protocols):
            with socket.create_connection(address(server), PATIENCE) as peer:
                peer.sendall(b"early")
                peer.shutdown(socket.SHUT_WR)
                await until(lambda: protocols)
                await protocols[0].lost
        assert protocols[0].events == [
            ("connection_made",),
            ("data", b"early"),
            ("eof",),
            ("connection_lost", None),
        ]

    run(loop, main())


def test_two_servers_are_told_apart(loop):
    async def main():
        async with serving(loop) as (one, first), serving(loop) as (two, second):
            with (
                socket.create_connection(address(one), PATIENCE),
                socket.create_connection(address(two), PATIENCE),
                socket.create_connection(address(two), PATIENCE),
            ):
                await until(lambda: len(first) == 1 and len(second) == 2)
            one.close()
            await turns()
            with socket.create_connection(address(two), PATIENCE):
                await until(lambda: len(second) == 3)

    run(loop, main())


def test_transport_of_a_closed_server_goes_on_and_ends(loop):
    async def main():
        async with with_client(loop) as (server, protocol, peer):
            server.close()
            collect()
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None

    run(loop, main())


OUT_OF_DESCRIPTORS = """
    import contextlib, resource, time

    loop = new_event_loop()
    reports = []
    served = []
    spare = []

    def on_error(loop, context):
        reports.append(context)
        # What is reported may be mended: then the clients that wait are served.
        if len(reports) == 1:
            loop.call_soon(mend)

    def mend():
        while spare:
            os.close(spare.pop())

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            served.append(transport)
            transport.write(b"served")

    async def main():
        loop.set_exception_handler(on_error)
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        where = server.sockets[0].getsockname()
        clients = [socket.create_connection(where, 10) for _ in range(3)]
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.open(os.devnull, os.O_RDONLY))
        begun = time.monotonic()
        while len(served) < 3:
            await asyncio.sleep(0.01)
        took = time.monotonic() - begun
        for client in clients:
            client.settimeout(10)
            assert client.recv(6) == b"served"
            client.close()
        for transport in served:
            transport.close()
        server.close()
        return took

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
    took = loop.run_until_complete(asyncio.wait_for(main(), 15))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    context = reports[0]
    assert context["message"] == "socket.accept() out of system resource", context
    assert context["exception"].errno == 24, context
    assert "socket" in context
    # Backed off: not tried again at once, and told once and not for every try.
    assert took > 0.5, took
    assert len(reports) == 1 or KIND == "asyncio", reports
    print("recovered")
"""


@pytest.mark.slow
@pytest.mark.skipif(WINDOWS, reason="no RLIMIT_NOFILE")
def test_server_out_of_descriptors_backs_off_and_recovers(loop_kind):
    assert run_script(loop_kind, OUT_OF_DESCRIPTORS).stdout.split() == ["recovered"]


STAYS_OUT_OF_DESCRIPTORS = """
    import contextlib, resource

    loop = new_event_loop()
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        where = server.sockets[0].getsockname()
        clients = [socket.create_connection(where, 10) for _ in range(3)]
        spare = []
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.open(os.devnull, os.O_RDONLY))
        # Meanwhile the loop is not busy with it, and what needs no descriptor works.
        turns = 0
        while not reports:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(reports) == 1 or KIND == "asyncio", reports
        # The server can be closed while it waits, and nothing comes after it.
        server.close()
        await server.wait_closed()
        del reports[:]
        await asyncio.sleep(1.2)
        assert not reports, reports
        for fd in spare:
            os.close(fd)
        for client in clients:
            client.close()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
    loop.run_until_complete(asyncio.wait_for(main(), 15))
    loop.close()
    print("closed")
"""


@pytest.mark.slow
@pytest.mark.veloop_only("asyncio starts the closed server again after its second")
@pytest.mark.skipif(WINDOWS, reason="no RLIMIT_NOFILE")
def test_server_closed_while_it_is_out_of_descriptors(loop_kind):
    assert run_script(loop_kind, STAYS_OUT_OF_DESCRIPTORS).stdout.split() == ["closed"]


# ------------------------------------------------------------ close_clients, abort_clients


@has_close_clients
def test_close_clients_sends_what_is_buffered(loop):
    size = MUCH

    async def main():
        async with with_client(loop) as (server, protocol, peer):
            protocol.transport.write(b"x" * size)
            assert protocol.transport.get_write_buffer_size() > 0
            server.close()
            server.close_clients()
            assert protocol.transport.is_closing()
            data = await in_executor(drain, peer, size)
            assert data == b"x" * size
            assert await protocol.lost is None
            await server.wait_closed()

    run(loop, main())


@has_close_clients
def test_abort_clients_drops_what_is_buffered(loop):
    async def main():
        async with with_client(loop) as (server, protocol, peer):
            protocol.transport.write(b"x" * (MUCH))
            assert protocol.transport.get_write_buffer_size() > 0
            server.close()
            server.abort_clients()
            assert await protocol.lost is None
            await server.wait_closed()
            received = 0
            with contextlib.suppress(ConnectionError):
                while data := peer.recv(1 << 16):
                    received += len(data)
            assert received < MUCH

    run(loop, main())


@has_close_clients
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_clients_may_be_ended_while_the_server_serves_on(loop, method):
    async def main():
        async with serving(loop) as (server, protocols):
            for number in range(1, 4):
                with socket.create_connection(address(server), PATIENCE):
                    await until(lambda number=number: len(protocols) == number)
                    await protocols[-1].connected
                    getattr(server, method)()
                    assert await protocols[-1].lost is None
            assert server.is_serving()
            getattr(server, method)()  # nobody there

    run(loop, main())


@has_close_clients
def test_clients_that_are_closing_may_be_aborted(loop):
    async def main():
        async with with_client(loop) as (server, protocol, _):
            protocol.transport.write(b"x" * (MUCH))
            server.close_clients()
            server.close_clients()
            await turns()
            assert not protocol.lost.done()
            server.abort_clients()
            assert await protocol.lost is None

    run(loop, main())


@has_close_clients
def test_hundred_clients_are_ended(loop):
    async def main():
        async with serving(loop) as (server, protocols):
            peers = [socket.create_connection(address(server), PATIENCE) for _ in range(100)]
            await until(lambda: len(protocols) == 100)
            for protocol in protocols:
                await protocol.connected
            server.close()
            server.close_clients()
            await server.wait_closed()
            for peer in peers:
                assert peer.recv(1) == b""
                peer.close()

    run(loop, main())
