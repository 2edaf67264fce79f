"""Descriptors' numbers that come back: who had a number before must not be taken for who has it.

A number is free again as soon as its file is closed, and the next accept(), socket() or pipe() of
anybody gets it, while libuv may still know it.
"""

import contextlib
import os
import socket

import pytest

from children import run_script
from helpers import (
    PATIENCE,
    WINDOWS,
    RecordingProtocol,
    tcp_pair,
)
from tcp_helpers import (
    Canaries,
    address,
    run,
    serving,
    turns,
    until,
    wired,
)

pytestmark = pytest.mark.skipif(WINDOWS, reason="descriptors are numbers on POSIX only")

METHODS = ["create_connection", "connect_accepted_socket"]


def free_number():
    with socket.socket() as sock:
        return sock.fileno()


@pytest.mark.veloop_only("asyncio's selector still knows the number")
def test_accepted_connection_whose_number_has_a_stale_reader(loop):
    # add_reader, descriptor closed without remove_reader, then accept() gets that number.
    async def main():
        async with serving(loop) as (server, protocols):
            called = []
            peers = []
            left, right = socket.socketpair()
            number = left.fileno()
            loop.add_reader(number, called.append, "stale")
            await turns(3)
            peers.append(socket.create_connection(address(server), PATIENCE))
            left.close()
            right.close()
            # The lowest free number is what accept() gets.
            while True:
                await until(lambda: len(protocols) == len(peers))
                transport = await protocols[-1].connected
                if transport.get_extra_info("socket").fileno() == number:
                    break
                assert len(peers) < 20
                peers.append(socket.create_connection(address(server), PATIENCE))
            protocol = protocols[-1]
            peers[-1].sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            assert called == []
            # The stale one must not take the transport's watch with it.
            with contextlib.suppress(RuntimeError):
                loop.remove_reader(number)
            with contextlib.suppress(RuntimeError):
                loop.remove_writer(number)
            peers[-1].sendall(b"there")
            assert await protocol.received(10) == b"hellothere"
            for peer in peers:
                peer.close()

    run(loop, main())


@pytest.mark.veloop_only("asyncio's selector still knows the number")
@pytest.mark.parametrize("method", METHODS)
def test_socket_handed_over_whose_number_has_a_stale_reader(loop, method):
    async def main():
        left, right = socket.socketpair()  # the other end stays: there is nothing to be told of
        number = left.fileno()
        called = []
        loop.add_reader(number, called.append, "stale")
        loop.add_writer(number, int)
        await turns(3)
        loop.remove_writer(number)
        with right, tcp_pair() as (peer, server_side):
            left.close()
            sock = server_side.dup()
            assert sock.fileno() == number
            transport, protocol = await getattr(loop, method)(
                lambda: RecordingProtocol(loop), sock=sock
            )
            with contextlib.suppress(RuntimeError):
                loop.remove_reader(number)
            peer.sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            assert called == []
            transport.close()
            await protocol.lost

    run(loop, main())


def test_number_of_an_ended_transport_can_be_watched(loop):
    async def main():
        async with wired(loop) as (transport, protocol, _):
            number = transport.get_extra_info("socket").fileno()
            transport.close()
            await protocol.lost
            await turns()
            with Canaries() as canaries:
                assert number in canaries.numbers
                seen = []
                loop.add_reader(number, seen.append, 1)
                assert loop.remove_reader(number) is True
                assert loop.remove_reader(number) is False
                canaries.check()

    run(loop, main())


def test_thousand_connections_one_after_the_other_use_few_numbers(loop):
    numbers = set()

    async def main():
        async with serving(loop) as (server, protocols):
            for count in range(1, 301):
                with socket.create_connection(address(server), PATIENCE):
                    await until(lambda count=count: len(protocols) == count)
                    transport = await protocols[-1].connected
                    numbers.add(transport.get_extra_info("socket").fileno())
                await protocols[-1].lost
                await turns(2)

    run(loop, main())
    assert len(numbers) < 20


