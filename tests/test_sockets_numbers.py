"""sockets.py: the number of a socket that was waited for is used again, by whatever it may be."""

import asyncio
import contextlib
import os
import socket

import pytest

from helpers import PATIENCE, WINDOWS, RecordingProtocol, fill, socket_pair, tcp_pair
from sockets_helpers import left_behind, receive_late, write
from tcp_helpers import HOST, Canaries, address, run, serving, turns, until

posix = pytest.mark.skipif(WINDOWS, reason="descriptors are numbers on POSIX only")


@pytest.fixture
def pair():
    with socket_pair() as ends:
        yield ends


# Nobody gets it without asking for it.
HIGH = 200


@contextlib.contextmanager
def put_at(number, sock):
    """A socket at that number, with the file of another one."""
    os.dup2(sock.fileno(), number)
    with socket.socket(fileno=number) as moved:
        moved.setblocking(False)
        yield moved


async def by_sock_recv(loop, number, peer):
    with tcp_pair() as (client, server), put_at(number, server) as sock:
        task = loop.create_task(loop.sock_recv(sock, 100))
        await turns()
        write(peer)
        await asyncio.sleep(0.01)
        assert not task.done()
        client.send(b"new")
        assert await task == b"new"


async def by_sock_sendall(loop, number, peer):
    with socket_pair() as (left, right), put_at(number, left) as sock:
        filled = fill(sock)
        task = loop.create_task(loop.sock_sendall(sock, b"end"))
        await turns()
        write(peer)
        await asyncio.sleep(0.01)
        assert not task.done()
        while filled > 0:
            filled -= len(await loop.sock_recv(right, 1 << 20))
        await task


async def by_add_reader(loop, number, peer):
    with tcp_pair() as (client, server), put_at(number, server) as sock:
        called = []
        loop.add_reader(sock, lambda: called.append(sock.recv(100)))
        write(peer)
        await asyncio.sleep(0.01)
        assert called == []
        client.send(b"new")
        await until(lambda: called)
        assert called == [b"new"]
        assert loop.remove_reader(sock) is True
        assert loop.remove_reader(sock) is False


async def by_add_writer(loop, number, peer):
    with socket_pair() as (left, _), put_at(number, left) as sock:
        fill(sock)
        called = []
        loop.add_writer(sock, called.append, 1)
        write(peer)
        await asyncio.sleep(0.01)
        assert called == []
        assert loop.remove_writer(sock) is True


async def by_transport(loop, number, peer, method="create_connection"):
    with tcp_pair() as (client, server), put_at(number, server) as sock:
        transport, protocol = await getattr(loop, method)(
            lambda: RecordingProtocol(loop), sock=sock
        )
        write(peer)
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.remove_reader(number)
        client.sendall(b"new")
        assert await protocol.received(3) == b"new"
        transport.close()
        await protocol.lost


async def by_accepted_socket(loop, number, peer):
    await by_transport(loop, number, peer, "connect_accepted_socket")


async def by_listener(loop, number, peer):
    with socket.create_server((HOST, 0)) as listener, put_at(number, listener) as sock:
        async with serving(loop, sock=sock, host=None, port=None) as (server, protocols):
            write(peer)
            with socket.create_connection(address(server), PATIENCE) as client:
                await until(lambda: protocols)
                client.sendall(b"new")
                assert await protocols[0].received(3) == b"new"


async def by_datagrams(loop, number, peer):
    with (
        socket.socket(type=socket.SOCK_DGRAM) as bound,
        socket.socket(type=socket.SOCK_DGRAM) as sender,
    ):
        bound.bind((HOST, 0))
        with put_at(number, bound) as sock:
            received = loop.create_future()

            class Protocol(asyncio.DatagramProtocol):
                def datagram_received(self, data, _):
                    received.set_result(data)

            transport, _ = await loop.create_datagram_endpoint(Protocol, sock=sock)
            write(peer)
            sender.sendto(b"new", bound.getsockname())
            assert await received == b"new"
            transport.close()
            await turns()


async def by_pipe(loop, number, peer):
    reading, writing = os.pipe()
    os.dup2(reading, number)
    os.close(reading)
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(number, "rb", 0)
    )
    write(peer)
    os.write(writing, b"new")
    os.close(writing)
    assert await reader.read() == b"new"
    transport.close()
    await turns()


async def by_child(loop, number, peer):
    # Its pipes get the lowest numbers that are free.
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    write(peer)
    assert (await process.communicate(b"new"))[0] == b"new"


USERS = (
    *(by_sock_recv, by_sock_sendall, by_add_reader, by_add_writer, by_transport),
    *(by_accepted_socket, by_listener, by_datagrams, by_pipe, by_child),
)


@posix
@pytest.mark.parametrize("wait", [0, 1, 3], ids=lambda turns: f"after {turns} turns")
@pytest.mark.parametrize("copied", [False, True], ids=["file gone", "file lives"])
@pytest.mark.parametrize("user", USERS)
def test_number_of_a_socket_that_was_waited_for_is_used_again(loop, user, copied, wait):
    async def main():
        with contextlib.ExitStack() as stack:
            number = None if user is by_child else HIGH
            number, peer = await left_behind(loop, stack, copied, number)
            await turns(wait)
            await user(loop, number, peer)

    run(loop, main())


@posix
def test_accepted_connection_gets_the_number(loop):
    async def main():
        async with serving(loop) as (server, protocols):
            with contextlib.ExitStack() as stack:
                peers = [stack.enter_context(socket.create_connection(address(server), PATIENCE))]
                await until(lambda: protocols)
                for count in range(2, 20):
                    number, _ = await left_behind(loop, stack, copied=False)
                    peers.append(
                        stack.enter_context(socket.create_connection(address(server), PATIENCE))
                    )
                    await until(lambda count=count: len(protocols) == count)
                    peers[-1].sendall(b"new")
                    assert await protocols[-1].received(3) == b"new"

    run(loop, main())


@posix
def test_other_file_under_the_same_socket_object(loop, pair):
    # dup2() onto the number of a socket, as programs do that reconnect.
    async def main():
        sock, peer = pair
        await receive_late(loop, sock, peer)
        with tcp_pair() as (client, server):
            server.setblocking(False)
            os.dup2(server.fileno(), sock.fileno())
            await receive_late(loop, sock, client, b"second")
            await receive_late(loop, sock, client, b"third")

    run(loop, main())


@posix
def test_numbers_are_left_to_others_after_the_close(loop):
    async def main():
        with contextlib.ExitStack() as stack:
            await left_behind(loop, stack, copied=False)
            with Canaries() as canaries:
                await asyncio.sleep(0.01)
                await turns(5)
                canaries.check()

    run(loop, main())
