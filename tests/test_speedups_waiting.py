"""With the GIL kept nothing may wait, also not where another process cleared O_NONBLOCK."""

import asyncio
import os
import socket
import sys

import pytest

from speedups_helpers import accelerated_only, python

pytestmark = [
    accelerated_only,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the GIL is given away"),
]

# A process of its own: who fails here holds the GIL for ever. `block` does what a child may do with
# its standard input, for the parent's descriptor is of the same open file.
START = """
import asyncio, os, socket, threading, veloop

def block(fd):
    copy = os.dup(fd)
    os.set_blocking(copy, True)
    os.close(copy)

loop = veloop.new_event_loop()
"""


def test_write_to_a_socket_in_blocking_mode_does_not_wait():
    code = """
ours, theirs = socket.socketpair()
total = 0

def reader():
    global total
    while data := theirs.recv(65536):
        total += len(data)

async def main():
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    block(ours.fileno())
    for _ in range(40):
        transport.write(b"x" * 60000)
    print(transport.get_write_buffer_size() > 0)
    transport.writelines([b"x" * 60000, b"y"])
    transport.close()
    await asyncio.to_thread(reader)

loop.run_until_complete(main())
loop.close()
theirs.close()
print(total)
"""
    assert python(START + code) == ["True", str(41 * 60000 + 1)]


def test_write_to_a_pipe_in_blocking_mode_lets_other_threads_run():
    code = """
readable, writable = os.pipe()
total = 0

def reader():
    global total
    while data := os.read(readable, 65536):
        total += len(data)

async def main():
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(writable, "wb", 0))
    block(writable)
    thread = threading.Thread(target=reader)
    thread.start()
    for _ in range(40):
        transport.write(b"x" * 60000)
    transport.close()
    await asyncio.to_thread(thread.join)

loop.run_until_complete(main())
loop.close()
os.close(readable)
print(total)
"""
    assert python(START + code) == [str(40 * 60000)]


def test_read_and_accept_in_blocking_mode_do_not_wait_for_a_second_one():
    code = """
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()

async def main():
    got = loop.create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            block(transport.get_extra_info("socket").fileno())

        def data_received(self, data):
            self.transport.write(data)

    class Client(asyncio.Protocol):
        def data_received(self, data):
            got.set_result(data)

    server = await loop.create_server(Server, sock=listener)
    block(listener.fileno())
    transport, _ = await loop.create_connection(Client, *address)
    transport.write(b"hello")
    print((await got).decode())
    transport.close()
    server.close()
    await server.wait_closed()

loop.run_until_complete(main())
loop.close()
"""
    assert python(START + code) == ["hello"]


def test_datagrams_in_blocking_mode_do_not_wait(loop):
    async def main():
        got = asyncio.Queue()

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                got.put_nowait(data)

        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        transport, _ = await loop.create_datagram_endpoint(Protocol, sock=sock)
        copy = os.dup(sock.fileno())
        os.set_blocking(copy, True)
        os.close(copy)
        for text in (b"a", b"b"):
            transport.sendto(text, sock.getsockname())
            async with asyncio.timeout(5):
                assert await got.get() == text
        transport.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