def test_standard_streams_numbers_are_usable(loop_kind):
    # A daemon that closed 0, 1, 2: sockets get these numbers, which libuv will not close.
    script = """
        saved = os.dup(1)
        report = os.dup(2)
        for number in (0, 1, 2):
            os.close(number)

        async def main():
            loop = asyncio.get_running_loop()
            received = loop.create_future()

            class Server(asyncio.Protocol):
                def connection_made(self, transport):
                    self.transport = transport

                def data_received(self, data):
                    self.transport.write(data)

            class Client(asyncio.Protocol):
                def data_received(self, data):
                    received.set_result(data)

            server = await loop.create_server(Server, "127.0.0.1", 0)
            where = server.sockets[0].getsockname()
            client, _ = await loop.create_connection(Client, *where)
            client.write(b"hello")
            assert await received == b"hello"
            client.close()
            await asyncio.sleep(0.01)
            server.close()
            await asyncio.sleep(0.01)
            left = []
            for number in (0, 1, 2):
                try:
                    os.fstat(number)
                    left.append(number)
                except OSError:
                    pass
            return left

        loop = new_event_loop()
        left = loop.run_until_complete(asyncio.wait_for(main(), 10))
        loop.close()
        free = []
        for number in (0, 1, 2):
            try:
                os.fstat(number)
            except OSError:
                free.append(number)
        os.write(saved, b"free %r" % len(free))
    """
    assert run_script(loop_kind, script).stdout == "free 3"


def test_fork_in_between_leaves_the_parents_connection_alone(loop_kind):
    # The child that ends at once, as subprocess and multiprocessing have it.
    script = """
        async def main():
            loop = asyncio.get_running_loop()
            received = []

            class Protocol(asyncio.Protocol):
                def connection_made(self, transport):
                    self.transport = transport

                def data_received(self, data):
                    received.append(data)

            server = await loop.create_server(Protocol, "127.0.0.1", 0)
            client = socket.create_connection(server.sockets[0].getsockname())
            await asyncio.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            client.sendall(b"hello")
            while not received:
                await asyncio.sleep(0)
            client.close()
            server.close()
            await asyncio.sleep(0.01)
            return received

        loop = new_event_loop()
        print(loop.run_until_complete(asyncio.wait_for(main(), 10)))
        loop.close()
    """
    out = run_script(loop_kind, script, "-W", "ignore::DeprecationWarning").stdout
    assert out.strip() == "[b'hello']"


def test_descriptor_numbers_above_a_thousand(loop):
    # select() could not; uv and epoll can.
    async def main():
        spare = []
        try:
            while not spare or spare[-1] < 1100:
                spare.append(os.open(os.devnull, os.O_RDONLY))
            async with wired(loop) as (transport, protocol, peer):
                assert transport.get_extra_info("socket").fileno() > 1024
                peer.sendall(b"hello")
                assert await protocol.received(5) == b"hello"
        finally:
            for number in spare:
                os.close(number)

    import resource

    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
        pytest.skip("too few descriptors allowed")
    run(loop, main())


@pytest.mark.veloop_only("asyncio's selector still knows the numbers")
@pytest.mark.parametrize("kind", ["accepted connection", "endpoint"])
def test_several_descriptors_that_were_closed_behind_their_transports(loop_kind, kind):
    # Who gets such a number moves to another one; which may be such a number, too.
    script = f"""
        loop = new_event_loop()
        transports, received = [], []

        class Protocol(asyncio.Protocol, asyncio.DatagramProtocol):
            def connection_made(self, transport):
                transports.append(transport)

            def data_received(self, data):
                received.append(data)

            def datagram_received(self, data, address):
                received.append(data)

        async def one_more(server):
            before = len(transports)
            if {kind == "endpoint"}:
                await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
                client = socket.socket(type=socket.SOCK_DGRAM)
                client.connect(transports[-1].get_extra_info("sockname"))
            else:
                client = socket.create_connection(server.sockets[0].getsockname())
                while len(transports) == before:
                    await asyncio.sleep(0)
            return client

        async def main():
            server = await loop.create_server(Protocol, "127.0.0.1", 0)
            clients = [await one_more(server) for _ in range(5)]
            for transport in transports:
                os.close(transport.get_extra_info("socket").fileno())
            clients.append(await one_more(server))
            clients[-1].send(b"hello")
            while not received:
                await asyncio.sleep(0)
            for transport in transports:
                transport.abort()
            server.close()

        loop.run_until_complete(asyncio.wait_for(main(), 10))
        print(received)
        loop.close()
    """
    assert run_script(loop_kind, script, "-W", "ignore").stdout.strip() == "[b'hello']"
